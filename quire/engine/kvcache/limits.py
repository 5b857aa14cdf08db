"""How long a sequence a cache can always bring to its end, by counting slabs.

Which blocks it gets then is `kvcache.manager`'s business.
"""

from __future__ import annotations

from quire.engine.kvcache.kinds import rules_of
from quire.protocol.cache import CacheLayout
from quire.protocol.errors import SettingsError


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
