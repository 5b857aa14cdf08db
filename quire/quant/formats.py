"""How numbers are stored: the formats that a weight and the cache can have.

Which setting means which format is for `quant.schemes`, multiplying for `ops`. What a format is byte for
byte stands in `ops.formats`, since its providers read it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from quire.ops.formats import (
    BLOCK_COLUMNS,
    CACHE_FORMATS,
    DTYPE_BYTES,
    PLAIN,
    PLAIN_CACHE,
    SUPER_DEPTH,
    SUPER_FORMATS,
    CacheFormat,
    Format,
    Inputs,
    expert_formats,
    parse,
    super_format,
    super_runs,
)

__all__ = [
    "BLOCK_COLUMNS",
    "CACHE_FORMATS",
    "DTYPE_BYTES",
    "PLAIN",
    "SUPER_DEPTH",
    "PLAIN_CACHE",
    "SUPER_FORMATS",
    "CacheFormat",
    "CacheStorage",
    "Format",
    "FormatTable",
    "Formats",
    "Inputs",
    "LayerScales",
    "expert_formats",
    "parse",
    "super_format",
    "super_runs",
]


LayerScales = Mapping[int, tuple[float, float]]
"""By layer, what one code of its keys and one of its values stands for."""


@dataclass(frozen=True)
class CacheStorage:
    """How keys and values are kept.

    format  a key of CACHE_FORMATS. scales  of layers, for codes that have none of their own.
    """

    format: str = "plain"
    scales: LayerScales = field(default_factory=dict)


class Formats(Protocol):
    """Answers for the name of a parameter how it is kept; a Format is one answer for all."""

    def of(self, name: str) -> Format:
        """The format of the parameter `name`."""


@dataclass(frozen=True)
class FormatTable:
    """Formats by parameter name; what is not named is plain.

    The experts of a layer have one format, which `<part>.experts` names too.
    """

    by_name: Mapping[str, Format] = field(default_factory=dict)

    def of(self, name: str) -> Format:
        """The format of the parameter `name`."""
        return self.by_name.get(name, PLAIN)
