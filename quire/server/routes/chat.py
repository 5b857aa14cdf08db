"""POST /v1/chat/completions, for text.

Fields are `server.schema.chat`, the written answer `server.chat_output`; templates are the front's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.protocol.errors import InvalidRequestError
from quire.server.body import convert, read_json
from quire.server.chat_output import ChatAnswer, ChatChunkWriter
from quire.server.chat_params import sampling_params, wanted_tokens
from quire.server.completion_output import encode
from quire.server.completion_params import tokenization_kwargs
from quire.server.errors import JSON, problem_of
from quire.server.face import Face
from quire.server.generation import Job, Outputs, begun, run
from quire.server.heads import ignored_fields, openapi_of, priority
from quire.server.heads import request_id as request_id_of
from quire.server.schema.chat import ChatRequest, chat_options, check_chat
from quire.server.sse import DONE, EventStream, answer, event
from quire.server.state import ServerState

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
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
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
    )
    if request.stream:
        return await answer(http, _stream(call))
    with state.in_flight():
        return await answer(http, _whole(call))


@contextlib.contextmanager
def _names_of_chat(request: ChatRequest) -> Iterator[None]:
    """Errors about the prompt or its limits are about the fields that a chat has for them."""
    names = {"prompt": "messages"}
    if request.max_completion_tokens is not None:
        names["max_tokens"] = "max_completion_tokens"
    try:
        yield
    except InvalidRequestError as error:
        error.param = names.get(error.param or "", error.param)
        raise


async def _job(call: _Call) -> Job:
    request, config = call.request, call.state.config
    params = sampling_params(request, call.llm.default_sampling_values())
    how = tokenization_kwargs(request)
    prompt = await call.llm.render_chat(
        request.messages,
        chat_options(
            request,
            config.default_chat_template_kwargs,
            shows_tools=not config.exclude_tools_when_tool_choice_none,
        ),
        truncates="truncate_prompt_tokens" in how,
    )
    return Job(
        prompt=prompt.token_ids,
        params=params,
        request_id=call.request_id,
        max_tokens_given=wanted_tokens(request) is not None,
        priority=call.priority,
        cache_salt=request.cache_salt,
        tokenization_kwargs=how or None,
    )


async def _answer_of(call: _Call) -> ChatAnswer:
    request, config = call.request, call.state.config
    last = request.messages[-1]
    role = config.response_role if request.add_generation_prompt else str(last["role"])
    as_ids = request.return_tokens_as_token_ids
    return ChatAnswer(
        request,
        role=role,
        echo=_text(last) if request.echo and last["role"] == role else "",
        tokenizer=await call.llm.get_tokenizer() if request.logprobs else None,
        as_ids=config.return_tokens_as_token_ids if as_ids is None else as_ids,
        cached_details=config.enable_prompt_tokens_details,
    )


def _text(message: Any) -> str:
    """The text of a message that has been rendered."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part if isinstance(part, str) else part.get("text", "") for part in content)


async def _whole(call: _Call) -> Response:
    with _names_of_chat(call.request):
        job = await _job(call)
        gathered = await _answer_of(call)
        async with contextlib.aclosing(run(call.state, call.llm, [job])) as outputs:
            async for _, output in outputs:
                gathered.add(output)
    body = {
        "id": call.request_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": call.model,
        **gathered.whole(),
        "system_fingerprint": call.state.fingerprint(),
        "service_tier": None,
        "kv_transfer_params": None,
    }
    return Response(encode(body), headers=call.headers, media_type=JSON)


async def _stream(call: _Call) -> Response:
    """The stream's answer, once the first output has come: until then errors have their own status."""
    live = contextlib.ExitStack()
    live.enter_context(call.state.in_flight())
    try:
        with _names_of_chat(call.request):
            job = await _job(call)
            gathered = await _answer_of(call)
            outputs = await begun(run(call.state, call.llm, [job]))
    except BaseException:
        live.close()
        raise
    return EventStream(_chunks(call, gathered, outputs), headers=call.headers, finally_=live.close)


async def _chunks(
    call: _Call, gathered: ChatAnswer, outputs: Outputs
) -> AsyncGenerator[bytes, None]:
    options = call.request.stream_options
    with_ids = call.request.return_token_ids
    force = call.state.config.enable_force_include_usage
    with_usage = force or (options is not None and options.include_usage)
    always = force or (with_usage and options is not None and options.continuous_usage_stats)
    writer = ChatChunkWriter(
        call.request_id, int(time.time()), call.model, call.state.fingerprint()
    )
    try:
        async with contextlib.aclosing(outputs):
            async for _, output in outputs:
                first = gathered.add(output)
                usage = gathered.usage() if always else None
                parts = [writer.first(gathered, usage, with_ids=with_ids)] if first else []
                for piece in output.outputs:
                    extra = {"token_ids": piece.token_ids} if with_ids else {}
                    choice = gathered.choices[piece.index]
                    parts.append(writer.piece(piece.index, choice, extra, usage))
                yield b"".join(parts)
        if with_usage:
            yield writer.usage(gathered.usage())
    except Exception as error:
        yield event(problem_of(error).body())
    yield DONE
