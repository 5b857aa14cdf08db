"""The scheduler against a shadow cache under random load, and proof that the shadow sees mistakes.

`benchmarks/simulate.py` runs the same for longer; single rules are tested in `tests/unit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from quire.engine.kvcache import hashing, kinds
from quire.engine.kvcache.block_pool import BlockPool
from quire.engine.kvcache.kinds import SlidingWindow
from quire.engine.kvcache.limits import slabs_needed
from quire.engine.kvcache.manager import CacheManager
from quire.engine.request import Sequence
from quire.engine.scheduler.places import Places
from quire.engine.scheduler.plan import Draft, Flight
from quire.engine.scheduler.scheduler import Scheduler
from quire.protocol.cache import NULL_BLOCK, CacheGroup, CacheLayout
from tests.engine.simulation import MAX_MODEL_LEN, Simulation

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize("seed", range(20))
def test_random_load_gives_the_right_answers(seed: int) -> None:
    Simulation(seed).run(400)


def crossed(slab_bytes: int, window: int | None, spare: int) -> CacheLayout:
    """Groups of a decoder that looks at an encoder, in few slabs."""
    groups = [
        CacheGroup(kind="full", layers=(0,), block_size=8, bytes_per_token=3),
        CacheGroup(kind="cross", layers=(1,), block_size=8, bytes_per_token=2, max_tokens=20),
    ]
    if window is not None:
        groups.append(
            CacheGroup(
                kind="sliding_window", layers=(2,), block_size=8, bytes_per_token=2, window=window
            )
        )
    layout = CacheLayout(groups=tuple(groups), slab_bytes=slab_bytes, num_slabs=1)
    needed = slabs_needed(layout, MAX_MODEL_LEN)
    return msgspec.structs.replace(layout, num_slabs=needed + spare)


def test_what_encoders_read_is_seen_by_its_own_sequences_only() -> None:
    preemptions = encoded = requests = 0
    for seed in range(16):
        window = 13 if seed % 3 == 0 else None
        layout = crossed((24, 48, 96)[seed % 3], window, (0, 1, 2, 6)[seed % 4])
        simulation = Simulation(seed, layout=layout)
        simulation.run(300)
        preemptions += simulation.scheduler.stats().num_preemptions
        encoded += simulation.worker.num_encoded
        requests += simulation.num_added
    assert preemptions > 0 and encoded > requests / 2


def test_the_load_reaches_the_rare_cases() -> None:
    preemptions = failures = copies = hits = 0
    for seed in range(100, 110):
        simulation = Simulation(seed, check=False)
        simulation.run(300)
        stats = simulation.scheduler.stats()
        preemptions += stats.num_preemptions
        hits += stats.prefix_hits
        failures += simulation.num_failures
        copies += simulation.worker.num_copies
    assert min(preemptions, failures, copies, hits) > 0


# Planted faults: each one is a mistake that somebody could make.


def block_freed_early(patch: Patch) -> None:
    right = BlockPool.release

    def wrong(self: BlockPool, group: int, blocks: Iterable[int]) -> None:
        g = self._groups[group]
        held = [b for b in dict.fromkeys(blocks) if self.num_references(group, b)]
        for block in held:
            g.extra.pop(block, None)  # whoever else holds it
        right(self, group, held)

    patch.setattr(BlockPool, "release", wrong)


def growth_dropped(patch: Patch) -> None:
    right = Draft.finish

    def wrong(self: Draft, step: int, freed_rows: list[int]) -> Flight:
        del self.growth[1:]
        return right(self, step, freed_rows)

    patch.setattr(Draft, "finish", wrong)


def start_off_by_one(patch: Patch) -> None:
    right = CacheManager.start

    def wrong(self: CacheManager, sequence: Sequence, hit: int, end: int) -> bool:
        began = right(self, sequence, hit, end)
        for table in sequence.tables if hit else ():
            table[-2:] = reversed(table[-2:])
        return began

    patch.setattr(CacheManager, "start", wrong)


def stale_row_reused(patch: Patch) -> None:
    right = Draft.finish

    def wrong(self: Draft, step: int, freed_rows: list[int]) -> Flight:
        fresh = {new.row for new in self.new_rows}
        if step > 20:
            self.new_rows = [new for new in self.new_rows if new.row not in freed_rows]
        return right(self, step, [row for row in freed_rows if row not in fresh])

    patch.setattr(Draft, "finish", wrong)


def key_not_withdrawn(patch: Patch) -> None:
    patch.setattr(CacheManager, "withdraw", lambda self, sequence, start: None)


def key_of_partial_block(patch: Patch) -> None:
    right = CacheManager.publish_later

    def wrong(self: CacheManager, sequence: Sequence) -> None:
        computed = sequence.computed
        if sequence.tables:
            sequence.computed = min(sequence.capacity, len(sequence.token_ids))
        right(self, sequence)
        sequence.computed = computed

    patch.setattr(CacheManager, "publish_later", wrong)


def wrong_parent_in_key(patch: Patch) -> None:
    right = hashing._chain_raw

    def wrong(
        keys: list[bytes], parent: bytes, packed: bytes, place: int, extras: list[bytes], width: int
    ) -> None:
        for i, extra in enumerate(extras):
            right(keys, b"", packed, place + i * width, [extra], width)

    patch.setattr(hashing, "_chain_raw", wrong)


def salt_ignored(patch: Patch) -> None:
    patch.setattr(hashing, "root_key", lambda request: b"root")


def media_ignored(patch: Patch) -> None:
    patch.setattr(hashing, "media_extra", lambda request, start, block_size: b"")


def window_freed_too_early(patch: Patch) -> None:
    right = SlidingWindow.first_needed
    patch.setattr(SlidingWindow, "first_needed", lambda self, start: right(self, start + 8))


def window_hit_too_short(patch: Patch) -> None:
    def wrong(self: SlidingWindow, keys: list[bytes], cached: Any, limit: int) -> int:
        ends = [i + 1 for i in range(limit) if keys[i] in cached]
        return max(ends, default=0)

    def start(self: CacheManager, sequence: Sequence, hit: int, end: int) -> bool:
        for g in range(len(self.rules)):
            if any(key not in self.pool.cached(g) for key in sequence.keys[:hit]):
                self.pool.cached(g).update(dict.fromkeys(sequence.keys[:hit], 0))
        return right(self, sequence, hit, end)

    right = CacheManager.start
    patch.setattr(SlidingWindow, "longest_hit", wrong)
    patch.setattr(CacheManager, "start", start)


def copy_skipped(patch: Patch) -> None:
    right = Draft.finish

    def wrong(self: Draft, step: int, freed_rows: list[int]) -> Flight:
        self.copies = []
        return right(self, step, freed_rows)

    patch.setattr(Draft, "finish", wrong)


def no_reference_taken_on_fork(patch: Patch) -> None:
    right = CacheManager.fork

    def wrong(
        self: CacheManager, parent: Sequence, child: Sequence, kept: list[tuple[int, int]]
    ) -> None:
        right(self, parent, child, kept)
        for g, table in enumerate(child.tables):
            self.pool.release(g, table)

    def release(self: BlockPool, group: int, blocks: Iterable[int]) -> None:
        held = [b for b in blocks if b != NULL_BLOCK and self.num_references(group, b)]
        release_right(self, group, held)

    release_right = BlockPool.release
    patch.setattr(CacheManager, "fork", wrong)
    patch.setattr(BlockPool, "release", release)


def used_block_evicted(patch: Patch) -> None:
    right = BlockPool._evict

    def wrong(self: BlockPool, g: Any, count: int) -> list[int] | None:
        for block, references in sorted(self.held(g.group).items()):
            if references == 1:
                return [block]
        return right(self, g, count)

    patch.setattr(BlockPool, "_evict", wrong)


def pending_token_ignored(patch: Patch) -> None:
    right = Places.preempt

    def wrong(self: Places, sequence: Sequence) -> None:
        right(self, sequence)
        sequence.length = len(sequence.token_ids)

    patch.setattr(Places, "preempt", wrong)


def tokens_after_a_stop_kept(patch: Patch) -> None:
    right = Places.finish

    def wrong(self: Places, sequence: Sequence) -> None:
        right(self, sequence)
        sequence.valid_from = 0

    patch.setattr(Places, "finish", wrong)


def last_token_not_recomputed(patch: Patch) -> None:
    patch.setattr(CacheManager, "_hit_limit", lambda self, s: len(s.token_ids) // self.block_size)


def forgotten_logprobs(patch: Patch) -> None:
    right = CacheManager._hit_limit

    def wrong(self: CacheManager, sequence: Sequence) -> int:
        request = sequence.request
        request.logprobs_at, kept = sequence.num_prompt, request.logprobs_at
        limit = right(self, sequence)
        request.logprobs_at = kept
        return limit

    patch.setattr(CacheManager, "_hit_limit", wrong)


def endless_wait_for_a_key(patch: Patch) -> None:
    def wrong(self: Places, sequence: Sequence) -> None:
        sequence.busy_key = None

    patch.setattr(Places, "clear_busy", wrong)


def state_read_while_made(patch: Patch) -> None:
    patch.setattr(kinds.Earlier, "__contains__", lambda self, key: key in self._cached)


def fork_from_a_later_state(patch: Patch) -> None:
    patch.setattr(CacheManager, "keep_states", lambda self, parent, copies: [])


def state_of_last_token_dropped(patch: Patch) -> None:
    right = SlidingWindow.first_needed
    patch.setattr(kinds.RecurrentState, "first_needed", lambda self, start: right(self, start + 1))


def nonfinite_forgiven(patch: Patch) -> None:
    right = Scheduler._take_trouble

    def wrong(self: Scheduler, sequence: Sequence, start: int, error: Any, *rest: Any) -> list[Any]:
        return right(self, sequence, start, error, *rest) if error else []

    patch.setattr(Scheduler, "_take_trouble", wrong)


FAULTS: dict[Callable[[Patch], None], dict[str, Any]] = {
    block_freed_early: {},
    growth_dropped: {},
    start_off_by_one: {"caching": True},
    stale_row_reused: {},
    key_not_withdrawn: {"caching": True, "faults": 0.5},
    key_of_partial_block: {"caching": True},
    wrong_parent_in_key: {"caching": True, "hash_algo": "sha256"},
    salt_ignored: {"caching": True},
    media_ignored: {"caching": True},
    window_freed_too_early: {},
    window_hit_too_short: {"caching": True},
    copy_skipped: {},
    no_reference_taken_on_fork: {},
    used_block_evicted: {"caching": True},
    pending_token_ignored: {"depth": 2},
    tokens_after_a_stop_kept: {"depth": 2},
    last_token_not_recomputed: {"caching": True},
    forgotten_logprobs: {"caching": True},
    endless_wait_for_a_key: {"caching": True},
    state_read_while_made: {"caching": True},
    fork_from_a_later_state: {},
    state_of_last_token_dropped: {},
    nonfinite_forgiven: {"faults": 0.5},
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_the_shadow_sees_a_planted_fault(
    fault: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    fault(monkeypatch)
    fixed = FAULTS[fault]
    with pytest.raises((AssertionError, KeyError, IndexError, RuntimeError, ValueError)):
        for seed in range(60):
            Simulation(seed, check=False, **fixed).run(500)
