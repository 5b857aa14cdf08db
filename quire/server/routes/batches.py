"""/v1/batches: requests from a stored file, run beside live traffic.

Running them is `server.batches.jobs`; the form of a line is `server.batches.lines`.
"""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quire.protocol.errors import InvalidRequestError
from quire.server.batches.jobs import BatchService
from quire.server.batches.records import OPEN, BatchRecord, random_id
from quire.server.body import convert, read_json
from quire.server.errors import HttpError
from quire.server.heads import ignored_fields, openapi_of
from quire.server.paging import page, page_size
from quire.server.schema.batches import BatchRequest, check_batch
from quire.server.schema.sampling import refuse
from quire.server.state import ServerState

router = APIRouter()

_MAX_PAGE = 100


def _service(http: Request) -> BatchService:
    service: BatchService = http.app.state.batches
    return service


@router.post("/v1/batches", openapi_extra=openapi_of(BatchRequest))
async def create(http: Request) -> Response:
    """Takes a batch over; it is checked and run after the answer."""
    state: ServerState = http.app.state.quire
    service = _service(http)
    body = await read_json(http, state.config)
    request, unknown = convert(body, BatchRequest, strict=state.config.strict)
    window_s, kept_s = check_batch(request)
    if not service.takes(request.endpoint):
        refuse(
            "endpoint",
            f"endpoint is {request.endpoint[:64]!r}; it must be a path under /v1 that takes requests, "
            "as /v1/chat/completions",
        )
    store = await service.store()
    file = await asyncio.to_thread(store.file, request.input_file_id)
    if file is None:
        refuse(
            "input_file_id",
            f"there is no file {request.input_file_id[:64]!r}; upload it to /v1/files first",
        )
    if file.purpose != "batch":
        refuse(
            "input_file_id",
            f"the file was uploaded for {file.purpose}; upload it with the purpose batch",
        )
    now = int(time.time())
    record = BatchRecord(
        id=random_id("batch_"),
        endpoint=request.endpoint,
        input_file_id=file.id,
        completion_window=request.completion_window,
        served=state.names[0],
        created_at=now,
        expires_at=now + window_s,
        metadata=request.metadata,
        expires_after_s=kept_s,
    )
    await asyncio.to_thread(store.add_batch, record)
    service.start()
    return JSONResponse(record.wire(), headers=ignored_fields(unknown))


@router.get("/v1/batches")
async def batches(http: Request) -> Response:
    """Batches, newest first; query limit, after."""
    store = await _service(http).store()
    query = http.query_params
    limit = page_size(query.get("limit"), default=20, most=_MAX_PAGE)
    try:
        found, has_more = await asyncio.to_thread(
            store.list_batches, limit=limit, after=query.get("after")
        )
    except KeyError:
        raise InvalidRequestError("after names no batch", param="after") from None
    return JSONResponse(page([one.wire() for one in found], has_more=has_more))


async def _found(http: Request, batch_id: str) -> BatchRecord:
    record = await _service(http).current(batch_id)
    if record is None:
        raise HttpError(
            404,
            f"there is no batch {batch_id[:64]!r}; see /v1/batches",
            type="NotFoundError",
            param="batch_id",
        )
    return record


@router.get("/v1/batches/{batch_id}")
async def batch(http: Request, batch_id: str) -> Response:
    """One batch as it stands."""
    return JSONResponse((await _found(http, batch_id)).wire())


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel(http: Request, batch_id: str) -> Response:
    """Ends a batch that has not ended; what has run keeps its results."""
    record = await _found(http, batch_id)
    if record.status not in OPEN or record.status == "finalizing":
        raise HttpError(
            409,
            f"the batch {record.id!r} is {record.status}; only one that runs can be cancelled",
            type="ConflictError",
            param="batch_id",
        )
    if record.status != "cancelling":
        await _service(http).cancel(record)
    return JSONResponse(record.wire())
