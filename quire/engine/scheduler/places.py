"""Where every sequence is: waiting, running on a row, or set apart to run alone; and who gives way.

Who runs next is decided in `scheduler.scheduler`; blocks are `kvcache.manager`'s.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from quire.engine.kvcache.manager import CacheManager
from quire.engine.request import NEVER, Request, Sequence
from quire.engine.scheduler.queue import OrderedSequences
from quire.protocol.outputs import EngineStats
from quire.protocol.step import BlockCopy


class Places:
    """The queues and rows of one scheduler. A sequence is in one place at a time.

    waiting  sequences without a row, in order.
    running  sequences with a row, in order; the last one gives way first.
    alone    sequences that run by themselves, one after the other; the first may have a row, and
             is then among `running` too.
    forks    waiting sequences that hold references on their leader's blocks, oldest first.
    busy     key of the block that a running sequence fills next -> that sequence.
    """

    def __init__(self, cache: CacheManager, max_num_seqs: int) -> None:
        self.cache = cache
        self.requests: dict[str, Request] = {}
        self.waiting = OrderedSequences()
        self.running = OrderedSequences()
        self.alone: list[Sequence] = []
        self.forks: dict[Sequence, None] = {}
        self.busy: dict[bytes, Sequence] = {}
        self.free_rows = list(range(max_num_seqs - 1, -1, -1))
        self.freed_rows: list[int] = []
        self.num_preemptions = 0
        self._num_rows = max_num_seqs

    def gauges(self, stats: EngineStats) -> EngineStats:
        """The stats with what is so now."""
        stats.num_running = len(self.running)
        stats.num_waiting = len(self.waiting) + sum(one.row < 0 for one in self.alone)
        stats.num_preemptions = self.num_preemptions
        stats.cache_usage = self.cache.pool.usage
        stats.blocks_in_use = self.cache.pool.blocks_in_use
        return stats

    # Taking and leaving a row.

    def seat(self, sequence: Sequence) -> None:
        """Gives a free row to a sequence, which its queue must let go of itself."""
        sequence.row = self.free_rows.pop()
        self.running.add(sequence)

    def preempt(self, sequence: Sequence) -> None:
        """Back to waiting; its blocks stay findable until somebody needs them."""
        self.num_preemptions += 1
        self.running.remove(sequence)
        self._drop(sequence)
        if not sequence.alone_until:
            self.waiting.add(sequence)

    def start_over(self, sequence: Sequence, step: int) -> None:
        """Takes a sequence out of its queue; no result of a step before `step` counts for it."""
        self._unqueue(sequence)
        self._drop(sequence)
        sequence.length = len(sequence.token_ids)
        sequence.valid_from = step

    def finish(self, sequence: Sequence) -> None:
        """A sequence ends: results in flight are not for it. Its blocks go when the cache settles."""
        self._unqueue(sequence)
        self._leave(sequence)
        self.cache.release_later(sequence)
        if sequence.alone_until:
            self.alone.remove(sequence)
            sequence.alone_until = 0
        sequence.valid_from = NEVER
        request = sequence.request
        del request.sequences[sequence.index]
        request.unfinished.discard(sequence.index)
        if not request.unfinished:
            del self.requests[request.request_id]

    def _unqueue(self, sequence: Sequence) -> None:
        if sequence.row >= 0:
            self.running.remove(sequence)
        elif not sequence.alone_until:
            self.waiting.remove(sequence)

    def _drop(self, sequence: Sequence) -> None:
        """Lets go of row, blocks and key."""
        self._leave(sequence)
        self.cache.release(sequence)

    def _leave(self, sequence: Sequence) -> None:
        if sequence.row >= 0:
            self.free_rows.append(sequence.row)
            self.freed_rows.append(sequence.row)
            sequence.row = -1
        sequence.quiet_until = 0
        if sequence.busy_key is not None:
            self.clear_busy(sequence)
        if sequence.is_fork:
            del self.forks[sequence]

    # Running alone.

    def set_apart(self, sequence: Sequence, until: int) -> None:
        """It runs alone until it has computed `until` tokens. It must be in no queue."""
        sequence.alone_until = until
        self.alone.append(sequence)
        self.alone.sort(key=lambda other: other.order)

    def set_apart_for_good(self, sequence: Sequence) -> None:
        """A preempted sequence for which no slab was free, though blocks were: it runs alone to its
        end, from nothing."""
        if sequence.alone_until:
            sequence.alone_until = NEVER
        else:
            self.waiting.remove(sequence)
            self.set_apart(sequence, NEVER)

    def rejoin(self) -> None:
        """The first of those that run alone runs with the others again."""
        sequence = self.alone.pop(0)
        sequence.alone_until = 0
        sequence.is_suspect = False

    # Forks, and who gives way.

    def fork(self, leader: Sequence, copies: list[BlockCopy]) -> None:
        """Makes the other sequences of a request whose prompt is planned to the end, by the plan with
        these copies. Where blocks are short they compute the prompt themselves."""
        request = leader.request
        request.is_forked = True
        others = sorted(request.unfinished - {leader.index})
        kept = self.cache.keep_states(leader, copies) if others else None
        for index in others:
            child = request.make_sequence(index)
            child.num_cached = leader.num_cached
            if kept is not None:
                self.cache.fork(leader, child, kept)
                self.forks[child] = None
            self.waiting.add(child)
        self.cache.release_sources(kept or ())

    def strip(self, request: Request) -> None:
        """Takes the references of a request's waiting forks; they compute the prompt themselves."""
        for sequence in request.sequences.values():
            if sequence.is_fork:
                self._strip_one(sequence)

    def strip_all(self) -> None:
        """Takes the references of all waiting forks."""
        while self.forks:
            self._strip_one(next(reversed(self.forks)))

    def _strip_one(self, fork: Sequence) -> None:
        del self.forks[fork]
        self.cache.release(fork)

    def make_room(self, sequence: Sequence) -> bool:
        """Takes blocks from a waiting fork or from the youngest; False if that is `sequence` itself.

        One that runs alone takes from everybody else.
        """
        if self.forks:
            self._strip_one(next(reversed(self.forks)))
            return True
        items = self.running.items
        victim = items[-1] if items else sequence
        if victim is sequence and sequence.alone_until and len(items) > 1:
            victim = items[-2]
        if victim is sequence:
            return False
        self.preempt(victim)
        return True

    def vacate(self) -> None:
        """Takes row and blocks from everybody; each computes what it had again when its turn comes."""
        self.strip_all()
        for sequence in reversed(list(self.running.items)):
            self.preempt(sequence)

    # Who computes which block.

    def mark_busy(self, sequence: Sequence) -> None:
        """Notes the key that a sequence will fill next, so that others wait for it."""
        self.clear_busy(sequence)
        if sequence.publish_at <= len(sequence.token_ids):
            key = self.cache.next_key(sequence)
            if key is not None and self.busy.setdefault(key, sequence) is sequence:
                sequence.busy_key = key

    def clear_busy(self, sequence: Sequence) -> None:
        """It fills no block that others could wait for."""
        if sequence.busy_key is not None:
            del self.busy[sequence.busy_key]
            sequence.busy_key = None

    # Checks.

    def check_invariants(self) -> None:
        """Raises AssertionError if a sequence is in no place or in two, or the accounts are wrong."""
        live = [s for request in self.requests.values() for s in request.sequences.values()]
        places = Counter(self.waiting.items) + Counter(self.running.items)
        places += Counter(s for s in self.alone if s.row < 0)
        assert places == Counter(live), "a sequence is in no queue or in two"
        for queue in (self.waiting.items, self.running.items):
            assert all(a.order < b.order for a, b in pairwise(queue))
        rows = [s.row for s in self.running.items]
        assert sorted(rows + self.free_rows) == list(range(self._num_rows)), "a row is lost"
        for sequence in live:
            assert sequence.pending >= 0
            assert 0 <= sequence.computed <= sequence.capacity or not sequence.tables
            assert sequence.computed < sequence.length <= sequence.final_len
            assert (sequence.alone_until > 0) == (sequence in self.alone)
            assert sequence.is_fork == (sequence in self.forks)
            if sequence.row < 0:
                assert bool(sequence.tables) == sequence.is_fork, "a waiting one holds blocks"
                assert sequence.busy_key is None
        assert all(s.busy_key == key and s.row >= 0 for key, s in self.busy.items())
        for request in self.requests.values():
            assert set(request.sequences) <= request.unfinished
            assert request.is_forked is False or set(request.sequences) == request.unfinished
        self.cache.check_invariants(live)
