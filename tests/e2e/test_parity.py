"""Greedy tokens and logits against Transformers in float32, through the whole engine."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.e2e.driver import Job, engine, run

NUM_TOKENS = 64


@pytest.fixture(scope="module")
def greedy() -> Callable[[Path, tuple[int, ...]], list[int]]:
    """Transformers' greedy continuation, each prompt alone."""
    models = {}

    def continue_(folder: Path, prompt: tuple[int, ...]) -> list[int]:
        if folder not in models:
            models[folder] = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager"
            ).eval()
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = models[folder].generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NUM_TOKENS,
                min_new_tokens=NUM_TOKENS,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        return out[0, len(prompt) :].tolist()

    return continue_


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_greedy_tokens_are_those_of_transformers_in_one_mixed_batch_chunked_and_cache_warm(
    checkpoint: Callable[..., Path],
    greedy: Callable[[Path, tuple[int, ...]], list[int]],
    family: str,
) -> None:
    folder = checkpoint(family)
    rng = random.Random(1)
    prompts = [
        tuple(rng.randrange(5, 400) for _ in range(length))
        for length in (1, 7, 33, 64, 130, 200, 200)
    ]
    expected = [greedy(folder, prompt) for prompt in prompts]
    assert len({tuple(ids) for ids in expected}) == len(prompts)
    jobs = [
        Job(p, {"max_tokens": NUM_TOKENS, "temperature": 0.0, "ignore_eos": True}, seed=0)
        for p in prompts
    ]
    with engine(folder, dtype="float32", max_model_len=512, max_num_batched_tokens=96) as client:
        for tag in ("cold", "warm"):
            found = run(client, jobs, tag=tag)
            assert [sequences[0].token_ids for sequences in found] == expected, tag
        assert found[-1][0].num_cached_tokens >= 190


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_prompt_logprobs_are_those_of_transformers_at_every_position(
    checkpoint: Callable[..., Path], family: str
) -> None:
    folder = checkpoint(family)
    prompt = tuple(5 + (13 * i * i + 7 * i) % 400 for i in range(200))
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([prompt])).logits[0, :-1], dim=-1)
    job = Job(prompt, {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}, seed=0)
    with engine(folder, dtype="float32", max_model_len=512, max_num_batched_tokens=48) as client:
        found = run(client, [job])[0][0].prompt_logprobs
    assert len(found) == len(prompt) - 1
    for position, one in enumerate(found):
        chosen = prompt[position + 1]
        assert one.token_ids[0] == chosen
        assert abs(one.logprobs[0] - expected[position, chosen].item()) < 1e-4
        assert one.ranks[0] == int((expected[position] > expected[position, chosen]).sum()) + 1


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 4e-2), ("float16", 1e-2)])
def test_half_precision_stays_near_transformers_in_the_same_type(
    checkpoint: Callable[..., Path], dtype: str, tolerance: float
) -> None:
    folder = checkpoint("llama", layers=1)
    prompt = tuple(5 + (13 * i * i + 7 * i) % 400 for i in range(60))
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, :-1].float()
    expected = torch.log_softmax(logits, dim=-1)
    spread = float(logits.std())
    job = Job(prompt, {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}, seed=0)
    with engine(folder, dtype=dtype, max_model_len=128) as client:
        found = run(client, [job])[0][0].prompt_logprobs
    errors = [
        abs(one.logprobs[0] - expected[position, one.token_ids[0]].item())
        for position, one in enumerate(found)
    ]
    assert sum(errors) / len(errors) < tolerance * spread
