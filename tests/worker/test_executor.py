"""Tickets: results in order, masks that come late, and what a failure makes of the plans behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from quire.engine.resolve import describe_model, resolve
from quire.hardware.cpu import read_machine
from quire.protocol.params import SamplingParams
from quire.protocol.step import NewRow, StepPlan
from quire.worker.executor import LocalExecutor, StepFailedError
from tests.e2e.driver import settings

PROMPT = [5, 9, 200, 31]


@pytest.fixture
def executor(checkpoint: Callable[..., Path]) -> Iterator[LocalExecutor]:
    wanted = settings(
        checkpoint("llama"), max_model_len=64, max_num_seqs=4, kv_cache_memory_bytes=4 << 20
    )
    description = describe_model(wanted)
    resolved = resolve(wanted, description, read_machine())
    made = LocalExecutor(
        settings=resolved.settings,
        layout=resolved.layout,
        description=description,
        cache_dtype=resolved.cache_dtype,
        on_phase=lambda text, percent: None,
    )
    yield made
    made.shutdown()


def _first(row: int, *, needs_mask: bool = False, step: int = 0) -> StepPlan:
    new = NewRow(
        row=row,
        request_id=f"r{row}",
        index=0,
        token_ids=PROMPT,
        num_prompt_tokens=len(PROMPT),
        params=SamplingParams(temperature=0.0, max_tokens=8),
        seed=0,
        block_ids=[[row, row + 8]],
        needs_mask=needs_mask,
    )
    return StepPlan(step=step, new_rows=[new], rows=[row], starts=[0], counts=[4], samples=[True])


def test_a_mask_given_while_the_step_runs_decides_the_token(executor: LocalExecutor) -> None:
    free = executor.collect(executor.submit(_first(0))).rows[0].token_ids[0]
    allowed = 77 if free != 77 else 78
    ticket = executor.submit(_first(1, needs_mask=True, step=1))
    bits = np.zeros((1, 16), dtype=np.uint32)  # 512 ids
    bits[0, allowed // 32] = 1 << (allowed % 32)
    done: list[int] = []
    waiting = threading.Thread(
        target=lambda: done.append(executor.collect(ticket).rows[0].token_ids[0])
    )
    waiting.start()
    time.sleep(0.1)
    assert not done, "the step must wait for its mask"
    executor.give_masks(ticket, bits)
    waiting.join(10.0)
    assert done == [allowed]


def test_two_tickets_in_flight_know_each_others_tokens(executor: LocalExecutor) -> None:
    plans = [_first(0)] + [
        StepPlan(step=n, rows=[0], starts=[3 + n], counts=[1], samples=[True]) for n in (1, 2, 3)
    ]
    one_by_one = [executor.collect(executor.submit(plan)).rows[0].token_ids for plan in plans]
    freed = StepPlan(step=4, freed_rows=[0])
    tickets = [executor.submit(plan) for plan in [freed, *plans]]
    together = [executor.collect(ticket).rows for ticket in tickets][1:]
    assert [rows[0].token_ids for rows in together] == one_by_one


def test_plans_behind_a_failed_step_are_void_and_later_ones_run(executor: LocalExecutor) -> None:
    good = executor.collect(executor.submit(_first(0))).rows[0].token_ids
    bad = StepPlan(step=1, rows=[3], starts=[0], counts=[1], samples=[True])  # nobody has row 3
    behind = StepPlan(step=2, rows=[0], starts=[4], counts=[1], samples=[True])
    tickets = [executor.submit(bad), executor.submit(behind)]
    with pytest.raises(StepFailedError):
        executor.collect(tickets[0])
    with pytest.raises(StepFailedError, match="void"):
        executor.collect(tickets[1])
    again = _first(2, step=3)
    assert executor.collect(executor.submit(again)).rows[0].token_ids == good
