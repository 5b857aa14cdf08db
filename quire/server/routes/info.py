"""What a server says of itself: /v1/models, /health, /ready, /ping, /version, /load, /metrics.

The numbers behind /metrics are `quire.metrics`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import quire
from quire.metrics.registry import CONTENT_TYPE
from quire.server.errors import is_anthropic, not_found
from quire.server.paging import page, page_size
from quire.server.state import ServerState

router = APIRouter()


def _state(http: Request) -> ServerState:
    state: ServerState = http.app.state.quire
    return state


def _card(state: ServerState, name: str) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{state.created:x}",
        "object": "model_permission",
        "created": state.created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    ready = state.llm is not None and state.ready
    return {
        "id": name,
        "object": "model",
        "created": state.created,
        "owned_by": "vllm",
        "root": state.settings.model.model,
        "parent": None,
        "max_model_len": state.llm.info.max_model_len if ready and state.llm is not None else None,
        "permission": [permission],
    }


def _anthropic_card(state: ServerState, name: str) -> dict[str, Any]:
    """The same as Anthropic's clients read it, which see the rest of the card too."""
    created = datetime.fromtimestamp(state.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    card = _card(state, name)
    return card | {
        "type": "model",
        "display_name": name,
        "created_at": created,
        "max_input_tokens": card["max_model_len"],
    }


@router.get("/v1/models")
async def models(http: Request) -> Response:
    """One card for each served name; for Anthropic's clients, in pages of up to `limit` after `after_id`."""
    state = _state(http)
    if not is_anthropic(http.scope):
        cards = [_card(state, name) for name in state.names]
        return JSONResponse({"object": "list", "data": cards})
    query = http.query_params
    limit = page_size(query.get("limit"), default=20, most=1000)
    names = list(state.names)
    after, before = query.get("after_id"), query.get("before_id")
    for name in (after, before):
        if name is not None and name not in names:
            raise not_found(name)
    if before is not None:
        names = names[: names.index(before)]
        shown = names[-limit:]
    else:
        names = names[names.index(after) + 1 :] if after is not None else names
        shown = names[:limit]
    cards = [_anthropic_card(state, name) for name in shown]
    return JSONResponse(page(cards, has_more=len(names) > limit))


@router.get("/v1/models/{name:path}")
async def model(http: Request, name: str) -> Response:
    """The card of one served name; 404 for any other."""
    state = _state(http)
    if name not in state.names:
        raise not_found(name)
    card = _anthropic_card if is_anthropic(http.scope) else _card
    return JSONResponse(card(state, name))


@router.api_route("/health", methods=["GET", "HEAD"], include_in_schema=False)
async def health(http: Request) -> Response:
    """200 while the server lives, from the moment its port is bound; 503 when the engine is dead."""
    llm = _state(http).llm
    return Response(status_code=503 if llm is not None and llm.errored else 200)


@router.api_route("/ping", methods=["GET", "POST"], include_in_schema=False)
async def ping(http: Request) -> Response:
    """The same as /health."""
    return await health(http)


@router.api_route("/ready", methods=["GET", "HEAD"], include_in_schema=False)
async def ready(http: Request) -> Response:
    """200 when requests are served; else 503 with the phase, and how far it is where that is known.

    While a dead engine is replaced it is 503, though requests are taken: they wait.
    """
    state = _state(http)
    phase, percent = state.phase
    dead = state.llm is not None and state.llm.errored
    body: dict[str, Any] = {"phase": "dead" if dead else phase}
    if percent >= 0:
        body["percent"] = percent
    if state.ready and not (state.draining or state.is_restarting or dead):
        return JSONResponse(body)
    return JSONResponse(body, 503, {"Retry-After": "1"})


@router.get("/version")
async def version() -> Response:
    """The version of Quire."""
    return JSONResponse({"version": quire.__version__})


@router.get("/load")
async def load(http: Request) -> Response:
    """Requests in flight; 0 unless --enable-server-load-tracking."""
    state = _state(http)
    return JSONResponse(
        {"server_load": state.num_live if state.config.enable_server_load_tracking else 0}
    )


@router.get("/metrics")
@router.get("/metrics/", include_in_schema=False)
async def metrics(http: Request) -> Response:
    """All series in the Prometheus text format."""
    state = _state(http)
    state.take_stats()
    return Response(state.metrics.exposition(), headers={"content-type": CONTENT_TYPE})
