"""The application: routes, guards, and every error as JSON.

The socket, the engine's start and the server's end are `server.launch`.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

import quire
from quire.protocol.errors import QuireError
from quire.server.batches.caller import Caller
from quire.server.batches.jobs import BatchService
from quire.server.direct import Direct, direct_routes
from quire.server.errors import ClientGone, problem_of
from quire.server.guard import Guard
from quire.server.live_view import LiveView
from quire.server.load_report import LoadHeader
from quire.server.outer import outer_middleware
from quire.server.responses.live import Responses
from quire.server.route_sets import routers_of
from quire.server.routes import ui
from quire.server.state import ServerState


def build_app(state: ServerState) -> FastAPI:
    """The ASGI application of a server; `state` is at `app.state.quire`."""
    config = state.config
    docs = not config.disable_fastapi_docs
    middleware = []
    if config.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=config.allowed_origins,
                allow_methods=config.allowed_methods,
                allow_headers=config.allowed_headers,
                allow_credentials=config.allow_credentials,
            )
        )
    middleware += outer_middleware(config.middleware)
    middleware.append(Middleware(Guard, state=state))
    middleware.append(Middleware(LoadHeader, state=state))
    routers = routers_of(state.settings, config)
    errors = {QuireError: _quire_error, HTTPException: _quire_error, ClientGone: _client_gone}
    direct = direct_routes(routers)
    middleware.append(Middleware(Direct, routes=direct, errors=errors))
    app = FastAPI(
        title="Quire",
        version=quire.__version__,
        openapi_url="/openapi.json" if docs else None,
        docs_url="/docs" if docs and not config.enable_offline_docs else None,
        redoc_url="/redoc" if docs and not config.enable_offline_docs else None,
        root_path=config.root_path,
        redirect_slashes=False,
        middleware=middleware,
    )
    app.state.quire = state
    app.state.direct = direct
    app.state.responses = Responses(config)
    app.state.batches = BatchService(state, Caller(app))
    for router in routers:
        app.include_router(router)
    if config.ui and not (config.render_only or config.tokens_only):
        app.include_router(ui.router)
        app.state.live_view = LiveView(state)
    for kind, handler in errors.items():
        app.add_exception_handler(kind, handler)
    return app


async def _quire_error(http: Request, error: Exception) -> Response:
    state: ServerState = http.app.state.quire
    problem = problem_of(error)
    extra = {"phase": state.phase[0]} if problem.status == 503 else None
    return problem.response(http.scope, extra)


async def _client_gone(http: Request, error: Exception) -> Response:
    """An answer that nobody reads; 499 is what access logs call it."""
    return Response(status_code=499)
