"""What stands before every route: the request's id, the host, the key; and what is counted after it.

Bodies are checked where they are read, in `server.body`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.config.server import ServerConfig
from quire.metrics.registry import HttpAnswer
from quire.server import page
from quire.server.address import is_loopback
from quire.server.batches.caller import INTERNAL
from quire.server.errors import (
    JSON,
    ClientGone,
    HttpError,
    Problem,
    anthropic_body,
    is_anthropic,
    problem_of,
)
from quire.server.sse import SEND
from quire.server.state import ServerState, new_id

OPEN_PATHS = page.PATHS | {"/health", "/ready", "/ping", "/version", "/metrics", "/metrics/"}
"""Served without a key; the page's files are the same for everybody, and ask for the key."""

_UNCOUNTED = frozenset(
    {"/metrics", "/metrics/", "/health", "/load", "/ping", "/version", "/ready", "/server_info"}
    | {"/ui/state", "/ui/live"}
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ID = re.compile(r"[\x21-\x7e]{1,256}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._state = state
        config = state.config
        self._keys = [_digest(key.encode()) for key in config.api_key]
        self._hosts = _own_hosts(config)
        self._echo_id = config.enable_request_id_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id")
        known = given is not None and _ID.fullmatch(given) is not None
        request_id = given if known and given is not None else new_id()
        scope.setdefault("state", {}).update(request_id=request_id, request_id_given=known)
        started_s = time.perf_counter()
        status, num_bytes = 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, num_bytes
            num_bytes += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._echo_id:
                    MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        scope[SEND] = watched
        try:
            response = self._refusal(scope, headers)
            if response is not None:
                await response(scope, receive, watched)
            else:
                await self._app(scope, receive, watched)
        except ClientGone:
            return
        except Exception as error:
            if status:
                raise
            await problem_of(error).response(scope)(scope, receive, watched)
        finally:
            del scope[SEND]  # a scope that leads to itself would wait for the collector
            given = headers.get("content-length", "")
            self._count(
                scope,
                status,
                time.perf_counter() - started_s,
                (int(given[:20]) if given.isdecimal() else 0, num_bytes),
            )

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        if INTERNAL in scope:
            return None
        problem = self._host_problem(scope, headers)
        if problem is not None:
            return problem_of(problem).response(scope)
        if self._keys and scope["path"] not in OPEN_PATHS and scope["method"] != "OPTIONS":
            given = [_bearer(headers.get("authorization", "")), headers.get("x-api-key", "")]
            digests = [_digest(key.encode("latin-1", "replace")) for key in given]
            right = [hmac.compare_digest(one, known) for one in digests for known in self._keys]
            if not any(right):
                return _unauthorized(scope)
        return None

    def _host_problem(self, scope: Scope, headers: Headers) -> HttpError | None:
        """A wrong Host header; a foreign one on a loopback address is how a web page would reach us."""
        hosts = headers.getlist("host")
        if not hosts and scope.get("http_version") != "1.1":
            return None
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return HttpError(
                400,
                "the request must have one Host header, a name and a port",
                type="BadRequestError",
            )
        if self._hosts is None or match[1].lower() in self._hosts:
            return None
        return HttpError(
            403,
            f"the host {match[1][:64]!r} is not served; start with --allowed-hosts {match[1][:64]}",
            type="Forbidden",
        )

    def _count(self, scope: Scope, status: int, seconds: float, sizes: tuple[int, int]) -> None:
        """`sizes` in bytes: of the request's body as it was announced, and of the response's."""
        if scope["path"] in _UNCOUNTED or not status:
            return
        route = scope.get("route")
        handler = getattr(route, "path", None) or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._state.metrics.http(HttpAnswer(handler, method, status, seconds, *sizes))


def _bearer(header: str) -> str:
    """The key of an Authorization header; empty for another scheme."""
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _unauthorized(scope: Scope) -> Response:
    body = b'{"error":"Unauthorized"}'
    if is_anthropic(scope):
        body = anthropic_body(Problem(401, "Unauthorized", "the key is missing or wrong"))
    return Response(body, 401, {"WWW-Authenticate": "Bearer"}, media_type=JSON)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _own_hosts(config: ServerConfig) -> frozenset[str] | None:
    """Host names answered; None answers all: an address that others can reach may have any name."""
    if "*" in config.allowed_hosts or config.uds is not None or not is_loopback(config.host):
        return None
    own = {"localhost", "127.0.0.1", "[::1]", config.host.lower()}
    return frozenset(own | {name.lower() for name in config.allowed_hosts})
