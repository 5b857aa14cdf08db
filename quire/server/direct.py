"""The way past FastAPI's routing for endpoints that need none of it: a path without parameters, a request in.

Routing, dependencies and their clean-up took a third of the time of a refused request. The application stays what
describes the endpoints and serves all others; `server.app` puts this in front of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Answer = Callable[[Request, Exception], Awaitable[Response]]


class Direct:
    """ASGI middleware: calls the endpoint of a method and path that the table has.

    errors  by class, what answers an exception that is raised before the answer began; others go on up.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Mapping[tuple[str, str], APIRoute],
        errors: Mapping[type[Exception], Answer],
    ) -> None:
        self._app = app
        self._routes = routes
        self._errors = tuple(errors.items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        route = None
        if scope["type"] == "http" and not scope.get("root_path"):
            route = self._routes.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        http = Request(scope, receive, send)
        response = await self._answer(http, route)
        await response(scope, receive, send)

    async def _answer(self, http: Request, route: APIRoute) -> Response:
        try:
            response: Response = await route.endpoint(http)
        except Exception as error:
            for kind, answer in self._errors:
                if isinstance(error, kind):
                    return await answer(http, error)
            raise
        return response


def direct_routes(routers: Iterable[APIRouter]) -> dict[tuple[str, str], APIRoute]:
    """The routes, by method and path, whose endpoints take the request and nothing else; the first ones count."""
    found: dict[tuple[str, str], APIRoute] = {}
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute) and _takes_only_a_request(route):
                for method in route.methods or ():
                    found.setdefault((method, route.path), route)
    return found


def _takes_only_a_request(route: APIRoute) -> bool:
    endpoint: Any = route.endpoint
    if "{" in route.path or route.dependencies or not inspect.iscoroutinefunction(endpoint):
        return False
    signature = inspect.signature(endpoint, eval_str=True)
    kinds = [one.annotation for one in signature.parameters.values()]
    answer = signature.return_annotation
    return kinds == [Request] and isinstance(answer, type) and issubclass(answer, Response)
