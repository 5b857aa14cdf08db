"""POST /v1/completions.

Fields are `server.schema.completions`, the written answer `server.completion_output`.
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

from quire.protocol.results import RequestOutput
from quire.server.body import convert, read_json
from quire.server.completion_output import Answer, ChunkWriter, encode
from quire.server.completion_params import jobs_of, sampling_params
from quire.server.errors import JSON, problem_of
from quire.server.face import Face
from quire.server.generation import Job, Outputs, begun, run
from quire.server.heads import ignored_fields, openapi_of, priority
from quire.server.heads import request_id as request_id_of
from quire.server.schema.completions import CompletionRequest, check, prompts_of
from quire.server.sse import DONE, EventStream, answer, event
from quire.server.state import ServerState
from quire.server.timing import timing_of

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A completions request, checked and ready to run."""

    state: ServerState
    llm: Face
    request: CompletionRequest
    request_id: str
    model: str
    jobs: list[Job]
    headers: dict[str, str]


@router.post("/v1/completions", openapi_extra=openapi_of(CompletionRequest))
async def completions(http: Request) -> Response:
    """Continues text or token ids, whole or as a stream of events."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, CompletionRequest, strict=state.config.strict)
    call = _prepare(state, llm, http, request, ignored_fields(unknown))
    if request.stream:
        return await answer(http, _stream(call))
    with state.in_flight():
        return await answer(http, _whole(call))


def _prepare(
    state: ServerState,
    llm: Face,
    http: Request,
    request: CompletionRequest,
    headers: dict[str, str],
) -> _Call:
    model = state.check_model(request.model)
    check(request, max_choices=state.config.max_num_choices)
    prompts = prompts_of(request, max_prompts=state.config.max_num_prompts)
    params = sampling_params(request, llm.default_sampling_values())
    request_id = "cmpl-" + request_id_of(http, request)
    jobs = jobs_of(request, prompts, params, request_id, priority(http, request))
    return _Call(
        state=state,
        llm=llm,
        request=request,
        request_id=request_id,
        model=model,
        jobs=jobs,
        headers=headers,
    )


async def _answer_of(call: _Call) -> Answer:
    needs_text = call.request.echo and (
        call.request.logprobs is not None or any(isinstance(job.prompt, list) for job in call.jobs)
    )
    as_ids = call.request.return_tokens_as_token_ids
    return Answer(
        call.request,
        len(call.jobs),
        tokenizer=await call.llm.get_tokenizer() if needs_text else None,
        as_ids=call.state.config.return_tokens_as_token_ids if as_ids is None else as_ids,
        cached_details=call.state.config.enable_prompt_tokens_details,
    )


async def _whole(call: _Call) -> Response:
    gathered = await _answer_of(call)
    last: RequestOutput | None = None
    async with contextlib.aclosing(run(call.state, call.llm, call.jobs)) as outputs:
        async for place, last in outputs:
            gathered.add(place, last)
    body: dict[str, Any] = {
        "id": call.request_id,
        "object": "text_completion",
        "created": int(time.time()),
        "model": call.model,
        "choices": gathered.choices(),
        "usage": gathered.usage(),
        "system_fingerprint": call.state.fingerprint(),
        "service_tier": None,
        "kv_transfer_params": None,
    }
    single = len(call.jobs) == 1 and call.jobs[0].params.n == 1
    if call.state.config.enable_per_request_metrics and single:
        body["metrics"] = timing_of(last.metrics if last is not None else None)
    return Response(encode(body), headers=call.headers, media_type=JSON)


async def _stream(call: _Call) -> Response:
    """The stream's answer, once the first output has come: until then errors have their own status."""
    live = contextlib.ExitStack()
    live.enter_context(call.state.in_flight())
    try:
        gathered = await _answer_of(call)
        outputs = await begun(run(call.state, call.llm, call.jobs))
    except BaseException:
        live.close()
        raise
    return EventStream(_chunks(call, gathered, outputs), headers=call.headers, finally_=live.close)


async def _chunks(call: _Call, gathered: Answer, outputs: Outputs) -> AsyncGenerator[bytes, None]:
    options = call.request.stream_options
    force = call.state.config.enable_force_include_usage
    with_usage = force or (options is not None and options.include_usage)
    always = force or (with_usage and options is not None and options.continuous_usage_stats)
    writer = ChunkWriter(call.request_id, int(time.time()), call.model, call.state.fingerprint())
    try:
        async with contextlib.aclosing(outputs):
            async for place, output in outputs:
                pieces = gathered.add(place, output)
                usage = gathered.usage() if always else None
                parts = []
                for (index, choice, first), piece in zip(pieces, output.outputs, strict=True):
                    extra: dict[str, object] | None = None
                    if call.request.return_token_ids:
                        shown = piece.token_ids if call.request.max_tokens != 0 else []
                        extra = {"token_ids": shown}
                        if first:
                            extra["prompt_token_ids"] = gathered.prompt_token_ids(place)
                    parts.append(writer.piece(index, choice, extra, usage))
                yield parts[0] if len(parts) == 1 else b"".join(parts)
        if with_usage:
            yield writer.usage(gathered.usage())
    except Exception as error:
        yield event(problem_of(error).body())
    yield DONE
