"""POST /inference/v1/generate: token ids in, token ids out.

Fields are `server.schema.inference`, the written answer `server.token_output`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.server.body import convert, read_json
from quire.server.completion_output import encode
from quire.server.errors import JSON, problem_of
from quire.server.face import Face
from quire.server.generation import Job, Outputs, begun, run
from quire.server.heads import ignored_fields, openapi_of, priority_of
from quire.server.schema.inference import GenerateRequest, check_generate, params_from_wire
from quire.server.sse import DONE, EventStream, answer, event
from quire.server.state import ServerState
from quire.server.token_output import TokenAnswer

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A request, checked and ready to run."""

    state: ServerState
    llm: Face
    request: GenerateRequest
    request_id: str
    model: str
    job: Job
    headers: dict[str, str]

    def head(self) -> dict[str, Any]:
        """What every answer and piece begins with."""
        return {"request_id": self.request_id, "model": self.model, "created": int(time.time())}

    def answer(self) -> TokenAnswer:
        """What gathers the choices."""
        params = self.job.params
        return TokenAnswer(
            params.n,
            with_logprobs=params.wants_logprobs,
            cached_details=self.state.config.enable_prompt_tokens_details,
        )


@router.post("/inference/v1/generate", openapi_extra=openapi_of(GenerateRequest))
async def generate(http: Request) -> Response:
    """Continues token ids, whole or as a stream of events."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, GenerateRequest, strict=state.config.strict)
    ids = check_generate(request)
    params, unread = params_from_wire(
        request.sampling_params,
        llm.default_sampling_values(),
        max_choices=state.config.max_num_choices,
    )
    params.detokenize = bool(params.stop)
    given = http.state.request_id_given
    request_id = str(http.state.request_id) if given else request.request_id or ""
    request_id = request_id or str(http.state.request_id)
    sent = request.sampling_params or {}
    call = _Call(
        state=state,
        llm=llm,
        request=request,
        request_id=request_id,
        model=state.check_model(request.model),
        job=Job(
            prompt=ids,
            params=params,
            request_id=request_id,
            max_tokens_given=sent.get("max_tokens") is not None,
            priority=priority_of(http, request.priority),
            cache_salt=request.cache_salt,
        ),
        headers=ignored_fields([*unknown, *unread]),
    )
    if request.stream:
        return await answer(http, _stream(call))
    with state.in_flight():
        return await answer(http, _whole(call))


async def _whole(call: _Call) -> Response:
    gathered = call.answer()
    async with contextlib.aclosing(run(call.state, call.llm, [call.job])) as outputs:
        async for _, output in outputs:
            gathered.add(output)
    wants = call.job.params.prompt_logprobs is not None
    body = {
        **call.head(),
        **gathered.whole(with_prompt_logprobs=wants),
        "kv_transfer_params": None,
    }
    return Response(encode(body), headers=call.headers, media_type=JSON)


async def _stream(call: _Call) -> Response:
    """The stream's answer, once the first output has come: until then errors have their own status."""
    live = contextlib.ExitStack()
    live.enter_context(call.state.in_flight())
    try:
        outputs = await begun(run(call.state, call.llm, [call.job]))
    except BaseException:
        live.close()
        raise
    return EventStream(_chunks(call, outputs), headers=call.headers, finally_=live.close)


async def _chunks(call: _Call, outputs: Outputs) -> AsyncGenerator[bytes, None]:
    options = call.request.stream_options
    force = call.state.config.enable_force_include_usage
    with_usage = force or (options is not None and options.include_usage)
    always = force or (with_usage and options is not None and options.continuous_usage_stats)
    gathered, head = call.answer(), call.head()
    try:
        async with contextlib.aclosing(outputs):
            async for _, output in outputs:
                news = head | {"choices": gathered.add(output)}
                if always:
                    news["usage"] = gathered.usage()
                yield event(encode(news))
        if with_usage:
            yield event(encode(head | {"choices": [], "usage": gathered.usage()}))
    except Exception as error:
        yield event(problem_of(error).body())
    yield DONE
