"""POST /invocations, as SageMaker calls it: the body says which endpoint it is for.

/ping is `routes.info`.
"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

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


def _again(http: Request, path: str, body: bytes) -> Request:
    """The request as it would have come to another path, its body unread."""
    is_given = False

    async def first_the_body() -> Message:
        nonlocal is_given
        if is_given:
            return await http.receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    whole = http.scope.get("root_path", "") + path
    return Request({**http.scope, "path": whole, "raw_path": path.encode()}, first_the_body)


@router.post("/invocations")
async def invocations(http: Request) -> Response:
    """Answers as the endpoint does that the body is for."""
    state: ServerState = http.app.state.quire
    check_media_type(http)
    raw = await read_body(http, state.config)
    body = decode(raw)
    for field, path in _KINDS:
        if body.get(field) is not None:
            route = http.app.state.direct.get(("POST", path))
            if route is None:
                raise HTTPException(404)
            response: Response = await route.endpoint(_again(http, path, raw))
            return response
    raise InvalidRequestError(
        "the body is of no known kind; send a chat request with messages, a completions request with "
        "prompt, or a request with token_ids"
    )
