"""Attention over picked blocks through the engine: caching, company, chunks, fewer bits, and what the ledger counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quire.models import footprint
from quire.models.registry import describe
from quire.ops.arena import Arena
from tests.e2e import driver
from tests.models import harness
from tests.models.families_new import m3
from tests.models.test_latent import (  # the tests among them run here on this file's folder
    PROMPT,
    answer,
    test_a_cached_prefix_gives_the_same_bits,
    test_a_replayed_step_gives_the_bits_of_an_eager_one,
    test_company_chunks_and_block_size_change_no_bit,
    test_preemption_gives_the_same_bits,
)

__all__ = [
    "test_a_cached_prefix_gives_the_same_bits",
    "test_a_replayed_step_gives_the_bits_of_an_eager_one",
    "test_company_chunks_and_block_size_change_no_bit",
    "test_preemption_gives_the_same_bits",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A query sees two blocks of 16 tokens."""
    return harness.write_checkpoint(tmp_path_factory.mktemp("blocks"), m3(index_topk_blocks=2))


@pytest.fixture
def few_blocks() -> int:
    """As there, of blocks that keys alone have too."""
    return 16


@pytest.mark.parametrize("flat", [{"quantization": "int8"}, {"kv_cache_dtype": "fp8"}])
def test_fewer_bits_are_served(folder: Path, flat: dict[str, Any]) -> None:
    assert len(answer(folder, **flat).token_ids) == 12


def test_blocks_are_picked_where_a_sequence_may_have_more_tokens(folder: Path) -> None:
    description, used = describe(str(folder)), {}
    for longest in (32, 33):
        decoder = harness.load(description, max_len=longest)
        used[longest] = {one.attend.op.name for one in decoder.bindings if one.attend}
        found = harness.our_logits(decoder, PROMPT[:32], max_len=longest)
        theirs = harness.their_logits(folder, PROMPT[:32])
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-4)
    assert used[32] == {"paged_attention"}
    assert used[33] == {"paged_attention", "block_attention", "pick_blocks"}


def test_the_largest_step_stays_below_the_ledger(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, take = 0, Arena.take

    def watched(self: Arena, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        nonlocal most
        found = take(self, shape, kind)
        most = max(most, self._used)
        return found

    monkeypatch.setattr(Arena, "take", watched)
    sizes = footprint.StepSizes(num_tokens=100, num_rows=4, max_model_len=128, dtype_bytes=4)
    limits = {"max_model_len": 128, "max_num_seqs": 4, "max_num_batched_tokens": 100}
    params = {"max_tokens": 2, "ignore_eos": True, "detokenize": False}
    with driver.engine(folder, kv_cache_memory_bytes=4 << 20, **limits) as client:
        driver.run(client, [driver.Job(tuple(PROMPT * 2)[:100], params, 1)])
    counted = footprint.arena_bytes(describe(str(folder)).spec, sizes)
    assert 0.7 * counted <= most <= counted
