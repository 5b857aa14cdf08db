"""Answers that watch their client: event streams, and single answers that take long.

What the events say is the routes' business.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quire.server.errors import ClientGone

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"

SEND = "quire.send"
"""Key of a scope: where a stream sends its pieces, past all that only looks at the head of an answer."""


def event(payload: bytes) -> bytes:
    """One event of an OpenAI stream."""
    return b"data: " + payload + b"\n\n"


async def _until_gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Callable[[], Awaitable[Any]], work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the client goes; then raises ClientGone."""
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return await task
    finally:
        for one in (task, watch):
            if not one.done():
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await one
        # An error leads to this frame and a task to its error: the collector would have to part them.
        del task, watch, one


async def answer(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """`while_connected` for a request whose body has been read."""
    return await while_connected(request.receive, work)


class EventStream(Response):
    """A 200 answer whose body comes in pieces, each one event or several; closed with its client.

    chunks    gives the bytes; it is closed in any case.
    finally_  is called once, when the answer has ended, however it ended.
    """

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str] | None = None,
        finally_: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(None, 200, dict(headers or {}))
        del self.headers["content-length"]
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"
        self._chunks = chunks
        self._finally = finally_

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer."""
        try:
            with contextlib.suppress(ClientGone):
                await while_connected(receive, self._pump(send, scope.get(SEND, send)))
        finally:
            self._finally()

    async def _pump(self, send_head: Send, send: Send) -> None:
        await send_head(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async with contextlib.aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
