"""Where the cache of each sequence lives: tables, prefix hits, forks and keys over the block pool.

Who runs, and who gives way when blocks run out, is decided in `engine.scheduler`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from quire.engine.kvcache.block_pool import BlockPool
from quire.engine.kvcache.hashing import BlockHasher
from quire.engine.kvcache.kinds import FullAttention, SlidingWindow, rules_of
from quire.engine.kvcache.limits import check_length_fits
from quire.engine.request import NEVER, Sequence
from quire.protocol.cache import NULL_BLOCK, CacheLayout
from quire.protocol.errors import SettingsError
from quire.protocol.step import BlockCopy


class CacheManager:
    """Block tables of all sequences. All groups share one block size, so all tables have one length.

    What nobody waits for is put off until `settle`: entering keys, and giving back the blocks of
    sequences that ended. Whatever could tell the difference settles first, so that only time is won.

    Raises SettingsError if the groups differ in block size, have a kind that is not served, or if
    one sequence of `max_model_len` tokens does not fit.
    """

    def __init__(
        self,
        layout: CacheLayout,
        *,
        max_model_len: int,
        max_chunk: int,
        hash_algo: str,
    ) -> None:
        sizes = {group.block_size for group in layout.groups}
        if len(sizes) != 1:
            raise SettingsError(
                f"cache groups have block sizes {sorted(sizes)}; they must share one block_size"
            )
        self.block_size = sizes.pop()
        self._max_chunk = max_chunk
        self.rules = [rules_of(group) for group in layout.groups]
        check_length_fits(layout, max_model_len)
        self.pool = BlockPool(layout)
        self._hasher = BlockHasher(self.block_size, hash_algo)
        self._groups = range(len(layout.groups))
        self._windows = [
            (g, rules) for g, rules in enumerate(self.rules) if isinstance(rules, SlidingWindow)
        ]
        full = [g for g in self._groups if isinstance(self.rules[g], FullAttention)]
        self._must_hold_first = self.pool.cached(full[0]).shards if full else None
        self._unpublished: list[tuple[Sequence, list[list[int]], int, int]] = []
        self._first_keys: set[bytes] = set()
        self._ended: list[tuple[Sequence | None, list[list[int]]]] = []

    # Starting a sequence.

    def hash_prompt(self, sequence: Sequence) -> None:
        """Makes the keys of the prompt's full blocks now, which would else be made in a step."""
        request = sequence.request
        if request.writes_cache:
            num_blocks = sequence.num_prompt // self.block_size
            self._hasher.extend(sequence.keys, request, sequence.token_ids, num_blocks)

    def match(self, sequence: Sequence) -> int:
        """Blocks of the longest cached prefix that every group can use; 0 if it may not read.

        The last known token is never part of it. Prompt positions whose logprobs are still to be
        sent are not skipped either, nor the end of a prompt that is still to be forked.
        """
        if not sequence.reads_cache:
            return 0
        keys = sequence.keys
        # One more than can be read, where the last block is full: it will be published.
        num_blocks = len(sequence.token_ids) // self.block_size
        if len(keys) < num_blocks:
            self._hasher.extend(keys, sequence.request, sequence.token_ids, num_blocks)
        if not keys:
            return 0
        first, must_hold = keys[0], self._must_hold_first
        if first in self._first_keys:
            self._publish_all()
        if must_hold is not None and first not in must_hold[first[0]]:
            return 0
        return self._longest_hit(sequence)

    def _longest_hit(self, sequence: Sequence) -> int:
        keys = sequence.keys
        hit = max(self._hit_limit(sequence), 0)
        settled = 0
        while settled < len(self.rules) and hit:
            for g in self._groups:
                usable = self.rules[g].longest_hit(keys, self.pool.cached(g), hit)
                settled = settled + 1 if usable == hit else 1
                hit = usable
                if settled == len(self.rules):
                    break
        return hit

    def _hit_limit(self, sequence: Sequence) -> int:
        request = sequence.request
        limit = (len(sequence.token_ids) - 1) // self.block_size
        if not request.is_forked:
            limit = min(limit, (sequence.num_prompt - 1) // self.block_size)
        if request.logprobs_at < sequence.num_prompt:
            limit = min(limit, (request.logprobs_at - 1) // self.block_size)
        return limit

    def awaited_key(self, sequence: Sequence, hit: int) -> bytes | None:
        """Key of the block after the first `hit`; None if the sequence could not start from it."""
        if sequence.reads_cache and hit < self._hit_limit(sequence):
            return sequence.keys[hit]
        return None

    def next_key(self, sequence: Sequence) -> bytes | None:
        """Key of the block that the sequence fills next; None if its ids are not all known."""
        num_blocks = sequence.computed // self.block_size + 1
        if num_blocks * self.block_size > len(sequence.token_ids):
            return None
        self._hasher.extend(sequence.keys, sequence.request, sequence.token_ids, num_blocks)
        return sequence.keys[num_blocks - 1]

    def fits(self, sequence: Sequence, hit: int) -> bool:
        """Whether blocks for all its known tokens could be had now, as far as counts tell."""
        need = -(-sequence.length // self.block_size) - hit
        if self.pool.has_available_each(need):
            return True
        self.settle()
        for g, rules in enumerate(self.rules):
            if not self.pool.has_available(g, need):
                live = rules.most_live(sequence.length, self._max_chunk)
                if live >= need or not self.pool.has_available(g, live):
                    return False
        return True

    def start(self, sequence: Sequence, hit: int, end: int) -> bool:
        """Tables for the first `end` tokens, the first `hit` blocks from the cache.

        False, with nothing held, if blocks run out.
        """
        if not hit:
            count = -(-end // self.block_size)
            taken = self.pool.take_each(count) or self._take_each(count)
            if taken is None:
                return False
            sequence.tables = taken
            sequence.computed = 0
            sequence.capacity = count * self.block_size
            sequence.published = 0
            sequence.publish_at = self.block_size if sequence.request.writes_cache else NEVER
            return True
        tables: list[list[int]] = []
        for g in self._groups:
            first = self.rules[g].first_needed(hit * self.block_size)
            cached = self.pool.cached(g)
            found = [cached[key] for key in sequence.keys[first:hit]]
            self.pool.share(g, found)
            tables.append([NULL_BLOCK] * min(first, hit) + found)
        sequence.tables = tables
        sequence.capacity = hit * self.block_size
        sequence.computed = sequence.capacity
        self._mark_published(sequence, hit)
        if self.grow(sequence, end) is None:
            self.release(sequence)
            return False
        return True

    def grow(self, sequence: Sequence, end: int) -> list[list[int]] | None:
        """Appends blocks until the tables reach `end` tokens; what windows have passed goes back.

        Returns the new ids [groups][blocks]; None, with none taken, if blocks run out.
        """
        for g, rules in self._windows:
            first = rules.first_needed(sequence.computed)
            if first:
                self._pass_window(g, first, sequence)
        count = max(-(-end // self.block_size) - sequence.capacity // self.block_size, 0)
        grown = self.pool.take_each(count) or self._take_each(count)
        if grown is None:
            return None
        for table, fresh in zip(sequence.tables, grown, strict=True):
            table += fresh
        sequence.capacity += count * self.block_size
        return grown

    def _take_each(self, count: int) -> list[list[int]] | None:
        taken = self.pool.take_each(count)
        if taken is None and self._ended:
            self.settle()
            taken = self.pool.take_each(count)
        return taken

    def _pass_window(self, group: int, first: int, sequence: Sequence) -> None:
        table = sequence.tables[group]
        passed = []
        index = min(first, len(table)) - 1
        while index >= 0 and table[index] != NULL_BLOCK:
            passed.append(table[index])
            table[index] = NULL_BLOCK
            index -= 1
        if passed:
            self._ended.append((None, [passed if g == group else [] for g in self._groups]))

    def release(self, sequence: Sequence) -> None:
        """Gives back every block, the tail first, so that the tail of a chain is evicted first."""
        if sequence.tables:
            self._publish_all()
            for g, table in enumerate(sequence.tables):
                self.pool.release(g, reversed(table))
        self._clear(sequence)

    def release_later(self, sequence: Sequence) -> None:
        """`release` at the next `settle`, or when blocks are short."""
        if sequence.tables:
            # Held until then, since to take a long prompt's list apart costs time too.
            self._ended.append((sequence, sequence.tables))
        self._clear(sequence)

    def _clear(self, sequence: Sequence) -> None:
        sequence.tables = []
        sequence.capacity = 0
        sequence.computed = 0
        sequence.publish_at = NEVER
        sequence.plain_until = 0
        sequence.is_fork = False

    def settle(self) -> None:
        """Does what was put off."""
        self._publish_all()
        if self._ended:
            for g in self._groups:
                blocks: list[int] = []
                for _, tables in self._ended:
                    blocks += reversed(tables[g])
                self.pool.release(g, blocks)
            self._ended.clear()

    def reset(self) -> bool:
        """Forgets every key; False, with nothing changed, while any block is held."""
        self.settle()
        return self.pool.reset()

    # Forks.

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """References for `child` on the parent's blocks of the prompt; its last token is open."""
        self._publish_all()
        child.computed = child.num_prompt - 1
        num_blocks = -(-child.num_prompt // self.block_size)
        tables = []
        for g in self._groups:
            first = self.rules[g].first_needed(child.computed)
            table = [NULL_BLOCK] * first + parent.tables[g][first:num_blocks]
            self.pool.share(g, table)
            tables.append(table)
        child.tables = tables
        child.capacity = num_blocks * self.block_size
        child.keys = parent.keys[: child.num_prompt // self.block_size]
        self._mark_published(child, child.computed // self.block_size)
        child.is_fork = True

    def start_fork(
        self, child: Sequence, end: int, copies: list[BlockCopy], sources: list[tuple[int, int]]
    ) -> bool:
        """Gives a fork its own last block and room for `end` tokens.

        Appends the copies to be made to `copies`, and the blocks to give back once the plan is
        made to `sources`. False, with the references kept, if blocks run out.
        """
        self.settle()
        last = child.computed // self.block_size
        has_content = child.computed % self.block_size > 0
        own = [self.pool.num_references(g, child.tables[g][last]) == 1 for g in self._groups]
        fresh: list[list[int]] = []
        for g in self._groups:
            blocks = self.pool.take(g, 0 if own[g] else 1)
            if blocks is None:
                self._give_back(fresh)
                return False
            fresh.append(blocks)
        if end > child.capacity and self.grow(child, end) is None:
            self._give_back(fresh)
            return False
        for g in self._groups:
            source = child.tables[g][last]
            if own[g]:
                # Nobody else holds it: it is written in place, so it must not be found any more.
                self.pool.withdraw_block(g, source)
                continue
            target = fresh[g][0]
            child.tables[g][last] = target
            sources.append((g, source))
            if has_content:
                copies.append(BlockCopy(g, source, target))
        child.is_fork = False
        return True

    def _give_back(self, taken: list[list[int]]) -> None:
        for g, blocks in enumerate(taken):
            self.pool.release(g, blocks)

    def release_sources(self, sources: Iterable[tuple[int, int]]) -> None:
        """Gives back the blocks that a plan copies from."""
        for g, block in sources:
            self.pool.release(g, (block,))

    # Keys.

    def _mark_published(self, sequence: Sequence, num_blocks: int) -> None:
        sequence.published = num_blocks
        if sequence.request.writes_cache:
            sequence.publish_at = (num_blocks + 1) * self.block_size
        else:
            sequence.publish_at = NEVER

    def publish(self, sequence: Sequence) -> None:
        """Publishes the keys of its full blocks whose tokens are planned and whose ids are known."""
        self.publish_later(sequence)
        self._publish_all()

    def publish_later(self, sequence: Sequence) -> None:
        """`publish` at the next `settle`, or as soon as somebody could find the keys."""
        if sequence.computed < sequence.publish_at:
            return
        known = min(sequence.computed, len(sequence.token_ids)) // self.block_size
        first = sequence.published
        if known <= first:
            return
        keys = sequence.keys
        if not keys:
            self._hasher.extend(keys, sequence.request, sequence.token_ids, known)
        self._first_keys.add(keys[0])
        self._unpublished.append((sequence, sequence.tables, first, known))
        # Only a request that writes the cache comes here.
        sequence.published = known
        sequence.publish_at = (known + 1) * self.block_size

    def _publish_all(self) -> None:
        if not self._unpublished:
            return
        keys: list[bytes] = []
        blocks: list[list[int]] = [[] for _ in self._groups]
        for sequence, tables, first, known in self._unpublished:
            if len(sequence.keys) < known:
                self._hasher.extend(sequence.keys, sequence.request, sequence.token_ids, known)
            keys += sequence.keys[first:known]
            for group, table in zip(blocks, tables, strict=True):
                group += table[first:known]
        for g in self._groups:
            self.pool.publish(g, blocks[g], keys)
        self._unpublished.clear()
        self._first_keys.clear()

    def withdraw(self, sequence: Sequence, start: int) -> None:
        """Forgets the keys of its blocks from the one that holds token `start` on."""
        self._publish_all()
        for key in sequence.keys[start // self.block_size :]:
            for g in self._groups:
                self.pool.withdraw(g, key)

    def check_invariants(self, sequences: Iterable[Sequence]) -> None:
        """Raises AssertionError unless the pool's accounts are those of the sequences' tables."""
        holders: list[Counter[int]] = [Counter() for _ in self._groups]
        for sequence in sequences:
            for g in self._groups if sequence.tables else ():
                assert len(sequence.tables[g]) * self.block_size == sequence.capacity
                holders[g].update(sequence.held_blocks(g))
        for _, tables in self._ended:
            for g, table in enumerate(tables):
                holders[g].update(block for block in table if block != NULL_BLOCK)
        self.pool.check_invariants(holders)
