"""The first promise, in a small form: ids and logprobs depend on nothing but the request."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire.ops.cpu.library import library, usable
from tests.e2e.driver import mixed_jobs
from tests.e2e.matrix import FORMATS, MODELS, SETTINGS, Cell, Way, matrix, tight_tokens, ways

ROOT = Path(__file__).parents[2]
CASES = [
    ("llama", "float32"),
    ("gemma2", "bfloat16"),
    ("kv2", "bfloat16"),
    ("kv1", "int8"),
    ("window", "int4"),
    ("states", "float32"),
    ("deltas", "float32"),
    ("short", "bfloat16"),
    ("linear", "bfloat16"),
    ("gemma3n", "bfloat16"),
    ("shared", "bfloat16"),
    ("olmo_hybrid", "bfloat16"),
    ("apertus", "int8"),
    ("afmoe", "int4"),
    ("nemotron_h", "bfloat16"),
    ("deepseek_v4", "bfloat16"),
    ("rwkv", "bfloat16"),
    ("recurrent_gemma", "float32"),
]
LONGEST, MAX_TOKENS = 200, 20


def _run(
    checkpoint: Callable[..., Path], model: str, number_type: str, plan: list[Way]
) -> list[Cell]:
    family, fields = MODELS.get(model, (model, {}))
    jobs = mixed_jobs(12, vocab_size=400, longest=LONGEST, max_tokens=MAX_TOKENS)
    numbers: dict[str, Any] = FORMATS[number_type] | SETTINGS.get(model, {})
    folder = checkpoint(family, **fields)
    return list(matrix(folder, jobs, plan, longest=LONGEST + MAX_TOKENS, **numbers))


@pytest.mark.parametrize(("model", "number_type"), CASES)
def test_bits_do_not_depend_on_company_chunks_cache_blocks_tickets_threads_or_recording(
    checkpoint: Callable[..., Path], model: str, number_type: str
) -> None:
    tight = tight_tokens("window" if model == "gemma2" else model, LONGEST + MAX_TOKENS)
    plan = ways(tight_tokens=tight, is_small=True, restart=model == "kv1")
    cells = _run(checkpoint, model, number_type, plan)
    assert {cell.name: cell.example for cell in cells if cell.num_different} == {}
    assert {cell.name: cell.weakness for cell in cells if cell.weakness} == {}


def test_other_numbers_are_seen_as_differences(checkpoint: Callable[..., Path]) -> None:
    plan = [Way("alone", at_once=1), Way("all"), Way("bfloat16", {"dtype": "bfloat16"})]
    _, same, other = _run(checkpoint, "llama", "float32", plan)
    assert (same.num_different, same.num_tokens, same.num_logprobs) == (0, 0, 0)
    assert other.num_different > 4 and other.num_logprobs > 100 and other.num_tokens > 0
    assert "logprobs at" in other.example


@pytest.mark.skipif("avx2" not in usable(), reason="no native kernels for AVX2 on this machine")
def test_forced_kernels_of_another_instruction_set_keep_their_bits() -> None:
    assert library() is not None
    command = [sys.executable, "-m", "benchmarks.determinism", "--isa", "avx2", "--quick"]
    command += ["--prompts", "8", "--max-tokens", "16", "--models", "kv2", "--no-restart"]
    command += ["--formats", "int4", "--cells", "all", "budget 32", "two threads", "blocks of 8"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "avx2 kv2 int4" in done.stdout and "avx2: bad cells 0" in done.stdout
