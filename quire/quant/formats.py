"""How numbers are stored: the formats that a weight and the cache can have.

Which setting means which format is for `quant.schemes`, multiplying for `ops`. What a format is byte for
byte stands in `ops.formats`, since its providers read it too.
"""

from __future__ import annotations

from quire.ops.formats import (
    BLOCK_COLUMNS,
    CACHE_FORMATS,
    DTYPE_BYTES,
    PLAIN,
    PLAIN_CACHE,
    CacheFormat,
    Format,
    parse,
)

__all__ = [
    "BLOCK_COLUMNS",
    "CACHE_FORMATS",
    "DTYPE_BYTES",
    "PLAIN",
    "PLAIN_CACHE",
    "CacheFormat",
    "Format",
    "parse",
]
