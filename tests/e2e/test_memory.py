"""The memory ledger against what steps and processes really take; its full form is `benchmarks.memory`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.memory import CASES, held, measure, run_server, write_model
from quire.models import footprint
from quire.models.registry import describe
from quire.ops import attention_tiles, linear
from quire.ops.arena import Arena
from quire.ops.vendor import attention_plan
from quire.worker import output
from tests.checkpoints import prompt_ids
from tests.e2e.driver import Job, engine, run


def test_the_ledgers_constants_are_those_of_the_operations() -> None:
    assert footprint.PROMPT_SLICE == output._PROMPT_SLICE
    assert footprint.QUERY_ROWS == attention_plan.QUERY_ROWS
    assert footprint.GROUP_BYTES == attention_plan.GROUP_BYTES
    assert footprint.TILE_TOKENS == attention_tiles.TILE_TOKENS
    assert footprint.SEGMENT_TOKENS == attention_tiles.SEGMENT_TOKENS
    assert footprint._TILE_ROWS == linear.TILE_ROWS


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3n", "gemma4", "deepseek_v4"])
def test_the_largest_step_fills_the_arena_that_the_ledger_counts(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, family: str, dtype: str
) -> None:
    most = 0
    take = Arena.take

    def watched(self: Arena, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        nonlocal most
        found = take(self, shape, kind)
        most = max(most, self._used)
        return found

    monkeypatch.setattr(Arena, "take", watched)
    folder = checkpoint(family)
    sizes = footprint.StepSizes(
        num_tokens=256, num_rows=4, max_model_len=512, dtype_bytes=getattr(torch, dtype).itemsize
    )
    params: dict[str, Any] = {"max_tokens": 2, "prompt_logprobs": 1, "ignore_eos": True}
    jobs = [Job(tuple(prompt_ids(256, seed)), params, seed) for seed in range(2)]
    with engine(
        folder, dtype=dtype, max_model_len=512, max_num_seqs=4, max_num_batched_tokens=256
    ) as client:
        run(client, jobs)
        arena = client._core.executor.worker.runner.builder._arena  # type: ignore[attr-defined]
        assert len(arena._chunks) == 1, "a step took more than the ledger counts"
    counted = footprint.arena_bytes(describe(str(folder)).spec, sizes)
    assert 0.9 * counted <= most <= counted


def test_held_memory_is_what_a_process_touched(tmp_path: Path) -> None:
    import os

    before = held([os.getpid()])
    kept = torch.ones(64 << 20, dtype=torch.uint8)
    grown = held([os.getpid()]) - before
    assert kept.numel() * 0.95 <= grown <= kept.numel() * 1.3


@pytest.mark.slow
@pytest.mark.parametrize(("cache_mib", "limit_mib"), [(8, None), (None, 512)])
def test_a_server_under_load_stays_below_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_mib: int | None, limit_mib: int | None
) -> None:
    case = replace(
        CASES["qwen3-tiny-bf16"], cache_mib=cache_mib, max_num_seqs=8, limit_mib=limit_mib
    )
    monkeypatch.setitem(CASES, "small", case)
    report: list[str] = []
    ratio = measure("small", tmp_path, report.append)
    assert 0.8 <= ratio <= 1.0, "\n".join(report)


def test_a_limit_that_the_ledger_does_not_fit_into_is_told_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    # Far above what the processes need for themselves, which differs by machine.
    case = replace(CASES["qwen3-tiny-bf16"], cache_mib=1500, limit_mib=800)
    with pytest.raises(RuntimeError, match=r"of memory are needed .* are free") as caught:
        run_server(write_model(tmp_path, case.config), case)
    assert "cannot start" in str(caught.value)
