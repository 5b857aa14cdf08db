"""On a GPU: the whole engine gives the CPU's greedy tokens, and the same bits alone and in company."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire import LLM, SamplingParams
from tests.checkpoints import VOCAB_SIZE
from tests.e2e.driver import Job, bits, engine, mixed_jobs, run
from tests.gpu import NEEDS_GPU

pytestmark = NEEDS_GPU

FAMILIES = ["llama", "qwen3", "gemma2"]
GREEDY: dict[str, Any] = {"max_tokens": 32, "temperature": 0.0, "ignore_eos": True}


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_the_cpu_chunked_and_cache_warm(
    checkpoint: Callable[..., Path], family: str
) -> None:
    rng = random.Random(1)
    prompts = [tuple(rng.randrange(5, 400) for _ in range(n)) for n in (1, 7, 33, 64, 130, 200)]
    jobs = [Job(prompt, GREEDY, seed=0) for prompt in prompts]
    flat = {"dtype": "float32", "max_model_len": 512, "max_num_batched_tokens": 96}
    with engine(checkpoint(family), device="cpu", **flat) as client:
        expected = [one[0].token_ids for one in run(client, jobs)]
    with engine(checkpoint(family), device="cuda", **flat) as client:
        assert ("device", "cuda", "given") in client.info.table
        for tag in ("cold", "warm"):
            found = run(client, jobs, tag=tag)
            assert [one[0].token_ids for one in found] == expected, tag
        assert found[-1][0].num_cached_tokens >= 190


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_bits_are_the_same_alone_in_company_and_in_chunks(
    checkpoint: Callable[..., Path], family: str, dtype: str
) -> None:
    jobs = mixed_jobs(10, vocab_size=VOCAB_SIZE, longest=120, max_tokens=8)
    flat = {"dtype": dtype, "max_model_len": 512, "device": "cuda"}
    with engine(checkpoint(family), **flat, enable_prefix_caching=False) as client:
        alone = bits(run(client, jobs, at_once=1))
        assert bits(run(client, jobs)) == alone
    with engine(checkpoint(family), **flat, max_num_batched_tokens=48, block_size=32) as client:
        assert bits(run(client, jobs)) == alone


def test_llm_takes_the_gpu_by_itself() -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    with LLM(kv_cache_memory_bytes=64 << 20) as llm:
        assert {name: value for name, value, _ in llm.llm_engine.client.info.table}[
            "device"
        ] == "cuda"
        [answer] = llm.chat(question, SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)
    assert "Paris" in answer.outputs[0].text
