"""POST /score and /rerank: how well texts fit each other, and documents in that order.

The fields are `server.schema.pooling`; comparing pooled texts is `protocol.similarity`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.protocol.errors import NotServedError
from quire.protocol.pooled_results import Numbers
from quire.protocol.pooler import Pooler
from quire.protocol.similarity import cosine, late_interaction, product
from quire.server.body import convert, read_json
from quire.server.errors import JSON
from quire.server.face import Face
from quire.server.heads import ignored_fields, openapi_of, priority_of
from quire.server.pooled import Pooled, PoolJob, how_of, pool, pool_id, pooler_of, usage_of
from quire.server.schema.pooling import (
    RerankRequest,
    ScoreFields,
    ScoreRequest,
    check_fields,
    params_of,
    text_pairs,
    texts_of,
)
from quire.server.schema.sampling import refuse, short
from quire.server.sse import answer
from quire.server.state import ServerState

router = APIRouter()

_TASKS = {"cross-encoder": "classify", "bi-encoder": "embed", "late-interaction": "token_embed"}


@router.post("/score", openapi_extra=openapi_of(ScoreRequest))
@router.post("/v1/score", openapi_extra=openapi_of(ScoreRequest))
async def score(http: Request) -> Response:
    """One number for each pair of texts."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, ScoreRequest, strict=state.config.strict)
    model = state.check_model(request.model)
    check_fields(request)
    firsts, seconds = text_pairs(request)
    request_id = pool_id(http, request, "score")
    with state.in_flight():
        work = _scores(state, llm, http, request, request_id, firsts, seconds)
        scores, outputs = await answer(http, work)
    found = {
        "id": request_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {"index": place, "object": "score", "score": value}
            for place, value in enumerate(scores)
        ],
        "usage": usage_of(state, outputs),
    }
    return Response(msgspec.json.encode(found), headers=ignored_fields(unknown), media_type=JSON)


@router.post("/rerank", openapi_extra=openapi_of(RerankRequest))
@router.post("/v1/rerank", openapi_extra=openapi_of(RerankRequest))
@router.post("/v2/rerank", openapi_extra=openapi_of(RerankRequest))
async def rerank(http: Request) -> Response:
    """Documents by how well they fit a query, the best first."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, RerankRequest, strict=state.config.strict)
    model = state.check_model(request.model)
    check_fields(request)
    if request.top_n < 0:
        refuse("top_n", f"top_n is {short(request.top_n)}; it must be at least 0, which is all")
    query = texts_of(request.query, "query")
    if len(query) != 1:
        refuse("query", f"query has {len(query)} texts; send one")
    documents = texts_of(request.documents, "documents")
    request_id = pool_id(http, request, "rerank")
    with state.in_flight():
        work = _scores(state, llm, http, request, request_id, query * len(documents), documents)
        scores, outputs = await answer(http, work)
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    usage = usage_of(state, outputs)
    found = {
        "id": request_id,
        "model": model,
        "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens},
        "results": [
            {
                "index": place,
                "document": {"text": documents[place], "multi_modal": None},
                "relevance_score": scores[place],
            }
            for place in order[: request.top_n or None]
        ],
    }
    return Response(msgspec.json.encode(found), headers=ignored_fields(unknown), media_type=JSON)


async def _scores(
    state: ServerState,
    llm: Face,
    http: Request,
    request: ScoreFields,
    request_id: str,
    firsts: list[str],
    seconds: list[str],
) -> tuple[list[float], list[Pooled]]:
    """A score for each pair, and what the engine gave for it. Raises InvalidRequestError."""
    pooler = pooler_of(llm)
    kind = pooler.score_type
    if kind is None:
        raise NotServedError(
            f"this model has {len(pooler.labels)} classes and compares no texts; a score needs one class, or a "
            "model that embeds"
        )
    params = params_of(request, _TASKS[kind])

    def job(place: int, name: str, prompt: Any) -> PoolJob:
        return PoolJob(
            prompt=prompt,
            params=params,
            request_id=f"{request_id}-{place}",
            place=name,
            priority=priority_of(http, request.priority),
            cache_salt=request.cache_salt,
            how=how_of(request),
        )

    if kind == "cross-encoder":
        pairs = zip(firsts, seconds, strict=True)
        prompts = [{"prompt": one, "prompt_pair": other} for one, other in pairs]
        jobs = [job(place, f"pair {place}", prompt) for place, prompt in enumerate(prompts)]
        outputs = await pool(state, llm, jobs)
        return [one.outputs.numbers.flat()[0] for one in outputs], outputs
    texts = list(dict.fromkeys([*firsts, *seconds]))
    outputs = await pool(state, llm, [job(place, "text", text) for place, text in enumerate(texts)])
    of = {text: one.outputs.numbers for text, one in zip(texts, outputs, strict=True)}
    scores = await asyncio.to_thread(_compare, of, firsts, seconds, pooler)
    return scores, outputs


def _compare(
    of: dict[str, Numbers], firsts: list[str], seconds: list[str], pooler: Pooler
) -> list[float]:
    if pooler.score_type == "bi-encoder":
        compare = product if pooler.is_sparse else cosine
        flat = {text: numbers.flat() for text, numbers in of.items()}
        return [compare(flat[one], flat[two]) for one, two in zip(firsts, seconds, strict=True)]
    return [late_interaction(of[one], of[two]) for one, two in zip(firsts, seconds, strict=True)]
