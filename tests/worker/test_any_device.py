"""Nothing but `ops` and `worker.memory` knows the device: the engine on a pretended GPU gives the CPU's bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quire.engine.core import EngineCore
from quire.engine.resolve import describe_model
from quire.hardware.cpu import Machine, read_machine
from quire.hardware.cuda import Gpu
from quire.protocol.errors import SettingsError
from tests.checkpoints import VOCAB_SIZE
from tests.e2e.driver import Job, bits, mixed_jobs, run, settings, with_params
from tests.worker.pretend_device import (
    DEVICE,
    OnDevice,
    PretendDevice,
    PretendExecutor,
    WrongDeviceError,
)

GPU = Gpu(name="Pretended", capability=(9, 0), total_bytes=8 << 30)
FLAT: dict[str, Any] = {
    "max_model_len": 128, "max_num_batched_tokens": 24, "block_size": 16,
    "kv_cache_memory_bytes": 8 << 20, "max_num_seqs": 8,
}  # fmt: skip


def machine() -> Machine:
    """This machine with one GPU."""
    return replace(read_machine(), gpus=(GPU,))


@pytest.fixture
def seen_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def answers(core: EngineCore, jobs: list[Job]) -> list[list[tuple[Any, ...]]]:
    """What every sequence gave; the engine ends."""
    try:
        return bits(run(core, jobs))  # type: ignore[arg-type]  # it asks for add and step only
    finally:
        core.shutdown()


def mixed() -> list[Job]:
    """Short prompts with every stage of sampling, forks and prompt log-probabilities."""
    jobs = mixed_jobs(8, vocab_size=VOCAB_SIZE, longest=40, max_tokens=5)
    more: dict[str, Any] = {
        "top_k": 20, "logit_bias": {7: 2.0, 9: -3.0}, "min_tokens": 2, "presence_penalty": 0.2,
        "prompt_logprobs": 1,
    }  # fmt: skip
    allowed: dict[str, Any] = {"allowed_token_ids": list(range(20, 60))}
    return [with_params(jobs[0], **more), with_params(jobs[1], **allowed), *jobs[2:]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_the_engine_on_another_device_gives_the_same_bits(
    checkpoint: Callable[..., Path], seen_by_torch: None, family: str, dtype: str
) -> None:
    folder = checkpoint(family)
    flat = FLAT | {"dtype": dtype, "async_scheduling": False}
    here = settings(folder, **flat, device="cpu", kernel_overrides={"all": "reference"})
    there = settings(folder, **flat, device="cuda")
    description = describe_model(here)
    core = EngineCore(there, description, make_executor=PretendExecutor, machine=machine())
    assert {provider for _, _, provider, _ in core.info.providers} == {"reference"}, (
        "a provider takes a GPU's tensors that was written for the CPU"
    )
    assert isinstance(core.executor.worker.runner.memory.buffer, OnDevice)  # type: ignore[attr-defined]
    expected = answers(EngineCore(here, description, machine=machine()), mixed())
    found = answers(core, mixed())
    assert all(sequence[-1] == "length" for job in found for sequence in job), found
    assert found == expected


def test_auto_takes_the_gpu_with_two_steps_in_flight(
    checkpoint: Callable[..., Path], seen_by_torch: None
) -> None:
    chosen = settings(checkpoint("llama"), **FLAT)
    core = EngineCore(
        chosen, describe_model(chosen), make_executor=PretendExecutor, machine=machine()
    )
    assert (core.resolved.device, core.resolved.depth) == ("cuda", 2)
    assert all(one[0][-1] == "length" for one in answers(core, mixed()))


def test_a_gpu_that_torch_cannot_use_is_told_in_a_sentence(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chosen = settings(checkpoint("llama"), **FLAT)
    with pytest.raises(SettingsError, match="--device cpu"):
        EngineCore(chosen, describe_model(chosen), machine=machine())


def test_the_pretended_device_refuses_what_a_gpu_refuses() -> None:
    with PretendDevice():
        there, here = torch.zeros(3, 4, device="cuda"), torch.ones(3, 4)
        assert there.device == (there + 1).device == here.to("cuda").device == DEVICE
        assert there[torch.tensor([0, 2])].device == DEVICE and there.cpu().device != DEVICE
        assert np.array_equal((there + here.to(DEVICE)).to("cpu").numpy(), np.ones((3, 4)))
        there.copy_(here)
        wrong: list[Callable[[], Any]] = [
            there.numpy, lambda: there + here, lambda: torch.cat([there, here]),
            lambda: there.add_(here), lambda: torch.mm(there, here.t()),
            lambda: there.__setitem__(slice(0, 2), here[:2]),
        ]  # fmt: skip
        for call in wrong:
            with pytest.raises(WrongDeviceError, match="cuda:0"):
                call()
