"""A multipart upload, written to disk as it comes: bounded in size, never under the client's name.

The route is `server.routes.files`; where files are kept is `server.batches.store`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from quire.protocol.errors import InvalidRequestError
from quire.server.errors import ClientGone, HttpError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_NAME = 256
"""Characters of a file name that are kept."""

_MAX_FIELD_BYTES = 4096
_MAX_PARTS = 16
_MAX_HEADER_BYTES = 8192  # of one part
_CLOSE = {"Connection": "close"}


class Form:
    """Takes the parser's callbacks: small fields are kept, the part called `file` goes to `out`."""

    def __init__(self, out: BinaryIO, max_bytes: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._out = out
        self._max_bytes = max_bytes
        self._num_parts = 0
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._name: str | None = None
        self._is_file = False
        self._value = bytearray()

    def on_part_begin(self) -> None:
        """A part begins."""
        self._num_parts += 1
        if self._num_parts > _MAX_PARTS:
            raise InvalidRequestError(f"the form has more than {_MAX_PARTS} parts; send fewer")
        self._name, self._is_file, self._value = None, False, bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._grow(self._header[0], data[start:end])

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value."""
        self._grow(self._header[1], data[start:end])

    def _grow(self, into: bytearray, piece: bytes) -> None:
        into += piece
        if len(into) > _MAX_HEADER_BYTES:
            raise InvalidRequestError("a part of the form has a header that is too long")

    def on_header_end(self) -> None:
        """A header is whole."""
        name, value = self._header
        if name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            filename = options.get(b"filename")
            self._is_file = self._name == "file"
            if self._is_file:
                if self.filename is not None:
                    raise InvalidRequestError("the form has two files; send one", param="file")
                self.filename = _shown_name(filename or b"")
        self._header = (bytearray(), bytearray())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a part's content."""
        if self._is_file:
            self.size += end - start
            if self.size > self._max_bytes:
                raise too_large(self._max_bytes)
            self._out.write(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > _MAX_FIELD_BYTES:
            raise InvalidRequestError(
                f"the field {(self._name or '')[:64]!r} has more than {_MAX_FIELD_BYTES} bytes",
                param=(self._name or "")[:64] or None,
            )

    def on_part_end(self) -> None:
        """A part is whole."""
        if self._name is not None and not self._is_file:
            self.fields[self._name] = self._value.decode("utf-8", "replace")


def _shown_name(given: bytes) -> str:
    """The last part of the client's name for its file, for people to read; nothing is stored under it."""
    name = given.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(one for one in name if one.isprintable())[:MAX_NAME] or "upload"


def too_large(limit: int) -> HttpError:
    """A file over the limit, in bytes."""
    return HttpError(
        413,
        f"the file is larger than {limit} bytes; split it, or start with a larger --max-file-bytes",
        type="RequestEntityTooLarge",
        param="file",
        headers=_CLOSE,
    )


async def receive(request: Request, path: Path, *, max_bytes: int, patience_s: float) -> Form:
    """Reads the form, its file going to `path`, which is removed again if anything is wrong.

    Raises HttpError (408, 413, 415), InvalidRequestError or ClientGone.
    """
    media, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if media != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
        raise HttpError(
            415,
            "send the file as multipart/form-data with the parts file and purpose",
            type="UnsupportedMediaType",
        )
    announced = request.headers.get("content-length", "0")
    slack = _MAX_PARTS * (_MAX_HEADER_BYTES + _MAX_FIELD_BYTES)
    if announced.isdigit() and int(announced[:20]) > max_bytes + slack:
        raise too_large(max_bytes)
    try:
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
            form = Form(out, max_bytes)
            parser = MultipartParser(boundary, _callbacks(form))
            async for piece in _pieces(request, patience_s):
                await asyncio.to_thread(parser.write, piece)
            parser.finalize()
        if form.filename is None:
            raise InvalidRequestError("the form has no file; add the part file", param="file")
        return form
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, FormParserError):
            raise InvalidRequestError(f"the form cannot be read: {error}") from None
        raise


def _callbacks(form: Form) -> MultipartCallbacks:
    return {
        "on_part_begin": form.on_part_begin,
        "on_header_field": form.on_header_field,
        "on_header_value": form.on_header_value,
        "on_header_end": form.on_header_end,
        "on_part_data": form.on_part_data,
        "on_part_end": form.on_part_end,
    }


async def _pieces(request: Request, patience_s: float) -> AsyncGenerator[bytes, None]:
    while True:
        try:
            async with asyncio.timeout(patience_s):
                message = await request.receive()
        except TimeoutError:
            raise HttpError(
                408,
                f"the upload stood still for {patience_s:g} s; send it in one go",
                type="RequestTimeout",
                headers=_CLOSE,
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
