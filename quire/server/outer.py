"""Middleware that the operator names with --middleware: importable ASGI classes, or functions of a request.

What stands before every route in any case is `server.guard`.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from quire.protocol.errors import SettingsError
from quire.server.batches.caller import INTERNAL


class Outer:
    """One of the operator's middlewares around an application; calls from inside pass it by."""

    def __init__(self, app: ASGIApp, made: Any) -> None:
        self._app = app
        if inspect.iscoroutinefunction(made):
            self._around: ASGIApp = BaseHTTPMiddleware(app, dispatch=made)
        else:
            self._around = made(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        app = self._app if INTERNAL in scope else self._around
        await app(scope, receive, send)


def outer_middleware(names: list[str]) -> list[Middleware]:
    """The middlewares, the first outermost. Raises SettingsError for one that cannot be had."""
    return [Middleware(Outer, made=_load(name)) for name in names]


def _load(name: str) -> Any:
    """A class that takes the application, or an async function (request, call_next)."""
    module, _, inner = name.rpartition(".")
    if not module:
        raise SettingsError(f"--middleware is {name!r}; write package.module.Name")
    try:
        found = getattr(importlib.import_module(module), inner)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"--middleware {name}: {error}") from error
    if not inspect.isclass(found) and not inspect.iscoroutinefunction(found):
        raise SettingsError(f"--middleware {name} is neither a class nor an async function")
    return found
