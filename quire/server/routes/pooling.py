"""POST /pooling and /classify: whatever a model pools, and the classes of texts.

The fields are `server.schema.pooling`; running the texts is `server.pooled`.
"""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.server.body import convert, read_json
from quire.server.errors import JSON
from quire.server.heads import ignored_fields, openapi_of
from quire.server.number_codes import DTYPES, shown
from quire.server.pooled import encoded, jobs_of, jobs_of_data, pool, pool_id, pooler_of, usage_of
from quire.server.pooled_bytes import bytes_answer
from quire.server.schema.pooling import (
    ClassifyRequest,
    PoolingRequest,
    check_encoding,
    check_fields,
    params_of,
)
from quire.server.sse import answer
from quire.server.state import ServerState

router = APIRouter()


@router.post("/pooling", openapi_extra=openapi_of(PoolingRequest))
async def pooling(http: Request) -> Response:
    """What the model pools of each text, a row of numbers or one for each token; or a plug-in's answer to data."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, PoolingRequest, strict=state.config.strict)
    model = state.check_model(request.model)
    pooler_of(llm)
    check_fields(request)
    check_encoding(request, DTYPES)
    request_id = pool_id(http, request, "pool")
    params = params_of(request, request.task)
    if request.data is not None:
        jobs = await jobs_of_data(llm, http, request, params, request_id)
        with state.in_flight():
            outputs = await answer(http, pool(state, llm, jobs))
            made = await llm.answer_of_data(outputs, request_id)
        said = {"request_id": request_id, "created_at": int(time.time()), "data": made}
        return Response(encoded(said), headers=ignored_fields(unknown), media_type=JSON)
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
            {"index": place, "object": "pooling", "data": shown(one.outputs.numbers, *how)}
            for place, one in enumerate(outputs)
        ],
        "usage": usage,
    }
    return Response(msgspec.json.encode(found), headers=headers, media_type=JSON)


@router.post("/classify", openapi_extra=openapi_of(ClassifyRequest))
async def classify(http: Request) -> Response:
    """The probabilities of each text's classes, and the likeliest one."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, ClassifyRequest, strict=state.config.strict)
    model = state.check_model(request.model)
    pooler = pooler_of(llm, "classify")
    check_fields(request)
    request_id = pool_id(http, request, "classify")
    params = params_of(request, "classify")
    jobs = await jobs_of(state, llm, http, request, params, request_id)
    with state.in_flight():
        outputs = await answer(http, pool(state, llm, jobs))
    data = []
    for place, one in enumerate(outputs):
        probs = one.outputs.numbers.flat()
        best = max(range(len(probs)), key=probs.__getitem__)
        label = pooler.labels[best] if len(probs) == len(pooler.labels) else None
        data.append({"index": place, "label": label, "probs": probs, "num_classes": len(probs)})
    found = {
        "id": request_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": usage_of(state, outputs),
    }
    return Response(msgspec.json.encode(found), headers=ignored_fields(unknown), media_type=JSON)
