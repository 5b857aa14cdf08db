"""The first promise, in a small form: ids and logprobs depend on nothing but the request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.driver import mixed_jobs
from tests.e2e.matrix import matrix

CASES = [("llama", "float32", 36), ("qwen3", "bfloat16", 36), ("gemma2", "bfloat16", 48)]


@pytest.mark.parametrize(("family", "dtype", "tight_blocks"), CASES)
def test_bits_do_not_depend_on_company_chunks_cache_blocks_or_tickets(
    checkpoint: Callable[..., Path], family: str, dtype: str, tight_blocks: int
) -> None:
    jobs = mixed_jobs(16, vocab_size=400, longest=200, max_tokens=16)
    cells = list(
        matrix(checkpoint(family), jobs, dtype=dtype, tight_blocks=tight_blocks, longest=256)
    )
    assert {cell.name: cell.num_different for cell in cells if cell.num_different} == {}
    assert all(cell.num_preemptions > 0 for cell in cells if cell.name.startswith("preempted"))
    assert all(cell.num_cached_tokens > 0 for cell in cells if cell.name.endswith("warm"))
