"""The two tables of the block pool that change all the time, built so that no single change is slow.

What their entries mean, and when they change, is `kvcache.block_pool`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping


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
    copied. A block may be in it once; whether it is, the pool knows.
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
        """Puts blocks that are not in it at the end, in the order given."""
        after, before, since = self._after, self._before, self.since
        last = before[self._end]
        for block in blocks:
            after[last] = block
            before[block] = last
            since[block] = clock
            last = block
        after[last] = self._end
        before[self._end] = last

    def remove(self, block: int) -> None:
        """Takes out a block that is in it."""
        after, before = self._after[block], self._before[block]
        self._after[before] = after
        self._before[after] = before
