"""A turn of a conversation: rendered, run, and its output read as reasoning, text and calls of tools.

What a client's format makes of it is `server.chat_output` and its like; readers are the front's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quire.protocol.chat import ChatOptions, ChatPrompt
from quire.protocol.errors import InvalidRequestError
from quire.protocol.message import CallFrame, MessageDelta, MessageReader, ReadOptions
from quire.protocol.params import SamplingParams, StructuredOutputsParams
from quire.protocol.results import CompletionOutput, RequestOutput
from quire.server.face import Face
from quire.server.generation import Job, run
from quire.server.schema.calls import free_constraint, named_constraint, required_constraint
from quire.server.state import ServerState

_THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Template variables that switch thinking off in most models that have a switch."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a client asks for, in the terms of no client.

    messages     in OpenAI's form; checked where they are rendered.
    params       of kind DELTA, without a constraint.
    tools        function tools in OpenAI's form, checked by `schema.tools`; None for none.
    tool_choice  "none", "auto", "required" or "named"; then `named_tool` is the one to call.
    constraint   on the text, where the client gave one; calls that are required go before it.
    options      how to render; its tools are set here.
    include_reasoning  False leaves reasoning out of what `run` gives.
    max_tokens_given   whether the client asked for params.max_tokens; a default is cut to the context.
    """

    messages: Any
    params: SamplingParams
    request_id: str
    tools: list[dict[str, Any]] | None = None
    tool_choice: str = "none"
    named_tool: str | None = None
    parallel_tool_calls: bool = True
    constraint: StructuredOutputsParams | None = None
    include_reasoning: bool = True
    options: ChatOptions = field(default_factory=ChatOptions)
    max_tokens_given: bool = False
    priority: int = 0
    cache_salt: str | None = None
    tokenization_kwargs: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Piece:
    """What is new in the choice `index`: of its message, and of its output.

    finish_reason  as clients know it: "tool_calls" where the model ended to have tools called.
    """

    index: int
    delta: MessageDelta
    output: CompletionOutput
    finish_reason: str | None


@dataclass(slots=True)
class TurnNews:
    """One output of the engine, with what it adds to the messages."""

    output: RequestOutput
    pieces: list[Piece]


class Prepared:
    """A turn that was checked and rendered; nothing is queued before `run` is iterated. Run it once."""

    def __init__(
        self, turn: Turn, job: Job, prompt: ChatPrompt, readers: list[MessageReader] | None
    ) -> None:
        self._turn = turn
        self._job = job
        self._prompt = prompt
        self._readers = readers
        self._called: set[int] = set()

    @property
    def prompt_token_ids(self) -> list[int]:
        """The ids of the rendered conversation."""
        return self._prompt.token_ids

    @property
    def prompt_text(self) -> str:
        """The rendered conversation."""
        return self._prompt.text

    @property
    def params(self) -> SamplingParams:
        """What the engine is asked for."""
        return self._job.params

    @property
    def reads(self) -> bool:
        """Whether the output is read for more than text, so that parts of it may be held back."""
        return self._readers is not None

    @property
    def job(self) -> Job:
        """What `generation.run` takes."""
        return self._job

    @property
    def num_reasoning_tokens(self) -> int:
        """Ids so far, over all choices, that belong to the reasoning."""
        return sum(reader.num_reasoning_tokens for reader in self._readers or ())

    async def run(self, state: ServerState, llm: Face) -> AsyncGenerator[TurnNews, None]:
        """What the model says, as it comes. Closing it aborts the request.

        Raises what `generation.run` raises; `generation.begun` has errors of what was asked at once.
        """
        async with contextlib.aclosing(run(state, llm, [self._job])) as outputs:
            async for _, output in outputs:
                yield self.take(output)

    def take(self, output: RequestOutput) -> TurnNews:
        """The next output of the job, read. For turns that run together, and where a generator more for every
        token counts; else see `run`."""
        return TurnNews(output, [self._piece(one) for one in output.outputs])

    def _piece(self, output: CompletionOutput) -> Piece:
        index, reason = output.index, output.finish_reason
        if self._readers is None:
            return Piece(index, MessageDelta(content=output.text), output, reason)
        reader = self._readers[index]
        delta = reader.feed(output.text, output.token_ids)
        if reason is not None:
            delta = _joined(delta, reader.finish())
        if delta.calls:
            self._called.add(index)
        if not self._turn.include_reasoning:
            delta.reasoning = ""
        if reason == "stop" and index in self._called and self._turn.tool_choice != "named":
            reason = "tool_calls"
        return Piece(index, delta, output, reason)


async def prepare(state: ServerState, llm: Face, turn: Turn) -> Prepared:
    """Renders a turn and opens what reads its answer.

    Raises InvalidRequestError for anything that cannot be served, before anything is queued.
    """
    _check_choice(state, turn)
    shown = turn.tools
    if turn.tool_choice == "none" and state.config.exclude_tools_when_tool_choice_none:
        shown = None
    how = turn.tokenization_kwargs
    prompt = await llm.render_chat(
        turn.messages,
        replace(turn.options, tools=shown),
        truncates="truncate_prompt_tokens" in (how or {}),
    )
    params, readers, frame = turn.params, None, None
    if turn.tool_choice != "none":
        frame = await llm.call_frame()
    if state.settings.parsers.reasoning_parser or turn.tool_choice != "none":
        readers = await llm.open_readers(
            ReadOptions(
                tools=turn.tools,
                tool_choice="auto" if frame is not None else turn.tool_choice,
                named_tool=turn.named_tool,
                parallel_tool_calls=turn.parallel_tool_calls,
                template_kwargs=prompt.template_kwargs,
                prompt_token_ids=prompt.token_ids,
            ),
            params.n,
        )
        if readers and readers[0].needs_special_tokens:
            params = params.clone()
            params.skip_special_tokens = False
    constraint = _constraint(turn, frame)
    if constraint is not None:
        params = params.clone()
        params.structured_outputs = constraint
        is_off = any(prompt.template_kwargs.get(name) is False for name in _THINKING_SWITCHES)
        params.separates_thinking = readers is not None and not is_off
    job = Job(
        prompt=prompt.token_ids,
        params=params,
        request_id=turn.request_id,
        max_tokens_given=turn.max_tokens_given,
        priority=turn.priority,
        cache_salt=turn.cache_salt,
        tokenization_kwargs=how or None,
    )
    return Prepared(turn, job, prompt, readers)


def _check_choice(state: ServerState, turn: Turn) -> None:
    parsers = state.settings.parsers
    able = parsers.enable_auto_tool_choice and parsers.tool_call_parser
    if turn.tool_choice == "auto" and not able:
        raise InvalidRequestError(
            'tool_choice is "auto", but the server was started without --enable-auto-tool-choice and '
            '--tool-call-parser NAME; start it with both, or set tool_choice to "none"',
            param="tool_choice",
        )
    if turn.constraint is not None and turn.tool_choice == "named":
        raise InvalidRequestError(
            f"tool_choice names the function {turn.named_tool!r}, whose arguments are then the answer; "
            "leave out response_format and structured_outputs, or tool_choice",
            param="tool_choice",
        )


def _constraint(turn: Turn, frame: CallFrame | None) -> StructuredOutputsParams | None:
    """What the output is held to: the client's constraint, or what makes calls valid."""
    tools, many = turn.tools or [], turn.parallel_tool_calls
    if turn.tool_choice == "named":
        return named_constraint(tools, turn.named_tool or "", frame)
    if turn.tool_choice == "required":
        return required_constraint(tools, frame, many=many)
    if turn.tool_choice == "auto":
        return free_constraint(tools, frame, turn.constraint, many=many)
    return turn.constraint


def _joined(first: MessageDelta, last: MessageDelta) -> MessageDelta:
    if not last:
        return first
    return MessageDelta(
        reasoning=first.reasoning + last.reasoning,
        content=first.content + last.content,
        calls=first.calls + last.calls,
    )
