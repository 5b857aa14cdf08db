"""GET /memory_stats: the blocks of the cache, all, used and free.

The same as series is /metrics, and as a header of answers `server.load_report`.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quire.server.load_report import cache_report

router = APIRouter()


@router.get("/memory_stats")
async def memory_stats(http: Request) -> Response:
    """Blocks and bytes of the cache, and requests that run and wait."""
    return JSONResponse(await cache_report(http.app.state.quire))
