"""POST /v1/embeddings, and /v2/embed in Cohere's form.

The fields are `server.schema.pooling`; running the texts is `server.pooled`.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.protocol.errors import NotServedError
from quire.protocol.params import PoolingParams
from quire.server.body import convert, read_json
from quire.server.errors import JSON
from quire.server.heads import ignored_fields, openapi_of, priority_of
from quire.server.number_codes import DTYPES, shown, sign_bits
from quire.server.pooled import Pooled, PoolJob, jobs_of, pool, pool_id, pooler_of, usage_of
from quire.server.pooled_bytes import bytes_answer
from quire.server.schema.pooling import (
    CohereEmbedRequest,
    EmbeddingRequest,
    check_encoding,
    check_fields,
    params_of,
    texts_of,
)
from quire.server.schema.sampling import refuse
from quire.server.sse import answer
from quire.server.state import ServerState

router = APIRouter()

_COHERE_TYPES = ("float", "base64", "binary", "ubinary")
_COHERE_SIDES = {"END": "right", "START": "left"}


@router.post("/v1/embeddings", openapi_extra=openapi_of(EmbeddingRequest))
async def embeddings(http: Request) -> Response:
    """An embedding of each text."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, EmbeddingRequest, strict=state.config.strict)
    model = state.check_model(request.model)
    pooler_of(llm, "embed")
    check_fields(request)
    check_encoding(request, DTYPES)
    request_id = pool_id(http, request, "embd")
    params = params_of(request, "embed")
    jobs = await jobs_of(state, llm, http, request, params, request_id)
    with state.in_flight():
        outputs = await answer(http, pool(state, llm, jobs))
    head = {"id": request_id, "created": int(time.time()), "model": model}
    headers = ignored_fields(unknown)
    usage = usage_of(state, outputs)
    if request.encoding_format.startswith("bytes"):
        return bytes_answer(request, outputs, head, usage, headers)
    how = (request.encoding_format, request.embed_dtype, request.endianness)
    found = head | {
        "object": "list",
        "data": [
            {
                "index": place,
                "object": "embedding",
                "embedding": shown(one.outputs.numbers, *how),
            }
            for place, one in enumerate(outputs)
        ],
        "usage": usage,
    }
    return Response(msgspec.json.encode(found), headers=headers, media_type=JSON)


@router.post("/v2/embed", openapi_extra=openapi_of(CohereEmbedRequest))
async def cohere_embed(http: Request) -> Response:
    """An embedding of each text, in the types that are asked for."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, CohereEmbedRequest, strict=state.config.strict)
    state.check_model(request.model)
    pooler_of(llm, "embed")
    texts = _cohere_texts(request)
    how = _cohere_truncation(request, llm.info.max_model_len)
    params = PoolingParams(task="embed", dimensions=request.output_dimension)
    request_id = f"embd-{http.state.request_id}"
    jobs = [
        PoolJob(
            prompt=text,
            params=params,
            request_id=f"{request_id}-{place}",
            place=f"texts[{place}]",
            priority=priority_of(http, request.priority),
            how=how,
        )
        for place, text in enumerate(texts)
    ]
    with state.in_flight():
        outputs = await answer(http, pool(state, llm, jobs))
    tokens = sum(len(one.prompt_token_ids) for one in outputs)
    found = {
        "id": request_id,
        "embeddings": {
            kind: [_cohere_shown(one, kind) for one in outputs] for kind in _cohere_kinds(request)
        },
        "texts": texts,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}},
        "response_type": "embeddings_by_type",
    }
    return Response(msgspec.json.encode(found), headers=ignored_fields(unknown), media_type=JSON)


def _cohere_kinds(request: CohereEmbedRequest) -> list[str]:
    return ["float"] if request.embedding_types is None else request.embedding_types


def _cohere_texts(request: CohereEmbedRequest) -> list[str]:
    """The texts, from whichever field has them. Raises InvalidRequestError."""
    given = [name for name in ("texts", "inputs", "images") if getattr(request, name) is not None]
    if len(given) != 1:
        refuse("texts", f"send exactly one of texts, inputs and images; there are {len(given)}")
    if given[0] == "images":
        raise NotServedError("images are not served; send texts", param="images")
    kinds = _cohere_kinds(request)
    wrong = [kind for kind in kinds if kind not in _COHERE_TYPES]
    if wrong or not kinds:
        refuse(
            "embedding_types",
            f"embedding_types has {str(wrong[:1])[1:-1] or 'no entry'}; known are {', '.join(_COHERE_TYPES)}",
        )
    return texts_of(getattr(request, given[0]), given[0])


def _cohere_truncation(request: CohereEmbedRequest, max_model_len: int) -> dict[str, Any]:
    if request.truncate == "NONE":
        return {}
    side = _COHERE_SIDES.get(request.truncate)
    if side is None:
        refuse("truncate", f"truncate is {request.truncate[:40]!r}; it must be NONE, START or END")
    keep = -1 if request.max_tokens is None else min(request.max_tokens, max_model_len)
    return {"truncate_prompt_tokens": keep, "truncation_side": side}


def _cohere_shown(output: Pooled, kind: str) -> Any:
    numbers = output.outputs.numbers
    if kind in ("binary", "ubinary"):
        return sign_bits(numbers, signed=kind == "binary")
    return shown(numbers, kind, "float32", "little")
