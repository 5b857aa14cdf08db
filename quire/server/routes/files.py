"""/v1/files: files that clients store, which are the inputs and outputs of batches.

Bytes and records are kept by `server.batches.store`.
"""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from quire.protocol.errors import InvalidRequestError
from quire.server.batches.jobs import BatchService
from quire.server.batches.records import PURPOSES, FileRecord, random_id
from quire.server.batches.store import Store
from quire.server.batches.upload import receive
from quire.server.errors import HttpError
from quire.server.paging import order_of, page, page_size
from quire.server.schema.batches import expiry_s
from quire.server.state import ServerState

router = APIRouter()

_MAX_PAGE = 10_000


def _service(http: Request) -> BatchService:
    service: BatchService = http.app.state.batches
    return service


@router.post("/v1/files")
async def upload(http: Request) -> Response:
    """Stores a file: parts `file` and `purpose`; `expires_after[anchor]` and `[seconds]` may be given."""
    state: ServerState = http.app.state.quire
    store = await _service(http).store()
    limit = state.config.max_file_bytes
    left = state.config.max_stored_bytes - await asyncio.to_thread(store.stored_bytes)
    if left <= 0:
        raise HttpError(
            413,
            f"the stored files have reached {state.config.max_stored_bytes} bytes; delete some, or "
            "start with a larger --max-stored-bytes",
            type="RequestEntityTooLarge",
            param="file",
            headers={"Connection": "close"},
        )
    file_id = random_id("file-")
    form = await receive(
        http,
        store.path_of(file_id),
        max_bytes=min(limit, left),
        patience_s=state.config.body_timeout,
    )
    try:
        now = int(time.time())
        record = FileRecord(
            id=file_id,
            bytes=form.size,
            created_at=now,
            filename=form.filename or "",
            purpose=_purpose(form.fields.get("purpose")),
            expires_at=_expires_at(form.fields, now),
        )
        await asyncio.to_thread(store.add_file, record)
    except BaseException:
        store.path_of(file_id).unlink(missing_ok=True)
        raise
    return JSONResponse(record.wire())


def _purpose(given: str | None) -> str:
    if given not in PURPOSES:
        shown = "missing" if given is None else repr(given[:64])
        raise InvalidRequestError(
            f"purpose is {shown}; it must be one of {', '.join(PURPOSES)}", param="purpose"
        )
    return given


def _expires_at(fields: dict[str, str], now: int) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    return now + expiry_s(anchor, seconds, "expires_after")


@router.get("/v1/files")
async def files(http: Request) -> Response:
    """Stored files, newest first; query limit, after, purpose, order."""
    store = await _service(http).store()
    query = http.query_params
    limit = page_size(query.get("limit"), default=_MAX_PAGE, most=_MAX_PAGE)
    newest_first = order_of(query.get("order"))
    try:
        found, has_more = await asyncio.to_thread(
            store.list_files,
            limit=limit,
            after=query.get("after"),
            purpose=query.get("purpose"),
            newest_first=newest_first,
        )
    except KeyError:
        raise InvalidRequestError("after names no stored file", param="after") from None
    return JSONResponse(page([one.wire() for one in found], has_more=has_more))


async def _found(http: Request, file_id: str) -> tuple[Store, FileRecord]:
    store = await _service(http).store()
    record = await asyncio.to_thread(store.file, file_id)
    if record is None:
        raise HttpError(
            404,
            f"there is no file {file_id[:64]!r}; see /v1/files",
            type="NotFoundError",
            param="file_id",
        )
    return store, record


@router.get("/v1/files/{file_id}")
async def file(http: Request, file_id: str) -> Response:
    """The object of one file."""
    _, record = await _found(http, file_id)
    return JSONResponse(record.wire())


@router.get("/v1/files/{file_id}/content")
async def content(http: Request, file_id: str) -> Response:
    """The bytes of one file, as an attachment that no browser renders."""
    store, record = await _found(http, file_id)
    headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    return FileResponse(
        store.path_of(record.id), media_type="application/octet-stream", headers=headers
    )


@router.delete("/v1/files/{file_id}")
async def delete(http: Request, file_id: str) -> Response:
    """Forgets a file; 409 while a batch reads it."""
    store, record = await _found(http, file_id)
    if not await asyncio.to_thread(store.delete_file, record.id):
        raise HttpError(
            409,
            f"the file {record.id!r} is read by a batch that has not ended; cancel that first",
            type="ConflictError",
            param="file_id",
        )
    return JSONResponse({"id": record.id, "object": "file", "deleted": True})
