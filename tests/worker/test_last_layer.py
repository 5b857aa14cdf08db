"""The last layer runs for few tokens in a prefill step: for no other than before, and with the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from quire import LLM
from quire.models.last_layer import can_end_early
from quire.models.registry import describe
from quire.worker import worker
from quire.worker.batch import Batch
from quire.worker.graphs import Graphs
from tests.checkpoints import prompt_ids
from tests.e2e.driver import Job, bits, engine, mixed_jobs, run, with_params

LONGEST, MAX_TOKENS = 700, 6
SETTINGS: dict[str, Any] = {"max_model_len": 768, "kv_cache_memory_bytes": 64 << 20}
SETTINGS |= {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "enable_prefix_caching": False}


@dataclass
class Seen:
    """Steps in which the last layer ran for few tokens, and those in which it ran for none."""

    few: int = 0
    none: int = 0


@contextmanager
def last_layers(ends_early: bool = True) -> Iterator[Seen]:
    """Engines made inside run the last layer for what is read, all else being no number; or for all."""
    seen = Seen()

    class Watched(Graphs):
        def forward(self, batch: Batch) -> torch.Tensor:
            hidden = super().forward(batch)
            read = batch.context.read
            if read is not None:
                seen.few += 1
                seen.none += not len(read.rows)
                unread = torch.ones(len(hidden), dtype=torch.bool)
                unread[read.rows] = False
                hidden[unread] = float("nan")
            return hidden

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "Graphs", Watched)
        if not ends_early:
            patch.setattr(worker, "can_end_early", lambda spec: False)
        yield seen


def _jobs() -> list[Job]:
    """Prompts up to `LONGEST`; greedy ones, sampled ones, forks, and few that ask for all of their prompt."""
    return mixed_jobs(
        14, vocab_size=400, longest=LONGEST, shortest=60, max_tokens=MAX_TOKENS, seed=3
    )


def _found(folder: Path, jobs: list[Job], ends_early: bool, **settings: Any) -> tuple[Any, Seen]:
    at_once = settings.pop("at_once", None)
    with last_layers(ends_early) as seen, engine(folder, **SETTINGS | settings) as client:
        return bits(run(client, jobs, at_once=at_once)), seen


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"dtype": "float32"},
    "qwen3": {"dtype": "bfloat16", "quantization": "int4"},
    "gemma2": {"dtype": "bfloat16", "kv_cache_dtype": "int8"},
    "gemma4_experts": {"dtype": "bfloat16"},
    "qwen3_moe": {"dtype": "bfloat16", "quantization": "int8"},
    "deepseek_v3": {"dtype": "bfloat16"},
    "olmo2": {"dtype": "float32", "kv_cache_dtype": "fp8"},
    "cohere": {"dtype": "bfloat16"},
    "falcon": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_bits_as_of_all_tokens(checkpoint: Callable[..., Path], family: str) -> None:
    folder, numbers = checkpoint(family), FAMILIES[family]
    whole, seen = _found(folder, _jobs(), False, **numbers)
    assert not seen.few
    few, seen = _found(folder, _jobs(), True, **numbers)
    assert seen.few and few == whole
    for budget in (300, 100):
        pieces, seen = _found(folder, _jobs(), True, **numbers, max_num_batched_tokens=budget)
        assert seen.few > 5 and pieces == whole


@pytest.mark.parametrize(
    "settings",
    [
        {"threads": 2},
        {"at_once": 1},
        {"at_once": 4, "enable_prefix_caching": True},
        {"block_size": 8, "async_scheduling": True, "max_num_batched_tokens": 300},
        {"threads": 2, "max_num_batched_tokens": 64},
    ],
    ids=str,
)
def test_the_same_bits_in_every_way(
    checkpoint: Callable[..., Path], settings: dict[str, Any]
) -> None:
    folder = checkpoint("qwen3")
    whole, _ = _found(folder, _jobs(), False)
    few, seen = _found(folder, _jobs(), True, **settings)
    assert seen.few and few == whole


def test_a_piece_of_which_nothing_is_read_ends_with_keys_and_values(
    checkpoint: Callable[..., Path],
) -> None:
    job = Job(tuple(5 + (7 * i) % 400 for i in range(700)), {"max_tokens": 4, "logprobs": 2}, 1)
    folder, pieces = checkpoint("gemma2"), {"max_num_batched_tokens": 320}
    few, seen = _found(folder, [job], True, **pieces)
    assert (seen.few, seen.none) == (3, 2)
    assert few == _found(folder, [job], False, **pieces)[0]


def test_prompts_that_are_read_whole_run_whole(checkpoint: Callable[..., Path]) -> None:
    long = Job(tuple(range(5, 395)), {"max_tokens": 2, "prompt_logprobs": 1}, 1)
    _, seen = _found(checkpoint("llama"), [long], True)
    assert not seen.few
    # Half of the tokens at most: one prompt is read whole beside longer ones that are not.
    others = [Job(tuple(range(300 - i, 5, -1)) * 2, {"max_tokens": 2}, i) for i in range(3)]
    jobs = [long, *others, with_params(long, prompt_logprobs=None, n=2)]
    few, seen = _found(checkpoint("llama"), jobs, True)
    assert seen.few and few == _found(checkpoint("llama"), jobs, False)[0]


@pytest.mark.parametrize(("task", "is_few"), [("embed", True), ("token_embed", False)])
def test_what_is_pooled_of_the_last_token(
    checkpoint: Callable[..., Path], task: Any, is_few: bool
) -> None:
    folder, numbers = checkpoint("qwen3"), []
    prompts = [prompt_ids(length, length) for length in (500, 30, 400)]
    for ends_early in (False, True):
        with (
            last_layers(ends_early) as seen,
            LLM(str(folder), runner="pooling", threads=1, max_model_len=768) as llm,
        ):
            found = llm.encode(prompts, pooling_task=task, use_tqdm=False)
            numbers.append([one.outputs.data for one in found])
    assert bool(seen.few) == is_few
    assert all(torch.equal(one, other) for one, other in zip(*numbers, strict=True))


@pytest.mark.parametrize(
    "family", ["gemma3n", "gemma4", "bamba", "mamba2", "deepseek_v32", "deepseek_v4", "ouro"]
)
def test_other_last_layers_run_for_all(checkpoint: Callable[..., Path], family: str) -> None:
    assert not can_end_early(describe(str(checkpoint(family))).spec)
