"""POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients call them.

Fields are `server.schema.messages`; blocks and events `server.messages`. Errors have the form that
`server.errors` gives to paths below /v1/messages.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.protocol.results import CompletionOutput
from quire.server.body import convert, read_json
from quire.server.completion_output import encode
from quire.server.errors import JSON, anthropic_body, problem_of
from quire.server.face import Face
from quire.server.generation import begun
from quire.server.heads import ignored_fields, openapi_of, priority
from quire.server.messages.turn import ending, turn_of
from quire.server.messages.writer import MessageWriter, event, usage_of
from quire.server.schema.messages import (
    CountTokensRequest,
    MessagesRequest,
    check_count,
    check_messages,
)
from quire.server.sse import EventStream, answer
from quire.server.state import ServerState
from quire.server.turns import TurnNews, prepare

router = APIRouter()


@dataclass(kw_only=True)
class _Call:
    """A request on its way: what was asked, and what has come."""

    state: ServerState
    llm: Face
    request: MessagesRequest
    writer: MessageWriter
    request_id: str
    headers: dict[str, str]
    num_prompt: int = 0
    num_cached: int = 0
    num_output: int = 0
    last: CompletionOutput | None = field(default=None)

    def usage(self) -> dict[str, int]:
        """Tokens so far."""
        return usage_of(self.num_prompt, self.num_cached, self.num_output)

    def take(self, news: TurnNews) -> list[dict[str, Any]]:
        """Works news in; the events they are."""
        self.num_cached = self.num_cached or news.output.num_cached_tokens or 0
        events = []
        for piece in news.pieces:
            self.num_output += len(piece.output.token_ids)
            self.last = piece.output
            events += self.writer.feed(piece.delta)
        return events

    def ending(self) -> tuple[str, str | None]:
        """Why the answer ended, after the writer's `close`."""
        if self.last is None:
            return "end_turn", None
        return ending(
            self.last,
            has_calls=self.writer.has_calls,
            num_tokens=self.num_output,
            max_tokens=self.request.max_tokens,
        )


@router.post("/v1/messages", openapi_extra=openapi_of(MessagesRequest))
async def messages(http: Request) -> Response:
    """Answers a conversation, whole or as a stream of events."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, MessagesRequest, strict=state.config.strict)
    check_messages(request)
    request.priority = priority(http, request)
    model = state.check_model(request.model)
    request_id = "msg_" + str(http.state.request_id)
    call = _Call(
        state=state,
        llm=llm,
        request=request,
        writer=MessageWriter(request_id, model),
        request_id=request_id,
        headers={**ignored_fields(unknown), "request-id": request_id},
    )
    if request.stream:
        return await answer(http, _stream(call))
    with state.in_flight():
        return await answer(http, _whole(call))


@router.post("/v1/messages/count_tokens", openapi_extra=openapi_of(CountTokensRequest))
async def count_tokens(http: Request) -> Response:
    """The tokens that the request's prompt would have."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, CountTokensRequest, strict=state.config.strict)
    check_count(request)
    state.check_model(request.model)
    turn = turn_of(state, request, "count", {})
    prepared = await answer(http, prepare(state, llm, turn))
    num = len(prepared.prompt_token_ids)
    found = {"input_tokens": num, "context_management": {"original_input_tokens": num}}
    return Response(encode(found), headers=ignored_fields(unknown), media_type=JSON)


async def _begun(call: _Call) -> AsyncGenerator[TurnNews, None]:
    """The answer's news, once the first have come: errors of what was asked are raised here."""
    defaults = call.llm.default_sampling_values()
    turn = turn_of(call.state, call.request, call.request_id, defaults)
    prepared = await prepare(call.state, call.llm, turn)
    call.num_prompt = len(prepared.prompt_token_ids)
    return await begun(prepared.run(call.state, call.llm))


async def _whole(call: _Call) -> Response:
    async with contextlib.aclosing(await _begun(call)) as news:
        async for one in news:
            call.take(one)
    call.writer.close()
    body = call.writer.whole(*call.ending(), call.usage())
    return Response(encode(body), headers=call.headers, media_type=JSON)


async def _stream(call: _Call) -> Response:
    live = contextlib.ExitStack()
    live.enter_context(call.state.in_flight())
    try:
        news = await _begun(call)
    except BaseException:
        live.close()
        raise
    return EventStream(_events(call, news), headers=call.headers, finally_=live.close)


async def _events(call: _Call, news: AsyncGenerator[TurnNews, None]) -> AsyncGenerator[bytes, None]:
    began = False
    try:
        async with contextlib.aclosing(news):
            async for one in news:
                events = call.take(one)
                if not began:
                    began = True
                    events = [*call.writer.begin(call.usage()), *events]
                if events:
                    yield b"".join(event(each) for each in events)
        closing = call.writer.close()
        closing += call.writer.end(*call.ending(), call.usage())
        yield b"".join(event(each) for each in closing)
    except Exception as error:
        yield b"event: error\ndata: " + anthropic_body(problem_of(error)) + b"\n\n"
