"""POST /v1/chat/completions, for text.

Fields are `server.schema.chat`, the written answer `server.chat_output`; templates are the front's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.protocol.errors import InvalidRequestError
from quire.server.body import convert, read_json
from quire.server.chat_output import ChatAnswer, ChatChunkWriter, whole_batch
from quire.server.chat_turn import answer_of, turn_of
from quire.server.completion_output import encode
from quire.server.errors import JSON, problem_of
from quire.server.face import Face
from quire.server.generation import Outputs, begun, run
from quire.server.heads import ignored_fields, openapi_of, priority
from quire.server.heads import request_id as request_id_of
from quire.server.schema.chat import ChatRequest, check_batch, check_chat
from quire.server.schema.functions import names_of_functions
from quire.server.sse import DONE, EventStream, answer, event
from quire.server.state import ServerState
from quire.server.timing import timing_of
from quire.server.turns import Prepared, prepare

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A chat request, checked and ready to be rendered and run."""

    state: ServerState
    llm: Face
    request: ChatRequest
    request_id: str
    model: str
    priority: int
    headers: dict[str, str]


@router.post("/v1/chat/completions", openapi_extra=openapi_of(ChatRequest))
async def chat_completions(http: Request) -> Response:
    """Answers a conversation, whole or as a stream of events."""
    call = await _read(http)
    if call.request.stream:
        return await answer(http, _stream(call))
    with call.state.in_flight():
        return await answer(http, _whole(call))


async def _read(http: Request) -> _Call:
    """The request, with the checks that need no model."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, ChatRequest, strict=state.config.strict)
    call = _Call(
        state=state,
        llm=llm,
        request=request,
        request_id="chatcmpl-" + request_id_of(http, request),
        model=state.check_model(request.model),
        priority=priority(http, request),
        headers=ignored_fields(unknown),
    )
    check_chat(
        request,
        max_choices=state.config.max_num_choices,
        max_logprobs=state.settings.model.max_logprobs,
        trusts_templates=state.config.trust_request_chat_template,
    )
    return call


@contextlib.contextmanager
def _names_of_chat(request: ChatRequest, place: int | None = None) -> Iterator[None]:
    """Errors about the prompt or its limits are about the fields that a chat has for them.

    place  which of several conversations is being read.
    """
    names = {"prompt": "messages"}
    if request.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    try:
        with names_of_functions(request):
            yield
    except InvalidRequestError as error:
        error.param = names.get(error.param or "", error.param)
        if place is not None and (error.param or "").startswith("messages"):
            raise InvalidRequestError(f"messages[{place}]: {error}", param="messages") from error
        raise


async def _prepared(call: _Call, messages: Any) -> Prepared:
    turn = turn_of(
        call.state,
        call.llm,
        call.request,
        messages,
        request_id=call.request_id,
        priority=call.priority,
    )
    return await prepare(call.state, call.llm, turn)


async def _answer_of(call: _Call, prepared: Prepared, messages: Any) -> ChatAnswer:
    return await answer_of(call.state, call.llm, call.request, prepared, messages)


async def _whole(call: _Call) -> Response:
    messages = call.request.messages
    with _names_of_chat(call.request):
        prepared = await _prepared(call, messages)
        gathered = await _answer_of(call, prepared, messages)
        async with contextlib.aclosing(prepared.run(call.state, call.llm)) as outputs:
            async for news in outputs:
                gathered.add(news)
    body = gathered.whole()
    if call.state.config.enable_per_request_metrics and call.request.n == 1:
        body["metrics"] = timing_of(news.output.metrics)
    return _response(call, body)


def _response(call: _Call, body: dict[str, Any]) -> Response:
    whole = {
        "id": call.request_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": call.model,
        **body,
        "system_fingerprint": call.state.fingerprint(),
        "service_tier": None,
        "kv_transfer_params": None,
    }
    return Response(encode(whole), headers=call.headers, media_type=JSON)


@router.post("/v1/chat/completions/batch", openapi_extra=openapi_of(ChatRequest))
async def chat_batch(http: Request) -> Response:
    """Answers several conversations, a choice each; all other fields are shared."""
    call = await _read(http)
    check_batch(call.request, most=call.state.config.max_num_prompts)
    with call.state.in_flight():
        return await answer(http, _batch(call))


async def _batch(call: _Call) -> Response:
    turns, answers = [], []
    for place, messages in enumerate(call.request.messages):
        one = replace(call, request_id=f"{call.request_id}-{place}")
        with _names_of_chat(call.request, place):
            turns.append(await _prepared(one, messages))
            answers.append(await _answer_of(one, turns[-1], messages))
    with _names_of_chat(call.request):
        jobs = [turn.job for turn in turns]
        async with contextlib.aclosing(run(call.state, call.llm, jobs)) as outputs:
            async for place, output in outputs:
                answers[place].add(turns[place].take(output))
    return _response(call, whole_batch(answers))


async def _stream(call: _Call) -> Response:
    """The stream's answer, once the first output has come: until then errors have their own status."""
    live = contextlib.ExitStack()
    live.enter_context(call.state.in_flight())
    try:
        with _names_of_chat(call.request):
            prepared = await _prepared(call, call.request.messages)
            gathered = await _answer_of(call, prepared, call.request.messages)
            outputs = await begun(run(call.state, call.llm, [prepared.job]))
    except BaseException:
        live.close()
        raise
    chunks = _chunks(call, prepared, gathered, outputs)
    return EventStream(chunks, headers=call.headers, finally_=live.close)


async def _chunks(
    call: _Call, prepared: Prepared, gathered: ChatAnswer, outputs: Outputs
) -> AsyncGenerator[bytes, None]:
    options = call.request.stream_options
    force = call.state.config.enable_force_include_usage
    with_usage = force or (options is not None and options.include_usage)
    always = force or (with_usage and options is not None and options.continuous_usage_stats)
    writer = ChatChunkWriter(
        call.request_id, int(time.time()), call.model, call.state.fingerprint()
    )
    try:
        async with contextlib.aclosing(outputs):
            async for _, output in outputs:
                news = prepared.take(output)
                first = gathered.add(news)
                usage = gathered.usage() if always else None
                with_ids = call.request.return_token_ids
                parts = [writer.first(gathered, usage, with_ids=with_ids)] if first else []
                parts += [writer.piece(piece.index, gathered, usage) for piece in news.pieces]
                if events := b"".join(parts):
                    yield events
        if with_usage:
            yield writer.usage(gathered.usage())
    except Exception as error:
        yield event(problem_of(error).body())
    yield DONE
