"""Attention in which tokens see those behind them, or those of their own stretch only.

Every provider that knows it is compared with PyTorch's own.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quire.ops.attention import PAGED_ATTENTION, AttentionStep, CachePlace
from quire.ops.registry import Signature, load_all, providers

load_all()
BLOCK, HEADS, SIZE = 8, 2, 16
LENGTHS = (1, 40, 7, 100)


def step_of(lengths: tuple[int, ...]) -> AttentionStep:
    """All tokens of some sequences at once, in blocks one after the other."""
    counts = [-(-length // BLOCK) for length in lengths]
    table = np.full((len(lengths), max(counts)), -1, dtype=np.int32)
    slots: list[int] = []
    first = 0
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        table[row, :count] = np.arange(first, first + count)
        slots += range(first * BLOCK, first * BLOCK + length)
        first += count
    return AttentionStep(
        query_start=np.concatenate(([0], np.cumsum(lengths))).astype(np.int32),
        seq_lens=np.array(lengths, dtype=np.int32),
        block_table=table,
        slot_mapping=np.array(slots, dtype=np.int64),
    )


def expected(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None, kind: str
) -> torch.Tensor:
    """[T, H, D] for one sequence."""
    places, size = torch.arange(len(q)), window or len(q) + 1
    seen = (places[:, None] - places).abs() < size
    if kind == "chunked":
        seen = (places[:, None] // size == places // size) & (places[:, None] >= places)
    made = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(0, 1) for x in (q, k, v)), attn_mask=seen, scale=0.3
    )
    return made.transpose(0, 1)


RULES = [("bidirectional", window) for window in (None, 5, 33)]
RULES += [("chunked", window) for window in (1, 5, 32, 33, 64)]


@pytest.mark.parametrize(("kind", "window"), RULES)
@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_tokens_see_what_the_rule_says(name: str, kind: str, window: int | None) -> None:
    provider = providers(PAGED_ATTENTION)[name]
    sizes = {"H": HEADS, "K": HEADS, "D": SIZE, kind: True}
    refusal = provider.accepts(Signature("float32", sizes, "plain", "cpu"))
    if refusal is not None:
        pytest.skip(refusal)
    step, total = step_of(LENGTHS), sum(LENGTHS)
    q, k, v = (torch.randn(total, HEADS, SIZE) for _ in range(3))
    block_bytes = 2 * BLOCK * HEADS * SIZE * 4
    place = CachePlace(
        buffer=torch.zeros((64, block_bytes), dtype=torch.uint8),
        block_size=BLOCK,
        blocks_per_slab=1,
        block_bytes=block_bytes,
        layer_offset=0,
    )
    cache = provider.view(place, HEADS, SIZE, SIZE, torch.float32)  # type: ignore[attr-defined]
    plan = provider.new_plan(  # type: ignore[attr-defined]
        block_size=BLOCK, blocks_per_slab=1, window=None, device=torch.device("cpu")
    )
    provider.fill(plan, step)  # type: ignore[attr-defined]
    provider.write(k, v, cache, plan)  # type: ignore[attr-defined]
    found = provider.run(q, cache, plan, scale=0.3, window=window, **{kind: True})
    for start, end in zip(step.query_start[:-1], step.query_start[1:], strict=True):
        rows = slice(int(start), int(end))
        wanted = expected(q[rows], k[rows], v[rows], window, kind)
        torch.testing.assert_close(found[rows], wanted, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bidirectional", "it computes causal attention only"),
        ("chunked", "its windows move with the query; they cannot stand in stretches"),
    ],
)
def test_a_provider_that_does_not_know_a_rule_refuses(kind: str, reason: str) -> None:
    sizes = {"H": HEADS, "K": HEADS, "D": SIZE, kind: True}
    refusal = providers(PAGED_ATTENTION)["torch"].accepts(
        Signature("float32", sizes, "plain", "cpu")
    )
    assert refusal == reason
