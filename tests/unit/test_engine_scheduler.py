"""Who runs, how much, who gives way, and what the front hears: one rule a test.

The rules under random load are in `tests/engine/test_simulation.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from quire.engine.request import NEVER, Request
from quire.engine.scheduler.policy import chunk_len
from quire.engine.scheduler.queue import OrderedSequences
from quire.protocol.errors import InvalidRequestError, SettingsError
from quire.protocol.outputs import SequenceUpdate
from quire.protocol.params import PoolingParams, SamplingParams
from quire.protocol.request import EngineRequest
from quire.protocol.step import StepPlan
from tests.engine.simulation import EOS, Trouble
from tests.unit.scheduler_driver import FULL, Driver, layout_of, window_group


def prompt(length: int, kind: int = 1) -> list[int]:
    """A prompt that shares no block with one of another kind."""
    return [kind, *(1 + (i * 7 + kind) % 39 for i in range(length - 1))]


def started(plan: StepPlan) -> list[str]:
    return [new.request_id for new in plan.new_rows]


FREE: dict[str, Any] = {"ignore_eos": True, "eos_token_ids": (EOS,)}

# Queues and chunks.


def test_a_queue_keeps_its_order() -> None:
    source = EngineRequest(request_id="r", prompt_token_ids=[1], params=SamplingParams(n=9))
    params = source.params
    assert isinstance(params, SamplingParams)
    request = Request(source, params, rank=0, number=0, max_model_len=9, caching=False, now_s=0.0)
    sequences = [request.make_sequence(i) for i in range(9)]
    queue = OrderedSequences()
    for i in (4, 0, 8, 2, 6, 1, 7, 3, 5):
        queue.add(sequences[i])
    assert queue.items == sequences and len(queue) == 9
    queue.remove_all(sequences[:2])
    queue.remove_all([sequences[4], sequences[6]])
    queue.remove(sequences[8])
    assert [s.index for s in queue.items] == [2, 3, 5, 7]
    with pytest.raises((AssertionError, IndexError)):
        queue.remove(sequences[8])


@pytest.mark.parametrize(
    ("start", "wanted", "budget", "longest", "expected"),
    [
        (0, 5, 20, 0, 5),
        (0, 20, 20, 0, 20),
        (0, 50, 20, 0, 16),
        (3, 50, 20, 0, 13),
        (3, 50, 8, 0, 5),
        (3, 50, 7, 0, 7),
        (0, 50, 1, 0, 1),
        (0, 50, 30, 17, 16),
        (0, 50, 30, 5, 5),
        (0, 50, 8, 0, 8),
    ],
)
def test_chunks_end_on_a_block_boundary_if_a_block_fits(
    start: int, wanted: int, budget: int, longest: int, expected: int
) -> None:
    assert chunk_len(start, wanted, budget, longest, 8) == expected


def test_a_long_prompt_goes_in_chunks_within_the_budget() -> None:
    driver = Driver(max_num_batched_tokens=20)
    driver.add("a", prompt(50), max_tokens=2, **FREE)
    assert [driver.step().counts for _ in range(4)] == [[16], [16], [18], [1]]
    driver.assert_right("a")


def test_running_requests_come_before_waiting_ones() -> None:
    driver = Driver(max_num_batched_tokens=16)
    driver.add("a", prompt(8, 1), max_tokens=8, **FREE)
    driver.step()
    driver.add("b", prompt(40, 2), max_tokens=8, **FREE)
    plan = driver.step()
    assert plan.counts == [1, 8] and started(plan) == ["b"]
    driver.run()
    driver.assert_right("a", "b")


def test_a_threshold_leaves_room_for_others() -> None:
    driver = Driver(max_num_batched_tokens=64, long_prefill_token_threshold=16)
    driver.add("a", prompt(60, 1), max_tokens=1, **FREE)
    driver.add("b", prompt(60, 2), max_tokens=1, **FREE)
    assert driver.step().counts == [16, 16]


def test_the_token_budget_may_change_between_steps_but_not_above_its_limit() -> None:
    driver = Driver(max_num_batched_tokens=32)
    driver.add("a", prompt(200), max_tokens=1, **FREE)
    counts = []
    for budget in (8, 1000, 0, -3):
        driver.scheduler.token_budget = budget
        counts.append(driver.step().num_tokens)
    assert counts == [8, 32, 1, 1]


def test_rows_are_kept_reused_and_announced_as_freed() -> None:
    driver = Driver(max_num_seqs=1)
    driver.add("a", prompt(8, 1), max_tokens=2, **FREE)
    driver.add("b", prompt(8, 2), max_tokens=1, **FREE)
    first, second, third = driver.step(), driver.step(), driver.step()
    assert first.rows == second.rows == third.rows == [0]
    assert not second.new_rows and not second.freed_rows
    assert third.freed_rows == [0] and started(third) == ["b"]


def test_priority_goes_before_arrival() -> None:
    for policy, expected in (("fcfs", ["a", "b", "c"]), ("priority", ["c", "a", "b"])):
        driver = Driver(policy=policy, max_num_seqs=1)
        for name, priority in (("a", 0), ("b", 0), ("c", -1)):
            driver.add(name, prompt(8), max_tokens=1, priority=priority, **FREE)
        assert [started(driver.step())[0] for _ in range(3)] == expected


# Blocks run out.


def test_the_youngest_gives_way_and_comes_back_with_what_it_had() -> None:
    driver = Driver(layout_of(num_slabs=8), max_model_len=64)
    driver.add("old", prompt(24, 1), max_tokens=30, **FREE)
    driver.add("young", prompt(24, 2), max_tokens=30, **FREE)
    driver.run()
    driver.assert_right("old", "young")
    stats = driver.scheduler.stats()
    assert stats.num_preemptions >= 1
    assert stats.prefix_hits > 0, "resuming finds blocks that were let go"
    ends = [name for name, _ in driver.heard]
    assert ends.index("old") == 0


def test_the_lowest_priority_gives_way() -> None:
    driver = Driver(layout_of(num_slabs=8), max_model_len=64, policy="priority")
    driver.add("low", prompt(24, 1), max_tokens=30, priority=5, **FREE)
    driver.add("high", prompt(24, 2), max_tokens=30, priority=1, **FREE)
    driver.step()
    waiting = []
    while driver.finish_of("high") is None:
        driver.step()
        waiting.append(driver.scheduler.stats().num_waiting)
    assert max(waiting) == 1 and driver.finish_of("low") is None
    driver.run()
    driver.assert_right("low", "high")


def test_a_lone_request_of_the_greatest_length_comes_to_its_end() -> None:
    for groups in ((FULL,), (FULL, window_group(20)), (window_group(5),)):
        for depth in (1, 2):
            layout = layout_of(*groups, num_slabs=13)
            driver = Driver(layout, max_model_len=64, max_num_batched_tokens=64)
            driver.add("a", prompt(30), max_tokens=None, **FREE)
            driver.run(depth)
            driver.assert_right("a")
            assert len(driver.tokens("a")) == 34


def test_a_lone_request_whose_slabs_are_scattered_starts_over_in_an_empty_cache() -> None:
    window = window_group(24, bytes_per_token=1)
    layout = layout_of(FULL, window, num_slabs=19)
    driver = Driver(layout, max_model_len=128, max_num_batched_tokens=8)
    driver.add("a", prompt(127), max_tokens=1, **FREE)
    pool = driver.scheduler._cache.pool
    # Somebody else fills up each slab in which the request has taken a window block.
    others: list[list[int]] = []
    while driver.scheduler.stats().num_preemptions == 0:
        plan = driver.plan()
        if len(driver.flights) > 1 or plan is None:
            driver.collect()
        if plan is not None:
            others.append(pool.take(1, 3) or [])
        if len(others) > 5:
            pool.release(1, others.pop(0))
    for blocks in others:
        pool.release(1, blocks)
    (sequence,) = driver.scheduler._places.alone
    assert sequence.alone_until == NEVER
    driver.add("b", prompt(20, 2), max_tokens=1, **FREE)
    driver.run()
    driver.assert_right("a", "b")
    assert driver.scheduler.stats().num_preemptions == 1


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingsError, match="--max-model-len 64"):
        Driver(layout_of(num_slabs=8), max_model_len=65)
    for name in ("max_num_seqs", "max_num_batched_tokens", "max_model_len"):
        with pytest.raises(SettingsError, match=name):
            Driver(**{name: 0})
    with pytest.raises(SettingsError, match="lifo"):
        Driver(policy="lifo")


@pytest.mark.parametrize("depth", [1, 2])
def test_requests_that_can_never_run_are_refused(depth: int) -> None:
    driver = Driver(max_model_len=32)
    driver.add("a", prompt(8), max_tokens=3, **FREE)
    with pytest.raises(InvalidRequestError, match="in use"):
        driver.add("a", prompt(8))
    for ids in ([], prompt(32), [1 << 31]):
        with pytest.raises(InvalidRequestError, match="prompt"):
            driver.add("b", ids)
    with pytest.raises(InvalidRequestError, match="max_tokens"):
        driver.add("b", prompt(8), max_tokens=2, resume_ids=[[1, 2]])
    pooling = EngineRequest(request_id="c", prompt_token_ids=[1] * 33, params=PoolingParams())
    with pytest.raises(InvalidRequestError, match="33 tokens"):
        driver.scheduler.add(pooling)
    driver.run(depth)
    driver.assert_right("a")


# Ends.


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 40, "eos_token_ids": (EOS,)},
        {"max_tokens": 40, "eos_token_ids": (EOS,), "ignore_eos": True},
        {"max_tokens": 40, "eos_token_ids": tuple(range(0, 40, 2))},
        {"max_tokens": 40, "eos_token_ids": (1,), "stop_token_ids": list(range(0, 40, 3))},
        {"max_tokens": 40, "eos_token_ids": (EOS,), "ignore_eos": True, "stop_token_ids": [EOS]},
        {"max_tokens": 40, "eos_token_ids": tuple(range(0, 40, 2)), "min_tokens": 9},
        {"max_tokens": 1},
        {"max_tokens": None},
    ],
)
def test_stop_rules(fields: dict[str, Any], depth: int) -> None:
    driver = Driver(max_model_len=64)
    for i in range(6):
        driver.add(f"r{i}", prompt(5 + i, i + 1), **fields)
    driver.run(depth)
    driver.assert_right(*(f"r{i}" for i in range(6)))


def test_the_first_update_tells_of_times_and_cached_tokens_and_no_other_does() -> None:
    driver = Driver()
    driver.add("a", prompt(20), max_tokens=3, **FREE)
    driver.run()
    driver.add("b", prompt(20), max_tokens=3, **FREE)
    driver.run()
    for name, cached in (("a", 0), ("b", 16)):
        first, *rest = driver.heard[name, 0]
        assert first.num_cached_tokens == cached
        assert first.queued_s is not None and first.scheduled_s is not None
        assert 0 < first.queued_s <= first.scheduled_s
        assert all(u.num_cached_tokens is None and u.queued_s is None for u in rest)


@pytest.mark.parametrize("depth", [1, 2])
def test_abort_gives_blocks_back_at_once_and_late_results_are_dropped(depth: int) -> None:
    driver = Driver()
    driver.add("a", prompt(20, 1), max_tokens=30, **FREE)
    driver.add("b", prompt(20, 2), max_tokens=6, **FREE)
    driver.step()
    for _ in range(depth):
        driver.plan()
    in_use = driver.scheduler.stats().blocks_in_use
    (update,) = driver.abort("a")
    assert (update.finish_reason, update.token_ids) == ("abort", [])
    assert driver.scheduler.stats().blocks_in_use == in_use - 3
    assert driver.abort("a") == [] and driver.abort("nobody") == []
    heard = len(driver.heard["a", 0])
    driver.run(depth)
    assert len(driver.heard["a", 0]) == heard
    driver.assert_right("b")
    assert driver.scheduler.stats().blocks_in_use == 0


def test_abort_of_one_sequence_leaves_the_others() -> None:
    driver = Driver()
    driver.add("a", prompt(20), n=3, max_tokens=6, **FREE)
    driver.step()
    assert [u.index for u in driver.abort("a", 1)] == [1]
    assert driver.abort("a", 1) == [] and driver.abort("a", 7) == []
    driver.run()
    for index in (0, 2):
        assert driver.tokens("a", index) == driver.right("a", index)[0]


def test_abort_of_the_leader_hands_the_prompt_to_the_next() -> None:
    driver = Driver(max_num_batched_tokens=16)
    driver.add("a", prompt(40), n=3, max_tokens=6, **FREE)
    driver.step()
    driver.abort("a", 0)
    driver.abort("a", 1)
    driver.run()
    assert driver.tokens("a", 2) == driver.right("a", 2)[0]
    driver.add("b", prompt(40), n=2, max_tokens=6, **FREE)
    assert [u.index for u in driver.abort("b")] == [0, 1]
    assert not driver.scheduler.has_work()


# Forks.


@pytest.mark.parametrize("length", [1000, 1001, 1007, 1008])
@pytest.mark.parametrize("caching", [True, False])
@pytest.mark.parametrize("depth", [1, 2])
def test_eight_continuations_cost_little_more_than_one_prompt(
    depth: int, caching: bool, length: int
) -> None:
    layout = layout_of(FULL, window_group(50), num_slabs=400)
    driver = Driver(layout, max_model_len=1100, enable_prefix_caching=caching)
    driver.add("a", prompt(length), n=8, max_tokens=1, **FREE)
    driver.run(depth)
    driver.assert_right("a")
    assert driver.computed < 1.1 * length
    copies = driver.worker.num_copies
    assert copies == (0 if length % 8 == 1 else 7 * 2)


def test_forks_that_lose_their_blocks_compute_the_prompt_themselves() -> None:
    driver = Driver(
        layout_of(num_slabs=12), max_model_len=96, max_num_seqs=2, enable_prefix_caching=False
    )
    driver.add("a", prompt(40), n=4, max_tokens=30, **FREE)
    driver.run()
    driver.assert_right("a")
    assert driver.computed > 2 * 40


def test_the_last_fork_writes_into_the_block_it_alone_holds() -> None:
    driver = Driver(layout_of(num_slabs=3), max_model_len=24, max_num_seqs=1)
    driver.add("a", prompt(22), n=2, max_tokens=2, **FREE)
    driver.run()
    driver.assert_right("a")
    assert driver.worker.num_copies == 0
    assert driver.computed == 22 + 1 + 2


def test_output_of_a_former_life_comes_in_again_as_output() -> None:
    whole = Driver()
    whole.add("a", prompt(20), n=3, max_tokens=12, **FREE)
    whole.run()
    for depth in (1, 2):
        driver = Driver(max_num_batched_tokens=16)
        resume = [whole.tokens("a", i)[:n] for i, n in enumerate((9, 0, 4))]
        driver.add("a", prompt(20), n=3, max_tokens=12, resume_ids=resume, **FREE)
        driver.run(depth)
        for i in range(3):
            assert resume[i] + driver.tokens("a", i) == whole.tokens("a", i)


# The prefix cache.


@pytest.mark.parametrize("budget", [64, 512, 16384])
@pytest.mark.parametrize("depth", [1, 2])
def test_equal_prompts_that_arrive_together_are_computed_once(depth: int, budget: int) -> None:
    layout = layout_of(FULL, window_group(50), num_slabs=600)
    driver = Driver(layout, max_num_batched_tokens=budget)
    names = [f"r{i}" for i in range(8)]
    for name in names:
        driver.add(name, prompt(1000), max_tokens=1, **FREE)
    driver.run(depth)
    driver.assert_right(*names)
    assert driver.computed < 1.1 * 1000


def test_others_pass_a_request_that_waits_for_blocks_being_computed() -> None:
    driver = Driver(max_num_batched_tokens=32)
    driver.add("first", prompt(100), max_tokens=1, **FREE)
    driver.step()
    driver.add("same", prompt(100), max_tokens=1, **FREE)
    driver.add("other", prompt(4, 9), max_tokens=1, **FREE)
    driver.scheduler.token_budget = 32
    driver.step()
    driver.step()
    plan = driver.step()
    assert driver.finish_of("first") is not None
    assert "other" in started(plan) or driver.finish_of("other") is not None
    driver.run()
    driver.assert_right("first", "same", "other")


def test_the_wait_ends_when_the_one_that_computes_goes() -> None:
    driver = Driver(max_num_batched_tokens=32)
    driver.add("first", prompt(200), max_tokens=1, **FREE)
    driver.add("same", prompt(200), max_tokens=1, **FREE)
    plan = driver.step()
    assert started(plan) == ["first"]
    driver.scheduler.token_budget = 16
    driver.step()
    driver.abort("first")
    driver.run()
    driver.assert_right("same")
    assert driver.heard["same", 0][0].num_cached_tokens == 48


def test_a_request_may_refuse_to_read_the_cache_and_still_fills_it() -> None:
    driver = Driver()
    driver.add("a", prompt(100), max_tokens=1, skip_reading_prefix_cache=True, **FREE)
    driver.run()
    driver.add("b", prompt(100), max_tokens=1, skip_reading_prefix_cache=True, **FREE)
    driver.add("c", prompt(100), max_tokens=1, **FREE)
    driver.run()
    cached = [driver.heard[name, 0][0].num_cached_tokens for name in "abc"]
    assert cached == [0, 0, 96]


def test_salts_do_not_share_blocks() -> None:
    driver = Driver()
    for name, salt in (("a", None), ("b", "x"), ("c", "y"), ("d", "x")):
        driver.add(name, prompt(100), max_tokens=1, cache_salt=salt, **FREE)
        driver.run()
    cached = [driver.heard[name, 0][0].num_cached_tokens for name in "abcd"]
    assert cached == [0, 0, 0, 96]


def test_output_is_found_by_a_prompt_that_goes_on_from_it() -> None:
    driver = Driver()
    driver.add("a", prompt(20), max_tokens=20, **FREE)
    driver.run()
    driver.add("b", prompt(20) + driver.tokens("a"), max_tokens=1, **FREE)
    driver.run()
    assert driver.heard["b", 0][0].num_cached_tokens == 32


def test_reset_forgets_cached_prefixes_unless_blocks_are_in_use() -> None:
    driver = Driver()
    driver.add("a", prompt(100), max_tokens=5, **FREE)
    driver.step()
    assert not driver.scheduler.reset_prefix_cache()
    driver.run()
    assert driver.scheduler.reset_prefix_cache()
    driver.add("b", prompt(100), max_tokens=1, **FREE)
    driver.run()
    assert driver.heard["b", 0][0].num_cached_tokens == 0


@pytest.mark.parametrize("depth", [1, 2])
def test_prompt_logprobs_come_whole_and_once_over_a_warm_cache_and_preemption(depth: int) -> None:
    driver = Driver(layout_of(num_slabs=10), max_model_len=80, max_num_batched_tokens=8)
    driver.add("warm", prompt(50), max_tokens=1, **FREE)
    driver.run()
    driver.add("old", prompt(20, 2), max_tokens=30, **FREE)
    driver.step()
    driver.add("a", prompt(50), max_tokens=2, prompt_logprobs=0, **FREE)
    driver.run(depth)
    driver.assert_right("warm", "old", "a")
    assert driver.scheduler.stats().num_preemptions > 0
    slices = [u.prompt_logprobs or [] for u in driver.heard["a", 0]]
    got = [int(p.logprobs[0]) for s in slices for p in s]
    assert got == list(range(1, 50))


# Trouble.


def test_an_error_of_a_row_ends_its_request_alone() -> None:
    driver = Driver()
    driver.worker.trouble["bad"] = Trouble("error", 12)
    driver.add("bad", prompt(10, 1), n=2, max_tokens=9, **FREE)
    driver.add("good", prompt(10, 2), max_tokens=9, **FREE)
    driver.run()
    for index in (0, 1):
        last = driver.heard["bad", index][-1]
        assert (last.finish_reason, last.error) == ("error", "told to")
    driver.assert_right("good")


@pytest.mark.parametrize("depth", [1, 2])
def test_numbers_that_are_not_finite_are_computed_once_more_without_the_cache(depth: int) -> None:
    driver = Driver()
    driver.add("warm", prompt(40), max_tokens=1, **FREE)
    driver.run()
    driver.worker.trouble["once"] = Trouble("nan", 44)
    driver.add("once", prompt(40), max_tokens=9, **FREE)
    before = driver.computed
    driver.run(depth)
    driver.assert_right("once")
    assert driver.computed - before >= 8 + 40, "the second time from the first token"
    driver.worker.trouble["always"] = Trouble("nans", 44)
    driver.add("always", prompt(40), max_tokens=9, **FREE)
    driver.run(depth)
    last = driver.heard["always", 0][-1]
    assert last.finish_reason == "error" and "finite" in (last.error or "")


def test_blocks_of_numbers_that_are_not_finite_are_not_found_again() -> None:
    driver = Driver()
    driver.worker.trouble["bad"] = Trouble("nans", 1)
    driver.add("bad", prompt(40), max_tokens=9, skip_reading_prefix_cache=True, **FREE)
    driver.run()
    driver.add("after", prompt(40), max_tokens=1, **FREE)
    driver.run()
    assert driver.heard["after", 0][0].num_cached_tokens == 0


@pytest.mark.parametrize("depth", [1, 2])
def test_a_failed_step_ends_the_culprit_and_no_mate(depth: int) -> None:
    driver = Driver()
    driver.worker.trouble["bad"] = Trouble("poison", 25)
    names = ["a", "b", "bad", "c"]
    for kind, name in enumerate(names):
        driver.add(name, prompt(20, kind + 1), max_tokens=12, **FREE)
    driver.run(depth)
    assert driver.finish_of("bad") == "error"
    assert driver.heard["bad", 0][-1].error == "the step failed"
    driver.assert_right("a", "b", "c")
    assert driver.scheduler.stats().blocks_in_use == 0


def test_suspects_run_one_at_a_time_until_each_has_passed() -> None:
    driver = Driver()
    for kind, name in enumerate(["a", "b", "c"]):
        driver.add(name, prompt(20, kind + 1), max_tokens=4, **FREE)
    driver.step()
    assert driver.step(fail=True).rows == [0, 1, 2]
    driver.add("late", prompt(20, 9), max_tokens=4, **FREE)
    alone = []
    while driver.scheduler._places.alone:
        plan = driver.plan()
        assert plan is not None and len(plan.rows) == 1
        assert driver.scheduler.schedule() is None, "nobody else while a suspect runs"
        alone += started(plan)
        driver.collect()
    assert alone == ["a", "b", "c"]
    plan = driver.step()
    assert len(plan.rows) == 4 and started(plan) == ["late"]
    driver.run()
    driver.assert_right("a", "b", "c", "late")


def test_what_a_failed_step_published_is_not_found() -> None:
    driver = Driver()
    driver.add("a", prompt(40), max_tokens=1, **FREE)
    driver.plan()
    driver.abort("a")
    driver.collect(fail=True)
    driver.add("b", prompt(40), max_tokens=1, **FREE)
    driver.run()
    driver.assert_right("b")
    assert driver.heard["b", 0][0].num_cached_tokens == 0


def test_rows_freed_in_a_failed_step_are_announced_again() -> None:
    driver = Driver(max_num_seqs=2)
    driver.add("a", prompt(10, 1), max_tokens=1, **FREE)
    driver.add("b", prompt(10, 2), max_tokens=5, **FREE)
    driver.step()
    failed = driver.step(fail=True)
    assert failed.freed_rows == [0]
    assert sorted(driver.step().freed_rows) == [0, 1]
    driver.run()
    driver.assert_right("a", "b")


def test_results_must_come_in_order() -> None:
    driver = Driver()
    driver.add("a", prompt(10), max_tokens=5, **FREE)
    first, second = driver.plan(), driver.plan()
    assert first is not None and second is not None
    result = driver.worker.step(first)
    with pytest.raises(ValueError, match="step"):
        driver.scheduler.update(second, result)


def test_plans_in_flight_do_not_run_past_the_end() -> None:
    driver = Driver()
    driver.add("a", prompt(10), max_tokens=2, **FREE)
    assert driver.plan() is not None and driver.plan() is not None
    assert driver.scheduler.schedule() is None, "both tokens are on their way"
    updates: list[SequenceUpdate] = driver.collect() + driver.collect()
    assert [len(u.token_ids) for u in updates] == [1, 1]
    assert not driver.scheduler.has_work()


def test_counters() -> None:
    driver = Driver(layout_of(num_slabs=16), max_model_len=64)
    driver.add("a", prompt(20), max_tokens=5, **FREE)
    driver.step()
    driver.add("b", prompt(20), max_tokens=5, **FREE)
    stats = driver.scheduler.stats()
    assert (stats.num_running, stats.num_waiting, stats.blocks_in_use) == (1, 1, 3)
    assert stats.cache_usage == 3 / 16
    driver.run()
    after = driver.scheduler.stats()
    assert stats.num_running == 1, "figures once given do not change"
    assert (after.num_running, after.num_waiting, after.cache_usage) == (0, 0, 0.0)
    assert after.generation_tokens == 10
    assert after.prompt_tokens_computed == 20 + 4
    assert (after.prefix_queries, after.prefix_hits) == (40, 16)
    assert after.step_tokens == driver.computed and after.steps == 6
