"""GET /, the built-in page with its files, and what it is told: /ui/state once, /ui/live as events.

The files are `server.page`, the snapshots `server.live_view`. Served unless --no-ui.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.server.errors import JSON, HttpError
from quire.server.live_view import LiveView
from quire.server.page import HEADERS, page_file
from quire.server.sse import EventStream, answer

router = APIRouter(include_in_schema=False)


def _live_view(http: Request) -> LiveView:
    view: LiveView = http.app.state.live_view
    return view


@router.get("/ui/state")
async def state(http: Request) -> Response:
    """One snapshot: requests, blocks of the cache, counters and latencies."""
    data = await answer(http, _live_view(http).snapshot())
    return Response(data, headers={"cache-control": "no-store"}, media_type=JSON)


@router.get("/ui/live")
async def live(http: Request) -> Response:
    """The snapshots as an event stream, twice a second."""
    return EventStream(_live_view(http).events())


@router.api_route("/", methods=["GET", "HEAD"])
@router.api_route("/ui/{name:path}", methods=["GET", "HEAD"])
async def page(http: Request) -> Response:
    """The page, or one of its files."""
    file = page_file(http.url.path.removeprefix(http.scope.get("root_path", "")))
    if file is None:
        raise HttpError(404, "the page has no such file", type="NotFoundError")
    headers = {**HEADERS, "etag": file.etag}
    if file.etag in http.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.data, headers={**headers, "content-type": file.type})
