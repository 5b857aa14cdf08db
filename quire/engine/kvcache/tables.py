"""The two tables of the block pool that change all the time, built so that no single change is slow.

What their entries mean, and when they change, is `kvcache.block_pool`'s business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping

NO_SLAB = -1
NO_KEY = b""


class KeyMap(MutableMapping[bytes, int]):
    """Key -> block, cut into 256 dicts by the key's first byte.

    A dict that outgrows its table is copied whole: 20,000 keys take 3 ms, in the middle of a step. Of
    256 small ones each is copied on its own. Keys are digests, so they spread evenly.
    """

    __slots__ = ("shards",)

    def __init__(self) -> None:
        self.shards: list[dict[bytes, int]] = [{} for _ in range(256)]

    def __contains__(self, key: bytes) -> bool:  # type: ignore[override]
        return key in self.shards[key[0]]

    def __getitem__(self, key: bytes) -> int:
        return self.shards[key[0]][key]

    def __setitem__(self, key: bytes, block: int) -> None:
        self.shards[key[0]][key] = block

    def __delitem__(self, key: bytes) -> None:
        del self.shards[key[0]][key]

    def __iter__(self) -> Iterator[bytes]:
        for shard in self.shards:
            yield from shard

    def __len__(self) -> int:
        return sum(len(shard) for shard in self.shards)


class EvictionOrder:
    """Blocks in the order in which they go, with the time each was let go: a doubly linked list.

    It lies in lists with an entry for each block and one for the ends, so nothing is ever allocated or
    copied. `since` is 0 for a block that is not in it.
    """

    __slots__ = ("since", "_after", "_before", "_end")

    def __init__(self, max_blocks: int) -> None:
        self.since = [0] * (max_blocks + 1)
        self._end = max_blocks
        self._after = [max_blocks] * (max_blocks + 1)
        self._before = [max_blocks] * (max_blocks + 1)

    def __iter__(self) -> Iterator[int]:
        block = self._after[self._end]
        while block != self._end:
            yield block
            block = self._after[block]

    def oldest(self) -> int:
        """The block that goes first; -1 if there is none."""
        block = self._after[self._end]
        return block if block != self._end else -1

    def extend(self, blocks: list[int], clock: int) -> None:
        """Puts blocks that are not in it at the end, in the order given; `clock` is positive."""
        after, before, since = self._after, self._before, self.since
        last = before[self._end]
        for block in blocks:
            assert not since[block], f"block {block} is given back twice"
            after[last] = block
            before[block] = last
            since[block] = clock
            last = block
        after[last] = self._end
        before[self._end] = last

    def pop(self, count: int, clock: int) -> list[int]:
        """Takes out the blocks that go first, `count` at most, none let go later than `clock`."""
        after, since = self._after, self.since
        popped: list[int] = []
        block = after[self._end]
        while block != self._end and len(popped) < count and since[block] <= clock:
            popped.append(block)
            since[block] = 0
            block = after[block]
        after[self._end] = block
        self._before[block] = self._end
        return popped

    def remove(self, block: int) -> None:
        """Takes out a block that is in it."""
        after, before = self._after[block], self._before[block]
        self._after[before] = after
        self._before[after] = before
        self.since[block] = 0


class GroupBlocks:
    """The blocks of one cache group. A block that is neither free nor in `lru` is held.

    extra    held block -> references beyond the first, for those that have several.
    key_of   [N] each block's key in the prefix cache, NO_KEY if it has none; block_of is the inverse.
    lru      cached blocks that nobody holds, in eviction order.
    idle     slabs without a held block but with cached ones -> when that began, oldest first.
    partial  slabs with free blocks, apart from the open one.
    open     the slab from which blocks are taken first.
    in_use   how many blocks are held.
    top      one more than the highest slab that it ever had.
    """

    __slots__ = (
        "group",
        "per_slab",
        "extra",
        "key_of",
        "block_of",
        "shards",
        "lru",
        "idle",
        "partial",
        "open",
        "num_slabs",
        "in_use",
        "top",
    )

    def __init__(self, group: int, per_slab: int, max_blocks: int) -> None:
        self.group = group
        self.per_slab = per_slab
        self.extra: dict[int, int] = {}
        self.key_of = [NO_KEY] * max_blocks
        self.block_of = KeyMap()
        self.shards = self.block_of.shards
        self.lru = EvictionOrder(max_blocks)
        self.idle: OrderedDict[int, int] = OrderedDict()
        self.partial: dict[int, None] = {}
        self.open = NO_SLAB
        self.num_slabs = 0
        self.in_use = 0
        self.top = 0
