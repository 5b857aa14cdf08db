"""Calls the routes of this server from inside its process: no port, no key, the same code.

Who is called when is `server.batches.jobs` and `server.batches.offline`.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    import httpx

INTERNAL = "quire.internal"
"""Key of an ASGI scope that only this process can set: the call needs no key and no Host."""

ENDPOINTS = frozenset(
    f"/v1/{name}"
    for name in (
        *("chat/completions", "completions", "responses", "messages", "embeddings"),
        *("score", "rerank", "audio/transcriptions", "audio/translations"),
    )
) | {"/score", "/rerank", "/v2/rerank", "/pooling", "/classify", "/inference/v1/generate"}
"""Where lines of a batch may go, as far as the server has the route."""

CALLED_FROM_INSIDE: ContextVar[bool] = ContextVar("called_from_inside", default=False)
"""Whether the current task carries out a call of this module."""

_PAUSE_S = 0.5


class Caller:
    """Posts bodies to the routes of an application."""

    def __init__(self, app: FastAPI) -> None:
        logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for every call
        self._app = app
        self._http: httpx.AsyncClient | None = None

    def takes(self, path: str) -> bool:
        """Whether lines may go to this path, and some route is there."""
        if path not in ENDPOINTS:
            return False
        scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": []}
        return any(route.matches(scope)[0] is Match.FULL for route in self._app.routes)

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body of an answer. One that says "try again" is asked for again until it is done."""
        CALLED_FROM_INSIDE.set(True)
        headers = {"content-type": "application/json", **headers}
        if self._http is None:
            await asyncio.to_thread(_load)
            self._http = self._http or self._client()
        http = self._http
        while True:
            reply = await http.post(path, content=body, headers=headers)
            if reply.status_code not in (429, 503):
                return reply.status_code, reply.content
            await asyncio.sleep(_pause_s(reply.headers.get("retry-after")))

    async def close(self) -> None:
        """Ends the calls."""
        if self._http is not None:
            await self._http.aclose()

    def _client(self) -> httpx.AsyncClient:
        import httpx

        return httpx.AsyncClient(
            transport=httpx.ASGITransport(_marked(self._app), raise_app_exceptions=False),
            base_url="http://quire.internal",
            timeout=None,
        )


def _load() -> None:
    """Imports httpx, a tenth of a second that neither the start nor the event loop should wait."""
    importlib.import_module("httpx")


def _pause_s(retry_after: str | None) -> float:
    given = retry_after or ""
    return min(5.0, float(given)) if given.isdigit() else _PAUSE_S


def _marked(app: ASGIApp) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope[INTERNAL] = True
        await app(scope, receive, send)

    return call
