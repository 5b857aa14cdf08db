"""The HTTP parser with bounds on a request's head: its size, and the time it may take to come.

Bodies are bounded in `server.body`; parsing is uvicorn's over httptools.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quire.config.server import ServerConfig
from quire.server.errors import Problem


class BoundedProtocol(HttpToolsProtocol):
    """One connection; subclasses set the limits."""

    limits: ServerConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.max_header_bytes:
            self._refuse_large()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arm()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.max_header_bytes:
            self._refuse_large()
            return
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            self.send_400_response("This is an HTTP version that is not spoken.")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        if self.cycle is not None:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in JSON, as every other mistake."""
        self._refuse(Problem(400, "BadRequestError", f"{msg} Send HTTP/1.1 with a known method."))

    def _arm(self) -> None:
        self._disarm()
        self._head_timer = self.loop.call_later(self.limits.header_timeout, self._refuse_slow)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_large(self) -> None:
        text = f"the request head is larger than {self.limits.max_header_bytes} bytes; send less"
        self._refuse(Problem(431, "RequestHeaderFieldsTooLarge", text))

    def _refuse_slow(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._arm()  # the next request's head waits behind an answer that is still being sent
            return
        if self._head_bytes == 0 and self.cycle is None:
            self.transport.close()  # nothing was asked, so nothing is answered
            return
        text = f"the request head took longer than {self.limits.header_timeout:g} s"
        self._refuse(Problem(408, "RequestTimeout", text))

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        self._disarm()
        body = problem.body()
        head = (
            f"HTTP/1.1 {problem.status} {problem.type}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def bounded_protocol(limits: ServerConfig) -> type[BoundedProtocol]:
    """The protocol class for a server with these limits."""
    return type("LimitedProtocol", (BoundedProtocol,), {"limits": limits})
