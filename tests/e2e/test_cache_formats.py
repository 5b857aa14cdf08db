"""Models with a cache of one byte a number: the same bits in every way, and answers near the plain cache's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from quire import LLM, SamplingParams
from quire.ops.cpu.library import library
from tests.e2e.driver import mixed_jobs
from tests.e2e.matrix import MODELS, matrix, tight_tokens, ways

DEMO = "quire/models/demo"
LONGEST, MAX_TOKENS = 200, 24
PROMPTS = ["The capital of France is", "Once upon a time", "One, two, three, four,"]


@pytest.mark.parametrize(
    ("model", "dtype", "format"),
    [("kv2", "bfloat16", "int8"), ("window", "bfloat16", "fp8"), ("kv8", "float32", "int8")],
)
def test_bits_depend_on_the_request_alone(
    checkpoint: Callable[..., Path], model: str, dtype: str, format: str
) -> None:
    family, fields = MODELS[model]
    tokens = tight_tokens(model, LONGEST + MAX_TOKENS)
    cells = list(
        matrix(
            checkpoint(family, **fields),
            mixed_jobs(16, vocab_size=400, longest=LONGEST, max_tokens=MAX_TOKENS),
            ways(tight_tokens=tokens, is_small=True, restart=False),
            longest=LONGEST + MAX_TOKENS,
            dtype=dtype,
            kv_cache_dtype=format,
        )
    )
    assert {cell.name: cell.example for cell in cells if cell.num_different} == {}
    assert {cell.name: cell.weakness for cell in cells if cell.weakness} == {}


def _answer(**settings: str) -> tuple[list[str], list[float]]:
    """Greedy texts of 8 tokens, and the log-probability of every token of the prompts."""
    llm = LLM(model=DEMO, max_model_len=256, use_tqdm_on_load=False, **settings)
    params = SamplingParams(max_tokens=8, temperature=0, prompt_logprobs=0)
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    numbers = [
        next(iter(position.values())).logprob
        for output in outputs
        for position in output.prompt_logprobs[1:]  # type: ignore[index]
    ]
    return [output.outputs[0].text for output in outputs], numbers


@pytest.mark.parametrize(
    ("format", "limit"),
    [("int8", 0.05), ("fp8_per_token_head", 0.15), ("fp8", 0.15), ("fp8_e5m2", 0.3)],
)
def test_the_demo_model_says_the_same(format: str, limit: float) -> None:
    texts, numbers = _answer()
    found, near = _answer(kv_cache_dtype=format)
    assert found[0] == texts[0] == " Paris."
    gaps = [abs(a - b) for a, b in zip(numbers, near, strict=True)]
    assert 0 < sum(gaps) / len(gaps) < limit


@pytest.mark.skipif(library() is None, reason="no native library here")
def test_the_definition_and_the_kernels_agree() -> None:
    _, native = _answer(kv_cache_dtype="int8", dtype="float32")
    _, plain = _answer(
        kv_cache_dtype="int8", dtype="float32", kernel_overrides={"paged_attention": "reference"}
    )
    assert max(abs(a - b) for a, b in zip(native, plain, strict=True)) < 2e-3
