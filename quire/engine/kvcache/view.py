"""The blocks of a pool as a map to be drawn: free, cached, or in use by whom.

Nothing is kept for it: the work is done when somebody looks, and grows with the cells, not the blocks.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterable

from quire.engine.kvcache.block_pool import BlockPool
from quire.protocol.cache import NULL_BLOCK
from quire.protocol.engine_view import (
    CELL_CACHED,
    CELL_HELD,
    CELL_SHARED,
    MAX_CELLS,
    NUM_COLOURS,
    CacheMap,
)

_LEAST_BLOCKS = 256


def shown_blocks(used: int, num_blocks: int) -> int:
    """How many blocks a map shows: a power of two, so that it seldom changes its shape, or all."""
    size = _LEAST_BLOCKS
    while size < used:
        size *= 2
    return min(size, num_blocks)


def cache_map(pool: BlockPool, group: int, tables: Iterable[tuple[int, list[int]]]) -> CacheMap:
    """The map of one cache group.

    tables  (number of the request, block table) of every sequence that holds blocks.
    """
    layout = pool.layout
    num_blocks = layout.max_blocks(group)
    shown = shown_blocks(pool.extent(group), num_blocks)
    stride = -(-shown // MAX_CELLS)
    cells = array("H", map(bool, pool.let_go(group)[:shown:stride]))
    assert CELL_CACHED == 1
    shared = pool.shared(group)
    seen: set[int] = set()
    for number, table in tables:
        value = CELL_HELD + number % NUM_COLOURS
        for block in reversed(table[::stride]):
            # Prefixes are shared from the first block on, so what stands before a block that was
            # seen was seen too: each block is visited once, however many tables hold it.
            if block == NULL_BLOCK or block in seen:
                break
            seen.add(block)
            cells[block // stride] = value | CELL_SHARED if block in shared else value
    if sys.byteorder != "little":
        cells.byteswap()
    return CacheMap(
        kind=layout.groups[group].kind,
        num_blocks=num_blocks,
        block_size=layout.groups[group].block_size,
        blocks_per_cell=stride,
        cells=base64.b64encode(cells.tobytes()).decode(),
    )
