"""What an operator steers with, served only with --server-dev-mode: caches, pause and resume, sleep, calls.

What the engine does then is `quire.async_control`; /server_info is `routes.dev`, profiles `routes.profile`.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quire.protocol.control import PauseMode
from quire.protocol.errors import InvalidRequestError
from quire.server.body import convert, decode, read_body, read_json
from quire.server.errors import HttpError
from quire.server.face import Face
from quire.server.heads import openapi_of
from quire.server.state import ServerState

router = APIRouter()
aborts = APIRouter()
"""/abort_requests, which a server of token ids has too."""

_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


class AbortRequest(msgspec.Struct, kw_only=True):
    """Which requests end; all if none is named."""

    request_ids: list[str] = []


class RpcRequest(msgspec.Struct, kw_only=True):
    """One of the engine's calls. Arguments are known and refused."""

    method: str | None = None
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    timeout: float | None = None


def _llm(http: Request) -> Face:
    state: ServerState = http.app.state.quire
    return state.serving_llm()


def _truth(http: Request, name: str, default: bool) -> bool:
    """A truth value of the query. Raises InvalidRequestError."""
    text = http.query_params.get(name)
    if text is None:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise InvalidRequestError(f"{name} is {text[:32]!r}; write true or false", param=name)
    return text.lower() in _TRUE


def _mode(http: Request) -> PauseMode:
    text = http.query_params.get("mode", "abort")
    for mode in get_args(PauseMode):
        if text == mode:
            found: PauseMode = mode
            return found
    raise InvalidRequestError(f"mode is {text[:32]!r}; use abort, wait or keep", param="mode")


@router.post("/reset_prefix_cache")
async def reset_prefix_cache(http: Request) -> Response:
    """Forgets cached prefixes; success is false, and nothing forgotten, while requests hold blocks."""
    done = await _llm(http).reset_prefix_cache(
        _truth(http, "reset_running_requests", False),
        _truth(http, "reset_external", False) or _truth(http, "reset_connector", False),
    )
    return JSONResponse({"success": done})


@router.post("/reset_mm_cache")
async def reset_mm_cache(http: Request) -> Response:
    """Forgets processed media."""
    await _llm(http).reset_mm_cache()
    return Response()


@router.post("/reset_encoder_cache")
async def reset_encoder_cache(http: Request) -> Response:
    """Forgets encoded media."""
    await _llm(http).reset_encoder_cache()
    return Response()


@router.post("/pause")
async def pause(http: Request) -> Response:
    """Holds the engine; query mode (abort, wait, keep) and clear_cache."""
    mode = _mode(http)
    if _truth(http, "wait_for_inflight_requests", False):
        mode = "wait"
    await _llm(http).pause_generation(mode=mode, clear_cache=_truth(http, "clear_cache", True))
    return JSONResponse({"status": "paused"})


@router.post("/resume")
async def resume(http: Request) -> Response:
    """Lets the engine go on."""
    await _llm(http).resume_generation()
    return JSONResponse({"status": "resumed"})


@router.get("/is_paused")
async def is_paused(http: Request) -> Response:
    """Whether the engine is held."""
    return JSONResponse({"is_paused": await _llm(http).is_paused()})


@router.post("/sleep")
async def sleep(http: Request) -> Response:
    """Level 0 holds the engine; other levels move weights and are answered with 501."""
    level = http.query_params.get("level", "1")
    if level not in ("0", "1", "2"):
        raise InvalidRequestError(f"level is {level[:32]!r}; it must be 0, 1 or 2", param="level")
    mode = _mode(http)
    if level != "0":
        raise HttpError(
            501,
            f"level is {level}; weights and cache stay in memory in this version, so only level 0, which "
            "holds the engine, is served",
            type="NotImplementedError",
            param="level",
        )
    await _llm(http).sleep(0, mode)
    return Response()


@router.post("/wake_up")
async def wake_up(http: Request) -> Response:
    """Ends a sleep; query tags (weights, kv_cache) may be given."""
    tags = http.query_params.getlist("tags")
    if any(tag not in ("weights", "kv_cache") for tag in tags):
        raise InvalidRequestError("tags must be weights or kv_cache", param="tags")
    await _llm(http).wake_up(tags or None)
    return Response()


@router.get("/is_sleeping")
async def is_sleeping(http: Request) -> Response:
    """Whether a sleep holds the engine."""
    return JSONResponse({"is_sleeping": await _llm(http).is_sleeping()})


@router.get("/get_world_size")
async def world_size(http: Request) -> Response:
    """Workers: one."""
    _llm(http)
    return JSONResponse({"world_size": 1})


@router.post("/collective_rpc", openapi_extra=openapi_of(RpcRequest))
async def collective_rpc(http: Request) -> Response:
    """The values of one of the engine's calls, by name; 400 for any other name."""
    state: ServerState = http.app.state.quire
    body = await read_json(http, state.config)
    request, _ = convert(body, RpcRequest, strict=state.config.strict)
    if not request.method:
        raise InvalidRequestError("method is missing; name a call", param="method")
    results = await _llm(http).collective_rpc(
        request.method, request.timeout, request.args, request.kwargs
    )
    return JSONResponse({"results": results})


@aborts.post("/abort_requests", openapi_extra=openapi_of(AbortRequest))
async def abort_requests(http: Request) -> Response:
    """Ends live requests by their ids, all without ids."""
    state: ServerState = http.app.state.quire
    raw = await read_body(http, state.config)
    body = decode(raw) if raw.strip() else {}
    request, _ = convert(body, AbortRequest, strict=state.config.strict)
    aborted = await _llm(http).abort_requests(request.request_ids)
    return JSONResponse({"status": "aborted", "aborted": aborted})
