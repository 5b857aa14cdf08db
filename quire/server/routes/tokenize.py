"""POST /tokenize and /detokenize: what the tokenizer and the chat template make of a text, and back.

The fields are `server.schema.chat`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.server.body import convert, read_json
from quire.server.completion_output import encode
from quire.server.errors import JSON
from quire.server.face import Face
from quire.server.heads import ignored_fields, openapi_of
from quire.server.schema.chat import (
    DetokenizeRequest,
    TokenizeRequest,
    chat_options,
    check_tokenize,
)
from quire.server.schema.sampling import kind_of, refuse, short
from quire.server.sse import answer
from quire.server.state import ServerState

router = APIRouter()

MAX_CHARS = 1 << 20
"""Longest text to be tokenised, in characters: about half a second of work."""
MAX_IDS = 1 << 20
"""Most token ids to be made text."""


@router.post("/tokenize", openapi_extra=openapi_of(TokenizeRequest))
async def tokenize(http: Request) -> Response:
    """The token ids of a text or of a conversation."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, TokenizeRequest, strict=state.config.strict)
    state.check_model(request.model)
    check_tokenize(request, trusts_templates=state.config.trust_request_chat_template)
    ids = await answer(http, _ids(state, llm, request))
    tokens = (await llm.get_tokenizer()).convert_ids_to_tokens(ids)
    found = {
        "count": len(ids),
        "max_model_len": llm.info.max_model_len,
        "tokens": ids,
        "token_strs": tokens if request.return_token_strs else None,
    }
    return Response(encode(found), headers=ignored_fields(unknown), media_type=JSON)


async def _ids(state: ServerState, llm: Face, request: TokenizeRequest) -> list[int]:
    if request.messages is not None:
        options = chat_options(request, state.config.default_chat_template_kwargs)
        return (await llm.render_chat(request.messages, options)).token_ids
    if len(request.prompt) > MAX_CHARS:
        refuse("prompt", f"prompt has {len(request.prompt)} characters; the limit is {MAX_CHARS}")
    tokenizer = await llm.get_tokenizer()
    special = request.add_special_tokens is not False
    return await asyncio.to_thread(tokenizer.encode, request.prompt, special)


@router.post("/detokenize", openapi_extra=openapi_of(DetokenizeRequest))
async def detokenize(http: Request) -> Response:
    """The text of token ids, special tokens included."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, DetokenizeRequest, strict=state.config.strict)
    state.check_model(request.model)
    ids = _checked_ids(request.tokens, llm.info.vocab_size)
    tokenizer = await llm.get_tokenizer()
    text = await asyncio.to_thread(tokenizer.decode, ids)
    return Response(encode({"prompt": text}), headers=ignored_fields(unknown), media_type=JSON)


def _checked_ids(ids: Any, vocab_size: int) -> list[int]:
    if not isinstance(ids, list):
        refuse("tokens", f"tokens is {kind_of(ids)}; it must be a list of token ids")
    if len(ids) > MAX_IDS:
        refuse("tokens", f"tokens has {len(ids)} entries; the limit is {MAX_IDS}")
    for place, one in enumerate(ids):
        if type(one) is not int:
            refuse("tokens", f"tokens[{place}] is {kind_of(one)}; it must be a token id")
        if not 0 <= one < vocab_size:
            refuse(
                "tokens",
                f"tokens[{place}] is {short(one)}; ids must lie between 0 and {vocab_size - 1}",
            )
    return ids
