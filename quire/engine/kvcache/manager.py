"""Where the cache of each sequence lives: tables, prefix hits, forks and keys over the block pool.

Who runs, and who gives way when blocks run out, is decided in `engine.scheduler`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from quire.engine.kvcache.block_pool import BlockPool
from quire.engine.kvcache.hashing import BlockHasher
from quire.engine.kvcache.kinds import (
    Encoded,
    FullAttention,
    RecurrentState,
    SlidingWindow,
    common_hit,
    rules_of,
)
from quire.engine.kvcache.limits import check_length_fits, common_block_size
from quire.engine.kvcache.publishing import Publisher
from quire.engine.request import NEVER, Sequence
from quire.protocol.cache import NULL_BLOCK, CacheLayout
from quire.protocol.step import BlockCopy

COMING = -1
"""Stands for a hit that this plan makes: the next one can use it."""


class CacheManager:
    """Block tables of all sequences. Keys, hits and capacities count blocks of the smallest size.

    Groups of attention share that size; a block of recurrent states stands for a multiple of it.

    What nobody waits for is put off until `settle`: entering keys, and giving back the blocks of
    sequences that ended. Whatever could tell the difference settles first, so that only time is won.

    Raises SettingsError if block sizes do not go together, a kind is not served, or if one sequence
    of `max_model_len` tokens does not fit.
    """

    def __init__(
        self,
        layout: CacheLayout,
        *,
        max_model_len: int,
        max_chunk: int,
        hash_algo: str,
    ) -> None:
        self.block_size = common_block_size(layout)
        self._max_chunk = max_chunk
        self.rules = [rules_of(group, self.block_size) for group in layout.groups]
        check_length_fits(layout, max_model_len)
        self.pool = BlockPool(layout)
        self._hasher = BlockHasher(self.block_size, hash_algo)
        self._groups = range(len(layout.groups))
        self._sizes = [rules.block_size for rules in self.rules]
        self._encoded = [g for g in self._groups if isinstance(self.rules[g], Encoded)]
        self._unit = max(rules.keys_per_block for rules in self.rules)
        self._states = [g for g in self._groups if isinstance(self.rules[g], RecurrentState)]
        self._keys = Publisher(self.pool, self.rules, self._hasher, self.block_size)
        self._windows = [
            (g, rules) for g, rules in enumerate(self.rules) if isinstance(rules, SlidingWindow)
        ]
        full = [g for g in self._groups if isinstance(self.rules[g], FullAttention)]
        self._must_hold_first = self.pool.cached(full[0]).shards if full else None
        self._ended: list[tuple[Sequence | None, list[list[int]]]] = []

    # Starting a sequence.

    def begin_plan(self) -> None:
        """States that earlier plans compute can be found from now on."""
        if self._states:
            self._keys.publish()
            self._keys.fresh.clear()

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
        COMING if this very plan makes more: unlike keys and values, a state is read before a step's
        are written.
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
        if first in self._keys.first_keys:
            self._keys.publish()
        if must_hold is not None and first not in must_hold[first[0]]:
            return 0
        limit = max(self._hit_limit(sequence), 0)
        hit = common_hit(self.rules, keys, self._keys.findable, limit)
        if self._keys.fresh:
            soon = [self.pool.cached(g) for g in self._groups]
            return COMING if common_hit(self.rules, keys, soon, limit) > hit else hit
        return hit

    def _hit_limit(self, sequence: Sequence) -> int:
        request = sequence.request
        limit = (len(sequence.token_ids) - 1) // self.block_size
        if not request.is_forked:
            limit = min(limit, (sequence.num_prompt - 1) // self.block_size)
        if request.logprobs_at < sequence.num_prompt:
            limit = min(limit, (request.logprobs_at - 1) // self.block_size)
        return limit - limit % self._unit

    def awaited_key(self, sequence: Sequence, hit: int) -> bytes | None:
        """Key with which the hit would be a longer one; None if the sequence could not start from it."""
        if sequence.reads_cache and hit < self._hit_limit(sequence):
            return sequence.keys[hit + self._unit - 1]
        return None

    def next_key(self, sequence: Sequence) -> bytes | None:
        """Key that others could use next; None if the ids up to there are not all known."""
        num_blocks = (sequence.computed // self.block_size // self._unit + 1) * self._unit
        if num_blocks * self.block_size > len(sequence.token_ids):
            return None
        self._hasher.extend(sequence.keys, sequence.request, sequence.token_ids, num_blocks)
        return sequence.keys[num_blocks - 1]

    def fits(self, sequence: Sequence, hit: int) -> bool:
        """Whether blocks for all its known tokens could be had now, as far as counts tell."""
        length = sequence.length
        entries = zip(self._entries(sequence, length), self.rules, strict=True)
        needs = [count - hit // rules.keys_per_block for count, rules in entries]
        if self.pool.has_available_each(needs):
            return True
        self.settle()
        for g, (rules, need) in enumerate(zip(self.rules, needs, strict=True)):
            if not self.pool.has_available(g, need):
                live = rules.most_live(length, self._max_chunk)
                if live >= need or not self.pool.has_available(g, live):
                    return False
        return True

    def start(self, sequence: Sequence, hit: int, end: int) -> bool:
        """Tables for the first `end` tokens, the first `hit` blocks from the cache.

        False, with nothing held, if blocks run out.
        """
        if not hit:
            counts = self._entries(sequence, end)
            taken = self.pool.take_each(counts) or self._take_each(counts)
            if taken is None:
                return False
            sequence.tables = taken
            sequence.computed = 0
            sequence.capacity = -(-end // self.block_size) * self.block_size
            sequence.published = 0
            sequence.publish_at = self.block_size if sequence.request.writes_cache else NEVER
            return True
        tables: list[list[int]] = []
        for g in self._groups:
            step = self.rules[g].keys_per_block
            first = min(self.rules[g].first_needed(hit * self.block_size), hit // step)
            cached = self.pool.cached(g)
            found = [cached[key] for key in sequence.keys[(first + 1) * step - 1 : hit : step]]
            self.pool.share(g, found)
            tables.append([NULL_BLOCK] * first + found)
        sequence.tables = tables
        sequence.capacity = hit * self.block_size
        sequence.computed = sequence.capacity
        self._keys.mark(sequence, hit)
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
        counts = [
            max(count - len(table), 0)
            for count, table in zip(self._entries(sequence, end), sequence.tables, strict=True)
        ]
        grown = self.pool.take_each(counts) or self._take_each(counts)
        if grown is None:
            return None
        for table, fresh in zip(sequence.tables, grown, strict=True):
            table += fresh
        reach = -(-end // self.block_size) * self.block_size
        if reach > sequence.capacity:
            sequence.capacity = reach
        return grown

    def _entries(self, sequence: Sequence, end: int) -> list[int]:
        """How long each group's table is for the first `end` tokens."""
        entries = [-(-end // size) for size in self._sizes]
        for g in self._encoded:
            entries[g] = -(-sequence.request.encoder_len // self._sizes[g])
        return entries

    def _take_each(self, counts: list[int]) -> list[list[int]] | None:
        taken = self.pool.take_each(counts)
        if taken is None and self._ended:
            self.settle()
            taken = self.pool.take_each(counts)
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
            self._keys.publish()
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
        self._keys.publish()
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

    def known_length(self, sequence: Sequence, start: int) -> int:
        """Known tokens of a sequence that one step may compute from `start` on.

        Forks start from the states before the last prompt token, so their leader stops there once.
        """
        if self._states and not sequence.request.is_forked and start < sequence.num_prompt - 1:
            return sequence.num_prompt - 1
        return sequence.length

    def keep_states(
        self, parent: Sequence, copies: list[BlockCopy]
    ) -> list[tuple[int, int]] | None:
        """(group, block) with the states before the last prompt token, which this plan's copies make.

        The parent is planned to compute that token in its own blocks, so forks start from these. They
        are held once, for `release_sources`. None, with none taken, if blocks run out.
        """
        kept: list[tuple[int, int]] = []
        last = parent.num_prompt - 1
        for g in self._states:
            index, has_content = divmod(last, self._sizes[g])
            if not has_content:
                continue  # the block before is whole, and nobody writes to it
            counts = [int(other == g) for other in self._groups]
            taken = self._take_each(counts)
            if taken is None:
                self.release_sources(kept)
                return None
            kept.append((g, taken[g][0]))
            copies.append(BlockCopy(g, parent.tables[g][index], taken[g][0]))
        return kept

    def fork(self, parent: Sequence, child: Sequence, kept: Iterable[tuple[int, int]] = ()) -> None:
        """References for `child` on the parent's blocks of the prompt; its last token is open.

        kept  what `keep_states` gave.
        """
        self._keys.publish()
        child.computed = child.num_prompt - 1
        tables = []
        entries = self._entries(child, child.num_prompt)
        for g, (rules, num_blocks) in enumerate(zip(self.rules, entries, strict=True)):
            first = rules.first_needed(child.computed)
            tables.append([NULL_BLOCK] * first + parent.tables[g][first:num_blocks])
        for g, block in kept:
            tables[g][-1] = block
        for g, table in enumerate(tables):
            self.pool.share(g, table)
        child.tables = tables
        child.capacity = -(-child.num_prompt // self.block_size) * self.block_size
        child.keys = parent.keys[: child.num_prompt // self.block_size]
        self._keys.mark(child, child.computed // self.block_size)
        child.is_fork = True

    def start_fork(
        self, child: Sequence, end: int, copies: list[BlockCopy], sources: list[tuple[int, int]]
    ) -> bool:
        """Gives a fork its own last block and room for `end` tokens.

        Appends the copies to be made to `copies`, and the blocks to give back once the plan is
        made to `sources`. False, with the references kept, if blocks run out.
        """
        self.settle()
        last = [child.computed // size for size in self._sizes]
        last = [0 if g in self._encoded else n for g, n in enumerate(last)]  # read, never written
        own = [
            g in self._encoded or self.pool.num_references(g, child.tables[g][last[g]]) == 1
            for g in self._groups
        ]
        fresh: dict[int, int] = {}
        for g in (g for g in self._groups if not own[g]):
            blocks = self.pool.take(g, 1)
            if blocks is None:
                self.release_sources(fresh.items())
                return False
            fresh[g] = blocks[0]
        if end > child.capacity and self.grow(child, end) is None:
            self.release_sources(fresh.items())
            return False
        for g in self._groups:
            source = child.tables[g][last[g]]
            if own[g]:
                # Nobody else holds it: it is written in place, so it must not be found any more.
                self.pool.withdraw_block(g, source)
                continue
            child.tables[g][last[g]] = target = fresh[g]
            sources.append((g, source))
            if child.computed % self._sizes[g]:
                copies.append(BlockCopy(g, source, target))
        child.is_fork = False
        return True

    def release_sources(self, sources: Iterable[tuple[int, int]]) -> None:
        """Gives back the blocks that a plan copies from."""
        for g, block in sources:
            self.pool.release(g, (block,))

    # Keys.

    def publish_later(self, sequence: Sequence) -> None:
        """`publish` at the next `settle`, or as soon as somebody could find the keys."""
        self._keys.later(sequence)

    def publish(self, sequence: Sequence) -> None:
        """Publishes the keys of its full blocks whose tokens are planned and whose ids are known."""
        self.publish_later(sequence)
        self._keys.publish()

    def withdraw(self, sequence: Sequence, start: int) -> None:
        """Forgets the keys of its blocks from the one that holds token `start` on."""
        self._keys.publish()
        for key in sequence.keys[start // self.block_size :]:
            for g in self._groups:
                self.pool.withdraw(g, key)

    def check_invariants(self, sequences: Iterable[Sequence]) -> None:
        """Raises AssertionError unless the pool's accounts are those of the sequences' tables."""
        holders: list[Counter[int]] = [Counter() for _ in self._groups]
        for sequence in sequences:
            entries = self._entries(sequence, sequence.capacity)
            for g in self._groups if sequence.tables else ():
                assert len(sequence.tables[g]) == entries[g]
                holders[g].update(sequence.held_blocks(g))
        for _, tables in self._ended:
            for g, table in enumerate(tables):
                holders[g].update(block for block in table if block != NULL_BLOCK)
        self.pool.check_invariants(holders)
