"""The small server of vLLM's first examples: POST /generate, beside everything that `quire serve` has.

The server itself is `quire.server`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quire.config import env
from quire.config.cli import read_serve
from quire.models.loading.hub import check_name
from quire.protocol.errors import InvalidRequestError, SettingsError
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput
from quire.server.body import read_json
from quire.server.errors import problem_of
from quire.server.generation import Job, begun, run
from quire.server.launch import serve
from quire.server.sse import EventStream, answer
from quire.server.state import ServerState

router = APIRouter()


class _Generate:
    """The route, as an endpoint of the server."""

    name = "generate"
    required_tasks: Iterable[str] = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.include_router(router)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        return None


def main(argv: Sequence[str]) -> int:
    """Serves; takes the flags of `quire serve`, and returns its exit codes."""
    options = read_serve(argv, prog="python -m vllm.entrypoints.api_server")
    try:
        logging.basicConfig(level=env.log_level().upper(), stream=sys.stderr)
        check_name(options.settings.model)
        return serve(options.settings, options.server, endpoints=[_Generate()])
    except SettingsError as error:
        print(f"api_server: error: {error}", file=sys.stderr)
        return 2


@router.post("/generate")
async def generate(http: Request) -> Response:
    """`prompt`, `stream`, and fields of SamplingParams; answers {"text": [prompt and output, ...]}."""
    state: ServerState = http.app.state.quire
    state.serving_llm()
    body = await read_json(http, state.config)
    prompt, stream = body.pop("prompt", None), body.pop("stream", False)
    if not isinstance(prompt, str):
        raise InvalidRequestError("prompt is missing; send it as text", param="prompt")
    texts = _texts(state, prompt, _params(body, state))
    if stream:
        live = contextlib.ExitStack()
        live.enter_context(state.in_flight())
        try:
            pieces = await answer(http, begun(texts))
        except BaseException:
            live.close()
            raise
        return EventStream(_lines(pieces), finally_=live.close)
    with state.in_flight():
        return await answer(http, _whole(texts))


def _params(fields: Mapping[str, Any], state: ServerState) -> SamplingParams:
    """Raises InvalidRequestError, for a field that is not known too."""
    try:
        params = SamplingParams(**fields)
    except TypeError as error:
        raise InvalidRequestError(f"a field is not known: {error}") from None
    most = state.config.max_num_choices
    if params.n > most:
        raise InvalidRequestError(f"n is {params.n}; the limit is {most}", param="n")
    params.output_kind = RequestOutputKind.DELTA
    return params


async def _texts(
    state: ServerState, prompt: str, params: SamplingParams
) -> AsyncGenerator[list[str], None]:
    """The prompt with each choice's text so far, after every piece of news."""
    llm = state.serving_llm()
    job = Job(prompt=prompt, params=params, request_id="generate", max_tokens_given=True)
    so_far = [prompt] * params.n
    async with contextlib.aclosing(run(state, llm, [job])) as outputs:
        async for _, output in outputs:
            _add(so_far, output)
            yield list(so_far)


def _add(so_far: list[str], output: RequestOutput) -> None:
    for choice in output.outputs:
        so_far[choice.index] += choice.text


async def _whole(texts: AsyncGenerator[list[str], None]) -> Response:
    last: list[str] = []
    async with contextlib.aclosing(texts):
        async for one in texts:
            last = one
    return JSONResponse({"text": last})


async def _lines(texts: AsyncGenerator[list[str], None]) -> AsyncGenerator[bytes, None]:
    """One JSON object a line."""
    try:
        async with contextlib.aclosing(texts):
            async for one in texts:
                yield json.dumps({"text": one}, ensure_ascii=False).encode() + b"\n"
    except Exception as error:
        yield problem_of(error).body() + b"\n"
