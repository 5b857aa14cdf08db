"""POST /start_profile and /stop_profile, served where --profiler-config names a profiler.

The trace is made by `engine.profiler`.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quire.server.state import ServerState

router = APIRouter()


@router.post("/start_profile")
async def start_profile(http: Request) -> Response:
    """Begins a trace of the engine's process; 400 while one runs."""
    state: ServerState = http.app.state.quire
    await state.serving_llm().start_profile()
    return Response()


@router.post("/stop_profile")
async def stop_profile(http: Request) -> Response:
    """Ends the trace; the name of its file in the configured folder."""
    state: ServerState = http.app.state.quire
    path = await state.serving_llm().stop_profile()
    return JSONResponse({"file": path.rpartition("/")[2]})
