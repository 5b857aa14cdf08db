"""A cache cut into slabs: how it is cut, and how long a sequence it can always bring to its end.

Which blocks it gets then is `kvcache.manager`'s business.
"""

from __future__ import annotations

from quire.engine.kvcache.kinds import rules_of
from quire.protocol.cache import CacheGroup, CacheLayout
from quire.protocol.errors import SettingsError

_MAX_PADDING = 0.05
_MAX_BLOCKS_PER_SLAB = 64


def common_block_size(layout: CacheLayout) -> int:
    """Tokens of the smallest blocks. Raises SettingsError unless all groups of attention have these and
    those of states a multiple."""
    sizes = {group.block_size for group in layout.groups if group.kind != "recurrent"}
    states = {group.block_size for group in layout.groups if group.kind == "recurrent"}
    size = min(sizes or states)
    if len(sizes) > 1 or any(one % size for one in states):
        raise SettingsError(
            f"cache groups have block sizes {sorted(sizes | states)}; they must share one block_size, "
            "and the interval of recurrent states must be a multiple of it"
        )
    return size


def slabs_needed(layout: CacheLayout, length: int) -> int:
    """Slabs with which one sequence of `length` tokens always comes to its end, a block at a time.

    Raises SettingsError for a cache kind that is not served.
    """
    total = 0
    for g, group in enumerate(layout.groups):
        rules = rules_of(group)
        live = rules.most_live(length, group.block_size)
        per_slab = layout.blocks_per_slab(g)
        total += -(-live // per_slab)
        # Blocks of a moving window wander through their slabs and may lie across one more edge.
        if len(layout.groups) > 1 and per_slab > 1 and live < rules.blocks_needed(length):
            total += 1
    return total


def check_length_fits(layout: CacheLayout, max_model_len: int) -> None:
    """Raises SettingsError, naming the longest length that fits, if one sequence alone would not."""
    needed = slabs_needed(layout, max_model_len)
    if needed <= layout.num_slabs:
        return
    low, high = 0, max_model_len
    while high - low > 1:
        middle = (low + high) // 2
        if slabs_needed(layout, middle) <= layout.num_slabs:
            low = middle
        else:
            high = middle
    advice = f"set --max-model-len {low} or less, or give" if low else "give"
    raise SettingsError(
        f"max_model_len {max_model_len} needs {needed * layout.slab_bytes} bytes of KV cache and "
        f"there are {layout.num_slabs * layout.slab_bytes}; {advice} more with "
        f"--kv-cache-memory-bytes {needed * layout.slab_bytes}"
    )


def useful_bytes(groups: tuple[CacheGroup, ...], max_num_seqs: int, max_model_len: int) -> int:
    """The largest cache that `max_num_seqs` sequences of `max_model_len` tokens can fill."""
    total = 0
    for group in groups:
        tokens = group.max_tokens or max_model_len
        if group.window is not None:
            tokens = min(tokens, group.window + 2 * group.block_size)
        total += -(-tokens // group.block_size) * group.block_bytes
    return total * max_num_seqs


def plan_layout(groups: tuple[CacheGroup, ...], cache_bytes: int) -> CacheLayout:
    """Cuts a byte budget into slabs of the smallest size that wastes at most 5% in every group.

    Raises SettingsError if not even one slab fits.
    """
    largest = max(group.block_bytes for group in groups)
    slab_bytes = largest
    for count in range(1, _MAX_BLOCKS_PER_SLAB + 1):
        slab_bytes = count * largest
        if all(slab_bytes % group.block_bytes <= _MAX_PADDING * slab_bytes for group in groups):
            break
    num_slabs = cache_bytes // slab_bytes
    if num_slabs < 1:
        raise SettingsError(
            f"the KV cache has {cache_bytes} bytes, less than one slab of {slab_bytes}; "
            f"give --kv-cache-memory-bytes {slab_bytes} or more"
        )
    return CacheLayout(groups=groups, slab_bytes=slab_bytes, num_slabs=num_slabs)


def with_blocks(layout: CacheLayout, num_blocks: int) -> CacheLayout:
    """The layout with slabs for so many blocks of its first group."""
    slabs = -(-num_blocks // layout.blocks_per_slab(0))
    return CacheLayout(groups=layout.groups, slab_bytes=layout.slab_bytes, num_slabs=slabs)
