"""The files of the built-in page, read once: their bytes, types and ETags.

The files are `server/ui/`; what the page is told of the engine is `server.live_view`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "ui"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

PATHS = frozenset(
    "/" if one.name == "index.html" else f"/ui/{one.name}"
    for one in _FOLDER.iterdir()
    if one.suffix in _TYPES
)
"""Paths of the page and its files: nothing else of the folder is served."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Said with each file. A browser asks again each time, and gets 304 while the ETag holds."""


@dataclass(frozen=True)
class PageFile:
    """One file as it goes out."""

    data: bytes
    type: str
    etag: str


@cache
def page_file(path: str) -> PageFile | None:
    """The file behind one of PATHS; None for any other path."""
    if path not in PATHS:
        return None
    file = _FOLDER / ("index.html" if path == "/" else path.removeprefix("/ui/"))
    data = file.read_bytes()
    return PageFile(data, _TYPES[file.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')
