"""The loop around the scheduler: the token budget follows the measured rate, and bad calls are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quire.engine.core import EngineCore
from quire.engine.resolve import describe_model
from quire.protocol.step import StepPlan, StepResult
from quire.worker.executor import Executor, Ticket
from tests.e2e.driver import Job, settings


class _NoExecutor(Executor):
    """Takes the keywords of a real one and never runs a step."""

    def __init__(self, **kw: Any) -> None:
        self.kw = kw

    def submit(self, plan: StepPlan) -> Ticket:
        return Ticket(plan, 0)

    def shutdown(self) -> None:
        return None


def _core(folder: Path, **flat: Any) -> EngineCore:
    wanted = settings(folder, max_model_len=256, kv_cache_memory_bytes=8 << 20, **flat)
    return EngineCore(wanted, describe_model(wanted), make_executor=_NoExecutor)


def _measure(core: EngineCore, num_tokens: int, elapsed_s: float) -> None:
    plan = StepPlan(step=0, rows=[0], starts=[0], counts=[num_tokens], samples=[False])
    core._follow_rate(plan, StepResult(step=0, rows=[], elapsed_s=elapsed_s))


def test_the_budget_falls_at_once_and_rises_slowly(checkpoint: Callable[..., Path]) -> None:
    core = _core(checkpoint("llama"))
    assert core.scheduler.token_budget == 256
    _measure(core, 256, 0.1)  # 2,560 tokens a second
    assert core.scheduler.token_budget == 1152
    _measure(core, 1152, 1.8)  # 640 a second: the next step must be short
    assert core.scheduler.token_budget == 288
    _measure(core, 288, 0.1125)  # 2,560 again
    assert 288 < core.scheduler.token_budget < 1152
    _measure(core, 8, 9.0)  # a few decode rows say nothing about prefill
    assert core.scheduler.token_budget > 288


def test_a_given_budget_stays(checkpoint: Callable[..., Path]) -> None:
    core = _core(checkpoint("llama"), max_num_batched_tokens=512)
    _measure(core, 512, 60.0)
    assert core.scheduler.token_budget == 512


def test_a_request_that_slipped_through_ends_with_an_error(
    checkpoint: Callable[..., Path],
) -> None:
    core = _core(checkpoint("llama"))
    core.add(Job(tuple(range(5, 305)), {"max_tokens": 1, "n": 2}, seed=0).request("long"))
    outputs = core.step()
    assert outputs is not None
    assert [(u.index, u.finish_reason) for u in outputs.updates] == [(0, "error"), (1, "error")]
    assert "300 tokens" in (outputs.updates[0].error or "")
    with pytest.raises(ValueError, match="has_work"):
        core.call("shutdown")


@pytest.mark.parametrize(("loaded", "tail"), [("avx2", "_avx2"), ("", "_torch")])
def test_kernels_that_could_not_be_loaded_show_in_the_fingerprint(
    checkpoint: Callable[..., Path], loaded: str, tail: str
) -> None:
    core = _core(checkpoint("llama"))
    core.resolved = replace(core.resolved, kernels="avx512")
    core.executor.kernels = "avx512"
    assert core._fingerprint() == core.resolved.fingerprint
    core.executor.kernels = loaded
    assert core._fingerprint().startswith(core.resolved.fingerprint + tail)
