"""One response from its first event to its last, with the object that it is at any moment.

Who reads the events, and what is kept of them, is `server.responses.live`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quire.protocol.errors import OutOfCapacityError
from quire.protocol.results import CompletionOutput
from quire.server.chat_output import ChatLog
from quire.server.completion_output import encode
from quire.server.errors import problem_of
from quire.server.face import Face
from quire.server.generation import begun
from quire.server.responses.remote import RemoteTool, ToolServers
from quire.server.responses.resource import ENDED, usage_of
from quire.server.responses.writer import Event, OutputWriter
from quire.server.schema.responses import ResponsesRequest
from quire.server.state import ServerState
from quire.server.turns import Prepared, TurnNews

MAX_CALLS = 32
"""Calls of servers' tools in one response, where the request sets no limit."""
News = AsyncGenerator[TurnNews, None]


@dataclass(kw_only=True)
class ResponseRun:
    """A response that runs, or has run.

    head   the response object before its outcome.
    items  the input items, without those of earlier responses.
    log    what makes log-probabilities of texts; None where none are wanted.
    again  the next turn, from the output so far and the number of its tokens; used where `remote` tools
           were called.
    """

    state: ServerState
    llm: Face
    request: ResponsesRequest
    prepared: Prepared
    writer: OutputWriter
    head: dict[str, Any]
    items: list[dict[str, Any]]
    log: ChatLog | None
    servers: ToolServers
    remote: Mapping[str, RemoteTool]
    again: Callable[[list[dict[str, Any]], int], Awaitable[Prepared]]
    status: str = "in_progress"
    _outcome: dict[str, Any] = field(default_factory=dict)
    _num_output: int = 0
    _num_cached: list[int] = field(default_factory=lambda: [0])
    _num_prompt: list[int] = field(default_factory=list)
    _num_reasoning: int = 0
    _num_calls: int = 0
    _was_told: bool = False
    _is_cut: bool = False
    _last: CompletionOutput | None = None
    _text: list[str] = field(default_factory=list)
    _token_ids: list[int] = field(default_factory=list)

    @property
    def id(self) -> str:
        """The name of the response."""
        return str(self.head["id"])

    def resource(self) -> dict[str, Any]:
        """The response object as it is now."""
        output = list(self.writer.output)
        return {**self.head, "status": self.status, "output": output, **self._outcome}

    async def begin(self, *, patient: bool = False) -> News:
        """What the model says, once the first of it has come: errors of what was asked are raised here.

        patient  wait where the queue is full, instead of raising OutOfCapacityError.
        """
        while True:
            try:
                return await begun(self.prepared.run(self.state, self.llm))
            except OutOfCapacityError as error:
                if not patient:
                    raise
                await asyncio.sleep(error.retry_after_s)

    async def events(self, news: News) -> AsyncGenerator[Event, None]:
        """All events but those before the model begins, without numbers. Never raises for a failed answer."""
        try:
            async with contextlib.aclosing(self._turns(news)) as events:
                async for event in events:
                    yield event
        except Exception as error:
            yield self.fail(error)

    async def whole(self, news: News) -> dict[str, Any]:
        """The response object of the whole answer. Raises what the answer failed of."""
        async with contextlib.aclosing(self._turns(news)) as events:
            async for _ in events:
                pass
        return self.resource()

    async def _turns(self, news: News) -> AsyncGenerator[Event, None]:
        """The events of the answer, over as many turns of the model as calls of servers' tools ask for."""
        while True:
            first = len(self.writer.output)
            async with contextlib.aclosing(news):
                async for one in news:
                    for event in self._take(one):
                        yield event
            if not self._goes_on():
                break
            for event in self.writer.end_turn():
                yield event
            if not self.writer.pending:
                break
            was_told = self._was_told
            for place in list(self.writer.pending):
                for event in await self._called(place):
                    yield event
            if was_told:
                break  # it goes on calling, though it was told that it may not
            own = ("function_call", "custom_tool_call")
            if any(item["type"] in own for item in self.writer.output[first:]):
                break  # the client has to answer these before the model can go on
            limit = self.request.max_output_tokens
            if limit is not None and self._num_output >= limit:
                self._is_cut = True
                break
            self._count_turn()
            self.prepared = await self.again(self.writer.output, self._num_output)
            self._num_cached.append(0)
            news = await self.begin(patient=True)
        for event in self._end():
            yield event

    def _goes_on(self) -> bool:
        ended = self._last is not None and self._last.finish_reason == "stop"
        return ended and bool(self.remote)

    async def _called(self, place: int) -> list[Event]:
        """Calls the tool of an item; the events of its end."""
        item, most = self.writer.output[place], self.request.max_tool_calls
        if self._num_calls >= (MAX_CALLS if most is None else most):
            self._was_told = True
            return self.writer.settle(place, None, "the limit of calls is reached")
        self._num_calls += 1
        result = await self.servers.call(self.remote[item["name"]], item["arguments"])
        if result.is_error:
            return self.writer.settle(place, None, result.text)
        return self.writer.settle(place, result.text, None)

    def _count_turn(self) -> None:
        self._num_prompt.append(len(self.prepared.prompt_token_ids))
        self._num_reasoning += self.prepared.num_reasoning_tokens

    def _take(self, news: TurnNews) -> list[Event]:
        events: list[Event] = []
        self._num_cached[-1] = self._num_cached[-1] or news.output.num_cached_tokens or 0
        for piece in news.pieces:
            self._last = piece.output
            self._num_output += len(piece.output.token_ids)
            logprobs = None
            if self.log is not None:
                self.log.add_all(piece.output)
                logprobs = self.log.take()["content"]
            if self.request.enable_response_messages:
                self._text.append(piece.output.text)
                self._token_ids += piece.output.token_ids
            events += self.writer.feed(piece.delta, logprobs)
        return events

    def _end(self) -> list[Event]:
        at_limit = self._last is not None and self._last.finish_reason == "length"
        cut = at_limit or self._is_cut
        if self._last is not None and self._last.finish_reason == "abort":
            return [*self.writer.finish(is_complete=False), self.cancel()]
        events = self.writer.finish(is_complete=not cut)
        if cut:
            self._outcome["incomplete_details"] = {"reason": "max_output_tokens"}
        return [*events, self._settle("incomplete" if cut else "completed")]

    def cancel(self) -> Event:
        """Ends the response where it is; the last event."""
        self.writer.finish(is_complete=False)
        return self._settle("cancelled")

    def fail(self, error: Exception) -> Event:
        """Ends the response with an error; the last event."""
        problem = problem_of(error)
        code = "rate_limit_exceeded" if problem.status == 429 else "server_error"
        code = "invalid_prompt" if problem.status == 400 else code
        self._outcome["error"] = {"code": code, "message": problem.message}
        self.writer.finish(is_complete=False)
        return self._settle("failed")

    def _settle(self, status: str) -> Event:
        self.status = status
        self._outcome["completed_at"] = int(time.time()) if status == "completed" else None
        self._count_turn()
        self._outcome["usage"] = usage_of(
            prompts=self._num_prompt,
            cached=self._num_cached,
            output=self._num_output,
            reasoning=self._num_reasoning,
        )
        if self.request.enable_response_messages:
            prompt = self.prepared
            asked = _raw(prompt.prompt_text, prompt.prompt_token_ids)
            self._outcome["input_messages"] = [asked]
            self._outcome["output_messages"] = [_raw("".join(self._text), self._token_ids)]
        return {"type": f"response.{status}", "response": self.resource()}

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.status in ENDED


def _raw(text: str, token_ids: list[int]) -> dict[str, Any]:
    return {"type": "raw_message_tokens", "message": text, "tokens": token_ids}


def encoded(event: Event, number: int) -> bytes:
    """The event number `number` as it goes over the wire."""
    body = encode({**event, "sequence_number": number})
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + body + b"\n\n"
