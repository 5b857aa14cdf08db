"""POST /invocations, as SageMaker calls it: the body says which endpoint it is for.

/ping is `routes.info`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from quire.protocol.errors import InvalidRequestError
from quire.server.body import check_media_type, decode, read_body
from quire.server.state import ServerState

router = APIRouter()

_KINDS = (
    ("messages", "/v1/chat/completions"),
    ("prompt", "/v1/completions"),
    ("prompt_embeds", "/v1/completions"),
    ("token_ids", "/inference/v1/generate"),
)
"""A field that only one kind of request has, and where such requests go; tried in order."""


class _Forward(Response):
    """The answer of another route of the same application to the same body."""

    def __init__(self, app: Any, path: str, body: bytes) -> None:
        super().__init__()
        self._app = app
        self._path = path
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        is_given = False

        async def first_the_body() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given = True
            return {"type": "http.request", "body": self._body, "more_body": False}

        there = {
            **scope,
            "path": scope.get("root_path", "") + self._path,
            "raw_path": self._path.encode(),
        }
        await self._app.router(there, first_the_body, send)


@router.post("/invocations")
async def invocations(http: Request) -> Response:
    """Answers as the endpoint does that the body is for."""
    state: ServerState = http.app.state.quire
    check_media_type(http)
    raw = await read_body(http, state.config)
    body = decode(raw)
    for field, path in _KINDS:
        if body.get(field) is not None:
            return _Forward(http.app, path, raw)
    raise InvalidRequestError(
        "the body is of no known kind; send a chat request with messages, a completions request with "
        "prompt, or a request with token_ids"
    )
