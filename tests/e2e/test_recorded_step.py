"""A decode step is a list of operation calls: replayed on new inputs it gives the bits of the eager run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from quire.engine.resolve import resolve
from quire.engine.scheduler.scheduler import Scheduler
from quire.hardware.cpu import read_machine
from quire.models.registry import describe
from quire.protocol.step import StepPlan, StepResult
from quire.worker.worker import Worker
from tests.e2e.driver import Job, settings


def _make(folder: Path, provider: str) -> tuple[Worker, Scheduler]:
    description = describe(str(folder))
    wanted = settings(
        folder,
        kernel_overrides={"all": provider} if provider else {},
        max_model_len=256,
        kv_cache_memory_bytes=16 << 20,
        max_num_seqs=8,
        max_num_batched_tokens=512,
    )
    resolved = resolve(wanted, description, read_machine())
    worker = Worker(
        settings=resolved.settings,
        layout=resolved.layout,
        description=description,
        cache_dtype=resolved.cache_dtype,
        on_phase=lambda text, percent: None,
    )
    scheduler = Scheduler(
        layout=resolved.layout, max_num_seqs=8, max_num_batched_tokens=512, max_model_len=256
    )
    for number, length in enumerate((3, 40, 100)):
        prompt = tuple(5 + (11 * number + 3 * i) % 400 for i in range(length))
        params = {"max_tokens": 30, "temperature": 0.0, "logprobs": 2, "ignore_eos": True}
        scheduler.add(Job(prompt, params, seed=number).request(f"r{number}"))
    return worker, scheduler


@torch.inference_mode()
def _replay(worker: Worker, tape, hidden: torch.Tensor, plan: StepPlan) -> StepResult:
    """Refills the inputs for `plan` and runs the list instead of the decoder."""
    batch = worker.runner.prepare(plan)
    hidden.fill_(float("nan"))
    tape.replay()
    batch.context.arena.take((1 << 20,), torch.uint8)  # what the forward took is in use
    rows = worker.runner.output.collect(batch, hidden, lambda: None)
    return StepResult(step=plan.step, rows=rows)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3n", "deepseek_v4"])
@pytest.mark.parametrize("provider", ["reference", ""])
def test_a_recorded_decode_step_replays_with_the_eager_bits(
    checkpoint: Callable[..., Path], family: str, provider: str
) -> None:
    eager_worker, eager_scheduler = _make(checkpoint(family), provider)
    worker, scheduler = _make(checkpoint(family), provider)
    tape = hidden = None
    replayed = 0
    for number in range(12):
        plan, eager_plan = scheduler.schedule(), eager_scheduler.schedule()
        assert plan is not None and eager_plan is not None
        eager = eager_worker.step(eager_plan, lambda: None)
        if number == 1:  # the first pure decode step: three rows, one token each
            assert plan.counts == [1, 1, 1]
            with torch.inference_mode(), worker.table.record() as tape:
                batch = worker.runner.prepare(plan)
                first_call = len(tape.calls)
                hidden = worker.runner.decoder.forward(batch.context)
            tape.calls = tape.calls[first_call:]
            assert len(tape.calls) > 10 and all(call.bound.op.name for call in tape.calls)
            again = msgspec.structs.replace(plan, new_rows=[], growth=[], copies=[], freed_rows=[])
            result = _replay(worker, tape, hidden, again)
        elif tape is not None and hidden is not None:
            result = _replay(worker, tape, hidden, plan)
            replayed += 1
        else:
            result = worker.step(plan, lambda: None)
        for row, eager_row in zip(result.rows, eager.rows, strict=True):
            assert row.token_ids == eager_row.token_ids
            assert str(row.logprobs) == str(eager_row.logprobs)
        scheduler.update(plan, result)
        eager_scheduler.update(eager_plan, eager)
    assert replayed == 10
