"""What the engine shows of itself to somebody who looks: its requests, and the blocks of its cache.

Made by `engine.scheduler.view` when it is asked for; drawn by the page of `server/ui`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

CELL_FREE, CELL_CACHED, CELL_HELD = 0, 1, 2
"""Values of a cell: nothing in it; kept for later prompts; from CELL_HELD on, in use."""

CELL_SHARED = 0x8000
"""Added to a cell in use that more than one sequence holds."""

MAX_CELLS = 4096
"""Cells of a map at most; in a larger cache each stands for several blocks."""

NUM_COLOURS = 0x7000
"""A request's cells hold CELL_HELD + its number modulo this."""


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    """One live request; counts are of tokens, summed over its sequences where they are of output.

    number    in order of arrival since the engine's start.
    computed  prompt tokens whose cache is filled, those found in it too.
    cached    prompt tokens that were found in the cache.
    """

    number: int
    state: Literal["running", "waiting"]
    sequences: int
    prompt: int
    computed: int
    cached: int
    output: int
    max_output: int
    blocks: int


class CacheMap(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks of one cache group, from the first to the end of the part that was needed so far.

    num_blocks       blocks that the group could have, shown or not.
    blocks_per_cell  above 1, a cell tells the state of one of its blocks.
    cells            one little-endian uint16 for each cell, base64.
    """

    kind: str
    num_blocks: int
    block_size: int
    blocks_per_cell: int
    cells: str


class EngineView(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of an engine: `requests` in the order of arrival, the first of them; `more` are left out."""

    requests: list[RequestView]
    more: int
    caches: list[CacheMap]


encode_view = msgspec.json.Encoder().encode
decode_view = msgspec.json.Decoder(EngineView).decode
