"""Pooled numbers as one body of raw bytes, with a header that says what lies where.

Other forms are `server.number_codes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from quire.server.number_codes import raw_bytes
from quire.server.pooled import Pooled
from quire.server.schema.common import Usage
from quire.server.schema.pooling import EmbeddingRequest


def bytes_answer(
    request: EmbeddingRequest,
    outputs: Sequence[Pooled],
    head: Mapping[str, Any],
    usage: Usage,
    headers: Mapping[str, str],
) -> Response:
    """The bytes of all results one after the other; with encoding "bytes", `metadata` has their places."""
    parts: list[bytes] = []
    places: list[dict[str, Any]] = []
    start = 0
    for index, output in enumerate(outputs):
        numbers = output.outputs.numbers
        parts.append(raw_bytes(numbers, request.embed_dtype, request.endianness))
        end = start + len(parts[-1])
        places.append(
            {
                "index": index,
                "embed_dtype": request.embed_dtype,
                "endianness": request.endianness,
                "start": start,
                "end": end,
                "shape": numbers.shape,
            }
        )
        start = end
    extra: dict[str, str] = {}
    if request.encoding_format == "bytes":
        described = {**head, "data": places, "usage": usage}
        extra["metadata"] = msgspec.json.encode(described).decode()
    return Response(
        b"".join(parts), headers={**headers, **extra}, media_type="application/octet-stream"
    )
