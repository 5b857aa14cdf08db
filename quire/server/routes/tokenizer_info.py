"""GET /tokenizer_info, served only with --enable-tokenizer-info-endpoint.

Tokenising itself is `routes.tokenize`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.server.completion_output import encode
from quire.server.errors import JSON
from quire.server.state import ServerState

router = APIRouter()


@router.get("/tokenizer_info")
async def tokenizer_info(http: Request) -> Response:
    """The tokenizer's settings as the model's files have them, with the chat template in use."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    tokenizer = await llm.get_tokenizer()
    template = await llm.chat_template()
    found: dict[str, Any] = {"tokenizer_class": None, **tokenizer.settings}
    return Response(encode(found | {"chat_template": template}), media_type=JSON)
