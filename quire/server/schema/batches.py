"""The wire form of a request for a batch, and checks that need no stored file.

Stored records and answers are `server.batches.records`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from quire.server.schema.sampling import refuse

MAX_METADATA = 16
"""Entries of metadata."""

_WINDOW = re.compile(r"([1-9]\d{0,3})([mhd])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}
_MAX_WINDOW_S = 30 * 86400
_MIN_KEPT_S, _MAX_KEPT_S = 3600, 30 * 86400


class BatchRequest(msgspec.Struct, kw_only=True):
    """A request as sent; null fields are left out before."""

    input_file_id: str = ""
    endpoint: str = ""
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None
    output_expires_after: dict[str, Any] | None = None


def check_batch(request: BatchRequest) -> tuple[int, int | None]:
    """Seconds that the batch may take, and that its outputs are kept. Raises InvalidRequestError."""
    found = _WINDOW.fullmatch(request.completion_window)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else 0
    if not 0 < seconds <= _MAX_WINDOW_S:
        refuse(
            "completion_window",
            f"completion_window is {request.completion_window[:32]!r}; write a time up to 30d, as in 24h",
        )
    metadata = request.metadata or {}
    if len(metadata) > MAX_METADATA:
        refuse("metadata", f"metadata has {len(metadata)} entries; the limit is {MAX_METADATA}")
    for name, value in metadata.items():
        if len(name) > 64 or len(value) > 512:
            refuse("metadata", "metadata has a key over 64 or a value over 512 characters")
    return seconds, _kept_s(request.output_expires_after)


def _kept_s(given: dict[str, Any] | None) -> int | None:
    if given is None:
        return None
    return expiry_s(given.get("anchor"), given.get("seconds"), "output_expires_after")


def expiry_s(anchor: Any, seconds: Any, name: str) -> int:
    """Seconds after its making that a file is kept. Raises InvalidRequestError."""
    if anchor != "created_at":
        refuse(name, f"{name}.anchor must be created_at")
    whole = isinstance(seconds, (int, str)) and re.fullmatch(r"\d{1,9}", str(seconds))
    if not whole or not _MIN_KEPT_S <= int(seconds) <= _MAX_KEPT_S:
        refuse(name, f"{name}.seconds must be between {_MIN_KEPT_S} and {_MAX_KEPT_S}")
    return int(seconds)
