"""What the scheduler puts off until a plan is with the worker must make no difference but of time.

Random load, with and without it, is in `tests/engine/test_simulation.py`.
"""

from __future__ import annotations

import random

import pytest

from quire.protocol.step import StepPlan
from tests.unit.scheduler_driver import BLOCK_SIZE, FULL, Driver, layout_of, window_group


def prompt(first: int, length: int) -> list[int]:
    """Ids that no other `first` gives."""
    return [1 + (7 * first + i) % 39 for i in range(length)]


def shape_of(plan: StepPlan) -> tuple[list[int], list[int], list[int], list[bool]]:
    """What a plan computes, without the numbers of blocks."""
    return plan.rows, plan.starts, plan.counts, plan.samples


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("window", [None, 8, 20])
def test_plans_and_hits_are_the_same_whether_or_not_anybody_settles(
    depth: int, window: int | None
) -> None:
    groups = (FULL,) if window is None else (FULL, window_group(window))
    shapes: list[list[tuple[list[int], list[int], list[int], list[bool]]]] = []
    hits = []
    for settles in (True, False):
        rng = random.Random(depth)
        driver = Driver(layout_of(*groups), max_num_batched_tokens=60)
        shapes.append([])
        for turn in range(150):
            if turn < 120 and rng.random() < 0.5:
                ids = prompt(rng.randrange(3), rng.choice([8, 24, 40])) + prompt(turn, 3)
                driver.add(f"r{turn}", ids, max_tokens=rng.randint(1, 20), ignore_eos=True)
            while len(driver.flights) < depth and (plan := driver.plan()) is not None:
                shapes[-1].append(shape_of(plan))
                if settles:
                    driver.scheduler.settle()
            if driver.flights:
                driver.collect()
            driver.scheduler.check_invariants()
        driver.run(depth)
        driver.assert_right(*driver.requests)
        hits.append(driver.scheduler.stats().prefix_hits)
    assert shapes[0] == shapes[1]
    assert hits[0] == hits[1] > 0


def test_blocks_of_a_sequence_that_just_ended_serve_the_next_plan() -> None:
    driver = Driver(layout_of(num_slabs=4), max_model_len=4 * BLOCK_SIZE)
    driver.add("first", prompt(0, 3 * BLOCK_SIZE), max_tokens=1, ignore_eos=True)
    driver.add("second", prompt(1, 3 * BLOCK_SIZE), max_tokens=1, ignore_eos=True)
    assert driver.plan() is not None
    driver.scheduler.settle()
    driver.collect()
    assert driver.finish_of("first") == "length"
    assert driver.scheduler.stats().blocks_in_use == 3, "they are still to be given back"
    plan = driver.plan()
    assert plan is not None and [new.request_id for new in plan.new_rows] == ["second"]
    assert driver.scheduler.stats().num_preemptions == 0


def test_blocks_of_a_sequence_that_just_ended_let_a_running_one_grow() -> None:
    driver = Driver(layout_of(num_slabs=4), max_model_len=4 * BLOCK_SIZE)
    driver.add("long", prompt(0, 2 * BLOCK_SIZE), max_tokens=9, ignore_eos=True)
    driver.add("short", prompt(1, 2 * BLOCK_SIZE), max_tokens=1, ignore_eos=True)
    assert driver.plan() is not None
    driver.scheduler.settle()
    driver.collect()
    plan = driver.plan()
    assert plan is not None and len(plan.growth) == 1
    assert driver.scheduler.stats().num_preemptions == 0
    driver.run()
    driver.assert_right("long", "short")


def test_the_next_plan_settles_if_nobody_did() -> None:
    driver = Driver()
    driver.add("long", prompt(0, 4), max_tokens=4, ignore_eos=True)
    driver.add("short", prompt(1, 20), max_tokens=1, ignore_eos=True)
    driver.plan()
    driver.collect()
    assert driver.scheduler.stats().blocks_in_use == 4
    driver.plan()
    assert driver.scheduler.stats().blocks_in_use == 1


def test_keys_that_a_plan_fills_are_found_before_anybody_settles() -> None:
    driver = Driver()
    shared = prompt(0, 4 * BLOCK_SIZE)
    driver.add("first", [*shared, 1], max_tokens=2, ignore_eos=True)
    driver.add("second", [*shared, 2], max_tokens=2, ignore_eos=True)
    plan = driver.plan()
    assert plan is not None
    assert plan.starts == [0, 4 * BLOCK_SIZE], "the second starts where the first will have been"
    driver.run()
    driver.assert_right("first", "second")


def test_keys_not_yet_entered_are_withdrawn_when_their_step_fails() -> None:
    driver = Driver()
    shared = prompt(0, 3 * BLOCK_SIZE)
    driver.add("first", [*shared, 1], max_tokens=2, ignore_eos=True)
    driver.add("other", prompt(1, 5), max_tokens=2, ignore_eos=True)
    assert driver.plan() is not None
    driver.collect(fail=True)
    driver.add("second", [*shared, 2], max_tokens=2, ignore_eos=True)
    driver.run()
    driver.assert_right("first", "other", "second")


def test_nothing_is_put_off_once_there_is_no_more_work() -> None:
    driver = Driver()
    driver.add("only", prompt(0, 20), max_tokens=1, ignore_eos=True)
    assert driver.plan() is not None
    driver.scheduler.settle()
    driver.collect()
    assert driver.scheduler.stats().blocks_in_use == 0
    assert driver.scheduler.reset_prefix_cache()


def test_nothing_is_put_off_once_the_last_request_failed() -> None:
    driver = Driver()
    driver.add("only", prompt(0, 20), max_tokens=5, ignore_eos=True)
    for _ in range(2):
        assert driver.plan() is not None
        driver.scheduler.settle()
        driver.collect(fail=True)
    assert driver.finish_of("only") == "error"
    assert driver.scheduler.stats().blocks_in_use == 0
