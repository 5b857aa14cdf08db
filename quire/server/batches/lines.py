"""The lines of a batch: what goes in, and the record that comes out of each.

Both `/v1/batches` and `quire run-batch` read and write them; the calls are `server.batches.caller`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from quire.server.batches.records import LineFault, random_id

MAX_ID = 512
"""Characters of a custom_id."""

_URL = re.compile(r"/[\w./-]{1,128}")
_BOM = b"\xef\xbb\xbf"


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a batch; `number` is its line in the file, from 1. `body` is a JSON object."""

    number: int
    custom_id: str
    url: str
    body: bytes


class BadLineError(Exception):
    """A line that cannot be run. `custom_id` is None where it could not be read."""

    def __init__(self, fault: LineFault, custom_id: str | None = None) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.custom_id = custom_id


class _Wire(msgspec.Struct):
    custom_id: Any = None
    method: Any = "POST"
    url: Any = None
    body: msgspec.Raw = msgspec.Raw(b"")


def read_line(number: int, raw: bytes, *, max_bytes: int) -> Line:
    """The request on a line. Raises BadLineError."""
    if len(raw) > max_bytes:
        raise _bad(number, "line_too_large", f"the line has {len(raw)} bytes; limit {max_bytes}")
    try:
        found = msgspec.json.decode(raw, type=_Wire)
    except (ValueError, RecursionError) as error:
        raise _bad(number, "invalid_json_line", f"the line is not a JSON object: {error}") from None
    custom_id = found.custom_id if isinstance(found.custom_id, str) else None
    if not custom_id or len(custom_id) > MAX_ID:
        raise _bad(
            number,
            "invalid_custom_id",
            f"custom_id must be a string of 1 to {MAX_ID} characters",
            "custom_id",
        )
    if found.method != "POST":
        raise _bad(number, "invalid_method", "method must be POST", "method", custom_id)
    if not isinstance(found.url, str) or not _URL.fullmatch(found.url):
        raise _bad(number, "invalid_url", "url must be the path of an endpoint", "url", custom_id)
    body = bytes(found.body)
    if _streams(number, body, custom_id):
        raise _bad(
            number,
            "invalid_body",
            "stream is set; the answers of a batch come whole, so leave it out",
            "body.stream",
            custom_id,
        )
    return Line(number=number, custom_id=custom_id, url=found.url, body=body)


def _streams(number: int, body: bytes, custom_id: str) -> bool:
    """Whether a body asks for a stream. Raises BadLineError if it is no JSON object that can be read."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _bad(number, "invalid_body", "body must be a JSON object", "body", custom_id)
    return bool(value.get("stream"))


def _bad(
    number: int, code: str, message: str, param: str | None = None, custom_id: str | None = None
) -> BadLineError:
    return BadLineError(LineFault(code=code, message=message, param=param, line=number), custom_id)


def raw_lines(path: Path, *, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes) of the lines that are not blank; one over `max_bytes` comes cut."""
    with open(path, "rb") as file:
        number = 0
        while raw := file.readline(max_bytes + 2):
            number += 1
            if number == 1:
                raw = raw.removeprefix(_BOM)
            whole = raw
            while not raw.endswith(b"\n") and (raw := file.readline(1 << 20)):
                pass  # the rest of a line that is too long anyway
            if whole.strip():
                yield number, whole.strip()


def answer_record(
    custom_id: str | None, status: int, body: bytes, *, prefixes: tuple[str, str], with_error: bool
) -> bytes:
    """The record of a line that was answered.

    prefixes    of the record's id and of the request's.
    with_error  whether `error` says again why a line failed, as vLLM's files do.
    """
    try:
        shown: Any = msgspec.Raw(body) if msgspec.json.decode(body) is not None else None
    except ValueError:
        shown = body.decode("utf-8", "replace") or None
    failed = status >= 400
    error = None
    if failed and with_error:
        error = shown if shown is not None else f"the line ended with status {status}"
    return msgspec.json.encode(
        {
            "id": random_id(prefixes[0]),
            "custom_id": custom_id,
            "response": {
                "status_code": status,
                "request_id": random_id(prefixes[1]),
                "body": None if failed and with_error else shown,
            },
            "error": error,
        }
    )


def fault_record(custom_id: str | None, code: str, message: str, *, prefix: str) -> bytes:
    """The record of a line that got no answer."""
    return msgspec.json.encode(
        {
            "id": random_id(prefix),
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": message},
        }
    )
