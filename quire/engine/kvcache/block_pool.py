"""Blocks of all cache groups in one budget of slabs: who holds them, which are cached, which goes next.

Which blocks a sequence wants is `kvcache.manager`'s business.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from quire.engine.kvcache.tables import EvictionOrder, KeyMap
from quire.protocol.cache import NULL_BLOCK, CacheLayout

_NO_SLAB = -1
_NO_KEY = b""


class _Group:
    """The blocks of one cache group.

    refs      [N] references on each block.
    key_of    [N] each block's key in the prefix cache, empty if it has none; block_of is the inverse.
    lru       cached blocks that nobody holds, in eviction order.
    idle      slabs without a held block but with cached ones -> when that began, oldest first.
    partial   slabs with free blocks, apart from the open one.
    open      the slab from which blocks are taken first.
    """

    __slots__ = (
        "per_slab",
        "refs",
        "key_of",
        "block_of",
        "lru",
        "idle",
        "partial",
        "open",
        "num_slabs",
        "in_use",
    )

    def __init__(self, per_slab: int, max_blocks: int) -> None:
        self.per_slab = per_slab
        self.refs = [0] * max_blocks
        self.key_of = [_NO_KEY] * max_blocks
        self.block_of = KeyMap()
        self.lru = EvictionOrder(max_blocks)
        self.idle: OrderedDict[int, int] = OrderedDict()
        self.partial: dict[int, None] = {}
        self.open = _NO_SLAB
        self.num_slabs = 0
        self.in_use = 0


class BlockPool:
    """Reference counts, free blocks and the prefix cache of every group of a layout.

    A block is held (references > 0), cached (a key, no reference) or free. A held block is never
    evicted. Every method is O(1) for each block it is given; taking a slab from another group is
    O(blocks per slab).
    """

    def __init__(self, layout: CacheLayout) -> None:
        self.layout = layout
        self._groups = [
            _Group(layout.blocks_per_slab(g), layout.max_blocks(g))
            for g in range(len(layout.groups))
        ]
        self._owner = [_NO_SLAB] * layout.num_slabs
        self._free_in: list[list[int]] = [[] for _ in range(layout.num_slabs)]
        self._held_in = [0] * layout.num_slabs
        self._empty = list(range(layout.num_slabs - 1, -1, -1))
        self._clock = 0
        self._block_bytes = [group.block_bytes for group in layout.groups]

    # Taking and giving back.

    def take(self, group: int, count: int) -> list[int] | None:
        """`count` blocks, each held once; None, with nothing taken, if there are not so many."""
        g = self._groups[group]
        slab = g.open
        if slab >= 0 and self._held_in[slab] and count <= len(self._free_in[slab]):
            return self._take_open(g, slab, count)
        return self._take_anywhere(g, group, count)

    def _take_anywhere(self, g: _Group, group: int, count: int) -> list[int] | None:
        """`take`, where the open slab has not so many free blocks."""
        taken: list[int] = []
        while len(taken) < count:
            slab = g.open
            if slab < 0 or not self._free_in[slab]:
                if not self._open_slab(g, group):
                    block = self._evict(g, group)
                    if block < 0:
                        self.release(group, reversed(taken))
                        return None
                    taken.append(block)
                    self._hold(g, block)
                    continue
                slab = g.open
            if self._held_in[slab] == 0:
                g.idle.pop(slab, None)
            taken += self._take_open(g, slab, min(count - len(taken), len(self._free_in[slab])))
        return taken

    def _take_open(self, g: _Group, slab: int, count: int) -> list[int]:
        """`count` of the free blocks of the open slab, which is not listed as idle."""
        free, refs = self._free_in[slab], g.refs
        start = len(free) - count
        taken = free[start:]
        del free[start:]
        taken.reverse()
        for block in taken:
            refs[block] = 1
        self._held_in[slab] += count
        g.in_use += count
        return taken

    def take_each(self, count: int) -> list[list[int]] | None:
        """`take` of as many blocks for every group: [groups][count], or None with nothing taken."""
        taken: list[list[int]] = []
        for group in range(len(self._groups)):
            blocks = self.take(group, count)
            if blocks is None:
                for other, others in enumerate(taken):
                    self.release(other, reversed(others))
                return None
            taken.append(blocks)
        return taken

    def share(self, group: int, blocks: Iterable[int]) -> None:
        """One reference more on each block; NULL_BLOCK is passed over."""
        g = self._groups[group]
        refs = g.refs
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            if refs[block]:
                refs[block] += 1
            else:
                g.lru.remove(block)
                self._hold(g, block)

    def release(self, group: int, blocks: Iterable[int]) -> None:
        """One reference less on each block; those given first are evicted first. Passes over NULL_BLOCK."""
        g = self._groups[group]
        refs, key_of, per_slab, held_in = g.refs, g.key_of, g.per_slab, self._held_in
        self._clock += 1
        cached: list[int] = []
        num_let_go = 0
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            left = refs[block] - 1
            refs[block] = left
            if left:
                assert left > 0, f"block {block} of group {group} is given back twice"
                continue
            num_let_go += 1
            slab = block // per_slab
            held = held_in[slab] - 1
            held_in[slab] = held
            if key_of[block]:
                cached.append(block)
            else:
                self._free_block(g, block)
            if held == 0 and self._owner[slab] == group:
                g.idle[slab] = self._clock
        g.in_use -= num_let_go
        if cached:
            g.lru.extend(cached, self._clock)

    def num_references(self, group: int, block: int) -> int:
        """How many tables hold the block."""
        return self._groups[group].refs[block]

    def has_available(self, group: int, count: int) -> bool:
        """Whether `take` could give this group alone so many blocks."""
        g = self._groups[group]
        slabs = g.num_slabs + len(self._empty)
        if slabs * g.per_slab - g.in_use >= count:
            return True
        slabs += sum(len(other.idle) for other in self._groups if other is not g)
        return slabs * g.per_slab - g.in_use >= count

    def has_available_each(self, count: int) -> bool:
        """Whether `take` could give each group alone so many blocks, taking no other's slab."""
        num_empty = len(self._empty)
        short = [
            g for g in self._groups if (g.num_slabs + num_empty) * g.per_slab - g.in_use < count
        ]
        return not short

    # The prefix cache.

    def cached(self, group: int) -> KeyMap:
        """Key -> block of every published block; not to be changed."""
        return self._groups[group].block_of

    def publish(self, group: int, blocks: list[int], keys: list[bytes]) -> None:
        """Lets others find held blocks; NULL_BLOCK is passed over.

        The first block of a key stays the one that is found.
        """
        g = self._groups[group]
        key_of, shards = g.key_of, g.block_of.shards
        for block, key in zip(blocks, keys, strict=True):
            if block != NULL_BLOCK and not key_of[block]:
                shard = shards[key[0]]
                if key not in shard:
                    shard[key] = block
                    key_of[block] = key

    def withdraw(self, group: int, key: bytes) -> None:
        """Forgets a key, if it is known; a block that nobody holds becomes free."""
        g = self._groups[group]
        block = g.block_of.pop(key, None)
        if block is None:
            return
        g.key_of[block] = _NO_KEY
        if g.refs[block] == 0:
            g.lru.remove(block)
            self._free_block(g, block)

    def withdraw_block(self, group: int, block: int) -> None:
        """Forgets the key of a block, if it has one."""
        key = self._groups[group].key_of[block]
        if key:
            self.withdraw(group, key)

    def reset(self) -> bool:
        """Forgets every key; False, with nothing changed, while any block is held."""
        if self.blocks_in_use:
            return False
        for group, g in enumerate(self._groups):
            for key in list(g.block_of):
                self.withdraw(group, key)
        return True

    # Figures.

    @property
    def blocks_in_use(self) -> int:
        """Held blocks of all groups."""
        return sum(g.in_use for g in self._groups)

    @property
    def usage(self) -> float:
        """Share of the budget's bytes in held blocks, 0 to 1."""
        held = sum(g.in_use * size for g, size in zip(self._groups, self._block_bytes, strict=True))
        return held / (self.layout.slab_bytes * self.layout.num_slabs)

    # Inside.

    def _hold(self, g: _Group, block: int) -> None:
        """First reference on a block that is in no free list."""
        slab = block // g.per_slab
        if self._held_in[slab] == 0:
            g.idle.pop(slab, None)
        self._held_in[slab] += 1
        g.refs[block] = 1
        g.in_use += 1

    def _open_slab(self, g: _Group, group: int) -> bool:
        """Opens a slab with free blocks, a partly free one first; False if there is none."""
        if g.partial:
            g.open, _ = g.partial.popitem()
            return True
        if not self._empty:
            return False
        self._give_slab(g, group, self._empty.pop())
        return True

    def _give_slab(self, g: _Group, group: int, slab: int) -> None:
        first = slab * g.per_slab
        self._free_in[slab] = list(range(first + g.per_slab - 1, first - 1, -1))
        self._owner[slab] = group
        g.num_slabs += 1
        g.open = slab

    def _evict(self, g: _Group, group: int) -> int:
        """A block from what was let go longest ago: an own cached one, or out of an idle slab of
        another group, which then changes hands. -1 if there is neither."""
        block = g.lru.oldest()
        oldest, victim = g.lru.since[block] if block >= 0 else None, g
        for other in self._groups:
            if other is not g and other.idle:
                since = next(iter(other.idle.values()))
                if oldest is None or since < oldest:
                    oldest, victim = since, other
        if oldest is None:
            return -1
        if victim is g:
            g.lru.remove(block)
            del g.block_of[g.key_of[block]]
            g.key_of[block] = _NO_KEY
            return block
        self._take_slab(victim)
        self._give_slab(g, group, self._empty.pop())
        return self._free_in[g.open].pop()

    def _take_slab(self, g: _Group) -> None:
        """Empties the longest idle slab of a group."""
        slab = next(iter(g.idle))
        for block in range(slab * g.per_slab, (slab + 1) * g.per_slab):
            key = g.key_of[block]
            if key:
                g.key_of[block] = _NO_KEY
                del g.block_of[key]
                g.lru.remove(block)
                self._free_block(g, block)

    def _free_block(self, g: _Group, block: int) -> None:
        """Puts a block into its slab's free list; a slab that is free altogether returns."""
        slab = block // g.per_slab
        free = self._free_in[slab]
        free.append(block)
        if len(free) == g.per_slab:
            self._owner[slab] = _NO_SLAB
            self._free_in[slab] = []
            self._empty.append(slab)
            g.num_slabs -= 1
            g.idle.pop(slab, None)
            g.partial.pop(slab, None)
            if g.open == slab:
                g.open = _NO_SLAB
        elif slab != g.open:
            g.partial[slab] = None

    # Checks.

    def check_invariants(self, holders: list[Counter[int]] | None = None) -> None:
        """Raises AssertionError if the accounts do not add up.

        holders  by group: how many tables hold each block; compared with the references if given.
        """
        assert len(set(self._empty)) == len(self._empty), "an empty slab is listed twice"
        for slab in self._empty:
            assert self._owner[slab] == _NO_SLAB and self._held_in[slab] == 0
        for group, g in enumerate(self._groups):
            slabs = [s for s, owner in enumerate(self._owner) if owner == group]
            assert len(slabs) == g.num_slabs, f"group {group} counts its slabs wrongly"
            self._check_group(group, g, slabs)
            if holders is not None:
                held = {block: n for block, n in enumerate(g.refs) if n}
                assert held == dict(holders[group]), (
                    f"group {group}: references are not the tables'"
                )
        owned = sum(g.num_slabs for g in self._groups)
        assert owned + len(self._empty) == self.layout.num_slabs, "a slab is lost"

    def _check_group(self, group: int, g: _Group, slabs: list[int]) -> None:
        assert g.block_of == {key: block for block, key in enumerate(g.key_of) if key}
        assert g.in_use == sum(1 for n in g.refs if n > 0)
        assert all(n >= 0 for n in g.refs)
        lru = list(g.lru)
        evictable = set(lru)
        assert len(evictable) == len(lru), f"a block of group {group} is evictable twice"
        for block in lru:
            assert g.refs[block] == 0, f"block {block} of group {group} is held and evictable"
        assert evictable == {b for b, key in enumerate(g.key_of) if key and not g.refs[b]}
        idle = set()
        seen = 0
        for slab in slabs:
            blocks = range(slab * g.per_slab, (slab + 1) * g.per_slab)
            free = self._free_in[slab]
            held = sum(1 for block in blocks if g.refs[block] > 0)
            cached = sum(1 for block in blocks if block in evictable)
            assert len(set(free)) == len(free) and all(block in blocks for block in free)
            assert all(g.refs[block] == 0 and not g.key_of[block] for block in free)
            assert held + cached + len(free) == g.per_slab, f"slab {slab} does not add up"
            assert held == self._held_in[slab]
            assert held + cached > 0 or g.open == slab, f"empty slab {slab} did not return"
            assert (slab in g.partial) == (bool(free) and slab != g.open)
            if held == 0:
                idle.add(slab)
            seen += held + cached
        assert set(g.idle) == idle, f"group {group} lists the wrong idle slabs"
        assert seen == g.in_use + len(lru), f"group {group} holds blocks outside its slabs"
        ages = [g.lru.since[block] for block in lru]
        assert ages == sorted(ages)
        assert list(g.idle.values()) == sorted(g.idle.values())
