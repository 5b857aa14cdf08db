"""Blocks of all cache groups in one budget of slabs: who holds them, which are cached, which goes next.

Which blocks a sequence wants is `kvcache.manager`'s business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from quire.engine.kvcache.tables import NO_KEY, NO_SLAB, GroupBlocks, KeyMap
from quire.engine.request import NEVER
from quire.protocol.cache import NULL_BLOCK, CacheLayout


class BlockPool:
    """Reference counts, free blocks and the prefix cache of every group of a layout.

    A block is held (references > 0), cached (a key, no reference) or free. A held block is never
    evicted. Every method is O(1) for each block it is given; taking a slab from another group is
    O(blocks per slab).
    """

    def __init__(self, layout: CacheLayout) -> None:
        self.layout = layout
        self._groups = [
            GroupBlocks(g, layout.blocks_per_slab(g), layout.max_blocks(g))
            for g in range(len(layout.groups))
        ]
        self._owner = [NO_SLAB] * layout.num_slabs
        self._free_in: list[list[int]] = [[] for _ in range(layout.num_slabs)]
        self._held_in = [0] * layout.num_slabs
        self._empty = list(range(layout.num_slabs - 1, -1, -1))
        self._least_per_slab = min(g.per_slab for g in self._groups)
        self._clock = 0
        self._block_bytes = [group.block_bytes for group in layout.groups]

    # Taking and giving back.

    def take(self, group: int, count: int) -> list[int] | None:
        """`count` blocks, each held once; None, with nothing taken, if there are not so many."""
        g = self._groups[group]
        taken: list[int] = []
        while len(taken) < count:
            slab = g.open
            if slab < 0 or not self._free_in[slab]:
                if not self._open_slab(g):
                    evicted = self._evict(g, count - len(taken))
                    if evicted is None:
                        self.release(group, reversed(taken))
                        return None
                    taken += evicted
                    continue
                slab = g.open
            if self._held_in[slab] == 0:
                g.idle.pop(slab, None)
            free = self._free_in[slab]
            start = max(len(free) - count + len(taken), 0)
            fresh = free[start:]
            del free[start:]
            fresh.reverse()
            g.in_use += len(fresh)
            self._held_in[slab] += len(fresh)
            taken += fresh
        return taken

    def take_each(self, counts: Sequence[int]) -> list[list[int]] | None:
        """`take` of so many blocks for each group: [groups][count], or None with nothing taken."""
        taken: list[list[int]] = []
        free_in, held_in = self._free_in, self._held_in
        for g, count in zip(self._groups, counts, strict=True):
            slab = g.open
            if slab >= 0 and held_in[slab] and count <= len(free_in[slab]):
                # What most takings find, written out: enough free blocks in the open slab.
                free = free_in[slab]
                start = len(free) - count
                fresh = free[start:]
                del free[start:]
                fresh.reverse()
                g.in_use += count
                held_in[slab] += count
                taken.append(fresh)
                continue
            blocks = self.take(g.group, count)
            if blocks is None:
                for other, others in enumerate(taken):
                    self.release(other, reversed(others))
                return None
            taken.append(blocks)
        return taken

    def share(self, group: int, blocks: Iterable[int]) -> None:
        """One reference more on each block; NULL_BLOCK is passed over."""
        g = self._groups[group]
        since, extra = g.lru.since, g.extra
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            if since[block]:
                g.lru.remove(block)
                self._hold(g, block)
            else:
                extra[block] = extra.get(block, 0) + 1

    def release(self, group: int, blocks: Iterable[int]) -> None:
        """One reference less on each block; those given first are evicted first. Passes over NULL_BLOCK."""
        g = self._groups[group]
        going = [block for block in blocks if block != NULL_BLOCK]
        if g.extra:
            going = _drop_extra(g.extra, going)
        self._clock += 1
        g.in_use -= len(going)
        per_slab, held_in, key_of = g.per_slab, self._held_in, g.key_of
        free: list[int] = []
        for block in going:
            slab = block // per_slab
            held = held_in[slab] - 1
            held_in[slab] = held
            if held <= 0:
                assert not held, f"block {block} of group {group} is given back twice"
                g.idle[slab] = self._clock
            if key_of[block] is NO_KEY:
                free.append(block)
        if free:
            going = [block for block in going if key_of[block] is not NO_KEY]
            self._free_blocks(g, free)
        g.lru.extend(going, self._clock)

    def num_references(self, group: int, block: int) -> int:
        """How many tables hold the block."""
        g = self._groups[group]
        slab = block // g.per_slab
        is_held = self._owner[slab] == group and block not in self._free_in[slab]
        return 1 + g.extra.get(block, 0) if is_held and not g.lru.since[block] else 0

    def has_available(self, group: int, count: int) -> bool:
        """Whether `take` could give this group alone so many blocks."""
        g = self._groups[group]
        slabs = g.num_slabs + len(self._empty)
        if slabs * g.per_slab - g.in_use >= count:
            return True
        slabs += sum(len(other.idle) for other in self._groups if other is not g)
        return slabs * g.per_slab - g.in_use >= count

    def has_available_each(self, counts: Sequence[int]) -> bool:
        """Whether `take` could give each group alone so many blocks, taking no other's slab."""
        num_empty = len(self._empty)
        if max(counts) <= num_empty * self._least_per_slab:
            return True
        rooms = ((g.num_slabs + num_empty) * g.per_slab - g.in_use for g in self._groups)
        return all(room >= count for room, count in zip(rooms, counts, strict=True))

    # The prefix cache.

    def cached(self, group: int) -> KeyMap:
        """Key -> block of every published block; not to be changed."""
        return self._groups[group].block_of

    def publish(self, group: int, blocks: list[int], keys: list[bytes]) -> None:
        """Lets others find held blocks; NULL_BLOCK is passed over.

        The first block of a key stays the one that is found.
        """
        g = self._groups[group]
        key_of, shards = g.key_of, g.shards
        for block, key in zip(blocks, keys, strict=True):
            if block != NULL_BLOCK and key_of[block] is NO_KEY:
                shard = shards[key[0]]
                if key not in shard:
                    shard[key] = block
                    key_of[block] = key

    def withdraw(self, group: int, key: bytes) -> None:
        """Forgets a key, if it is known; a block that nobody holds becomes free."""
        block = self._groups[group].block_of.get(key, NULL_BLOCK)
        if block != NULL_BLOCK:
            self.withdraw_block(group, block)

    def withdraw_block(self, group: int, block: int) -> None:
        """Forgets the key of a block, if it has one."""
        g = self._groups[group]
        if g.key_of[block] is NO_KEY:
            return
        self._forget(g, block)
        if g.lru.since[block]:
            g.lru.remove(block)
            self._free_blocks(g, [block])

    def reset(self) -> bool:
        """Forgets every key; False, with nothing changed, while any block is held."""
        if self.blocks_in_use:
            return False
        for group, g in enumerate(self._groups):
            for block in list(g.block_of.values()):
                self.withdraw_block(group, block)
        return True

    # Figures.

    @property
    def blocks_in_use(self) -> int:
        """Held blocks of all groups."""
        return sum(g.in_use for g in self._groups)

    @property
    def usage(self) -> float:
        """Share of the budget's bytes in held blocks, 0 to 1."""
        sizes = zip(self._groups, self._block_bytes, strict=True)
        held = sum(g.in_use * size for g, size in sizes)
        return held / (self.layout.slab_bytes * self.layout.num_slabs)

    def extent(self, group: int) -> int:
        """One more than the highest block that the group could have taken so far."""
        g = self._groups[group]
        return g.top * g.per_slab

    def let_go(self, group: int) -> list[int]:
        """[N] above 0 for a cached block that nobody holds; not to be changed."""
        return self._groups[group].lru.since

    def shared(self, group: int) -> Mapping[int, int]:
        """Block -> references beyond the first, where there are several; not to be changed."""
        return self._groups[group].extra

    # Inside.

    def _hold(self, g: GroupBlocks, block: int) -> None:
        """First reference on a block that is in no free list."""
        slab = block // g.per_slab
        if self._held_in[slab] == 0:
            g.idle.pop(slab, None)
        self._held_in[slab] += 1
        g.in_use += 1

    def _forget(self, g: GroupBlocks, block: int) -> None:
        """Takes the key from a block that has one."""
        del g.block_of[g.key_of[block]]
        g.key_of[block] = NO_KEY

    def _open_slab(self, g: GroupBlocks) -> bool:
        """Opens a slab with free blocks, a partly free one first; False if there is none."""
        if g.partial:
            g.open, _ = g.partial.popitem()
            return True
        if not self._empty:
            return False
        self._give_slab(g, self._empty.pop())
        return True

    def _give_slab(self, g: GroupBlocks, slab: int) -> None:
        first = slab * g.per_slab
        self._free_in[slab] = list(range(first + g.per_slab - 1, first - 1, -1))
        self._owner[slab] = g.group
        g.num_slabs += 1
        g.top = max(g.top, slab + 1)
        g.open = slab

    def _evict(self, g: GroupBlocks, count: int) -> list[int] | None:
        """Makes room where most was let go longest ago: evicts own cached blocks, `count` at most, and
        returns them held; or opens an idle slab of another group for this one, and returns none.
        None if there is neither."""
        oldest, victim = NEVER, g
        for other in self._groups:
            if other is not g and other.idle:
                since = next(iter(other.idle.values()))
                if since < oldest:
                    oldest, victim = since, other
        blocks = g.lru.pop(count, oldest)
        if blocks:
            per_slab, held_in, key_of, shards = g.per_slab, self._held_in, g.key_of, g.shards
            for block in blocks:
                key = key_of[block]
                del shards[key[0]][key]
                key_of[block] = NO_KEY
                slab = block // per_slab
                if not held_in[slab]:
                    del g.idle[slab]
                held_in[slab] += 1
            g.in_use += len(blocks)
            return blocks
        if victim is g:
            return None
        self._take_slab(victim)
        self._give_slab(g, self._empty.pop())
        return []

    def _take_slab(self, g: GroupBlocks) -> None:
        """Empties the longest idle slab of a group."""
        slab = next(iter(g.idle))
        emptied = []
        for block in range(slab * g.per_slab, (slab + 1) * g.per_slab):
            if g.key_of[block] is not NO_KEY:
                self._forget(g, block)
                g.lru.remove(block)
                emptied.append(block)
        self._free_blocks(g, emptied)

    def _free_blocks(self, g: GroupBlocks, blocks: list[int]) -> None:
        """Puts blocks into their slabs' free lists; a slab that is free altogether returns."""
        per_slab, free_in = g.per_slab, self._free_in
        for block in blocks:
            slab = block // per_slab
            free = free_in[slab]
            free.append(block)
            if len(free) == per_slab:
                self._owner[slab] = NO_SLAB
                free_in[slab] = []
                self._empty.append(slab)
                g.num_slabs -= 1
                g.idle.pop(slab, None)
                g.partial.pop(slab, None)
                if g.open == slab:
                    g.open = NO_SLAB
            elif slab != g.open:
                g.partial[slab] = None

    # Checks.

    def held(self, group: int) -> Counter[int]:
        """References on each held block. Looks at every block: for checks."""
        g = self._groups[group]
        held: Counter[int] = Counter()
        for slab, owner in enumerate(self._owner):
            if owner == group:
                blocks = range(slab * g.per_slab, (slab + 1) * g.per_slab)
                for block in set(blocks).difference(self._free_in[slab]):
                    if not g.lru.since[block]:
                        held[block] = 1 + g.extra.get(block, 0)
        return held

    def check_invariants(self, holders: list[Counter[int]] | None = None) -> None:
        """Raises AssertionError if the accounts do not add up.

        holders  by group: how many tables hold each block; compared with the references if given.
        """
        assert len(set(self._empty)) == len(self._empty), "an empty slab is listed twice"
        for slab in self._empty:
            assert self._owner[slab] == NO_SLAB and self._held_in[slab] == 0
        for group, g in enumerate(self._groups):
            slabs = [s for s, owner in enumerate(self._owner) if owner == group]
            assert len(slabs) == g.num_slabs, f"group {group} counts its slabs wrongly"
            held = self.held(group)
            self._check_group(g, slabs, set(held))
            if holders is not None:
                assert held == holders[group], f"group {group}: references are not the tables'"
        owned = sum(g.num_slabs for g in self._groups)
        assert owned + len(self._empty) == self.layout.num_slabs, "a slab is lost"

    def _check_group(self, g: GroupBlocks, slabs: list[int], held: set[int]) -> None:
        group = g.group
        assert g.block_of == {key: block for block, key in enumerate(g.key_of) if key}
        assert g.in_use == len(held), f"group {group} counts its held blocks wrongly"
        assert g.extra.keys() <= held and all(n > 0 for n in g.extra.values())
        lru = list(g.lru)
        evictable = set(lru)
        assert len(evictable) == len(lru), f"a block of group {group} is evictable twice"
        assert evictable == {b for b, since in enumerate(g.lru.since) if since}
        assert evictable == {b for b, key in enumerate(g.key_of) if key and b not in held}
        idle = set()
        for slab in slabs:
            blocks = set(range(slab * g.per_slab, (slab + 1) * g.per_slab))
            free = self._free_in[slab]
            cached = blocks & evictable
            assert len(set(free)) == len(free) and blocks.issuperset(free)
            assert all(not g.key_of[block] for block in free), "a free block can be found"
            assert len(blocks & held) + len(cached) + len(free) == g.per_slab
            assert len(blocks & held) == self._held_in[slab], f"slab {slab} does not add up"
            assert len(free) < g.per_slab or g.open == slab, f"empty slab {slab} did not return"
            assert (slab in g.partial) == (bool(free) and slab != g.open)
            if not blocks & held:
                idle.add(slab)
        owned = {block // g.per_slab for block in held | evictable}
        assert owned <= set(slabs), f"group {group} holds blocks outside its slabs"
        assert set(g.idle) == idle, f"group {group} lists the wrong idle slabs"


def _drop_extra(extra: dict[int, int], blocks: list[int]) -> list[int]:
    """Takes back references beyond the first; returns the blocks whose last one is to go."""
    last = []
    for block in blocks:
        more = extra.get(block, 0)
        if not more:
            last.append(block)
        elif more == 1:
            del extra[block]
        else:
            extra[block] = more - 1
    return last
