"""Which blocks the heads of an indexer pick, against the plain formula in float64, and attention over them."""

from __future__ import annotations

import math

import pytest
import torch

from quire.ops.block_picks import BLOCK_ATTENTION, PICK_BLOCKS
from quire.ops.registry import load_all, providers
from quire.ops.tolerances import TOLERANCES
from tests.ops.attention_cases import Cache, Sequence, Shape, draw, stored
from tests.ops.test_picks import accepted, at_once, compare

load_all()
PICKERS, ATTENDERS = providers(PICK_BLOCKS), providers(BLOCK_ATTENTION)
INDEX = Shape(heads=2, kv_heads=1, head_size=24, value_size=0)
HEADS = Shape(heads=4, kv_heads=2, head_size=40, value_size=24)
LENGTHS = [1, 30, 77, 1060]
SIZE, LOCAL, COUNT = 16, 2, 4
FORMATS = ["plain", "fp8", "int8_per_token_head"]


def picks_of(
    shape: Shape, sequences: list[Sequence], counts: list[list[int]], local: int = LOCAL
) -> list[torch.Tensor]:
    """Picks [n, H, COUNT] of all tokens of each sequence, computed in steps of `counts` tokens each."""
    cache = Cache(PICKERS["reference"], shape, sequences)
    found: list[list[torch.Tensor]] = [[] for _ in sequences]
    for step in zip(*counts, strict=True):
        rows = [row for row, count in enumerate(step) if count]
        q = cache.prepare(rows, [step[row] for row in rows])
        picks = torch.empty(len(q), shape.heads, COUNT, dtype=torch.int32)
        cache.provider.run(q, cache.cache, cache.plan, size=SIZE, local=local, picks=picks)
        for row, part in zip(rows, picks.split([step[row] for row in rows]), strict=True):
            found[row].append(part.clone())
    return [torch.cat(parts) for parts in found]


@pytest.mark.parametrize("local", [0, 1, 2])
@pytest.mark.parametrize("format", FORMATS)
def test_the_best_blocks_are_picked(format: str, local: int) -> None:
    shape = Shape(**vars(INDEX) | {"format": format})
    sequences = draw(shape, LENGTHS)
    found = picks_of(shape, sequences, at_once(LENGTHS), local)
    for sequence, picks in zip(sequences, found, strict=True):
        each = torch.einsum("qhd,kd->qhk", sequence.q.double(), stored(shape, sequence.k)[:, 0])
        for query, of_heads in enumerate(picks):
            own, seen = query // SIZE, min(query // SIZE + 1, COUNT)
            for head, row in enumerate(of_heads):
                assert (row[:seen].diff() > 0).all() and (row[seen:] == -1).all()
                chosen = set(row[:seen].tolist())
                assert {block for block in range(own, own - local, -1) if block >= 0} <= chosen
                best = [
                    float(each[query, head, first : min(first + SIZE, query + 1)].max())
                    for first in range(0, query + 1, SIZE)
                ]
                free = [block for block in range(own + 1) if block <= own - local]
                left = max((best[one] for one in set(free) - chosen), default=-math.inf)
                taken = min((best[one] for one in set(free) & chosen), default=math.inf)
                assert taken >= left - 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_company_chunks_and_block_size_change_no_pick(dtype: str) -> None:
    shape = Shape(**vars(INDEX) | {"dtype": getattr(torch, dtype)})
    sequences = draw(shape, LENGTHS)
    wanted = [picks_of(shape, [one], [[n]])[0] for one, n in zip(sequences, LENGTHS, strict=True)]
    cut = [[0, 1, 0], [29, 0, 1], [13, 40, 24], [600, 457, 3]]
    for one in (shape, Shape(**vars(shape) | {"block_size": 64})):
        found = picks_of(one, sequences, cut)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_scores_that_are_no_numbers_harm_no_other_row() -> None:
    sequences = draw(INDEX, [90, 90])
    (clean,) = picks_of(INDEX, sequences[1:], [[90]])
    sequences[0].k[[3, 20]] = math.nan
    broken, same = picks_of(INDEX, sequences, [[90], [90]])
    assert torch.equal(same, clean)
    assert (broken[80:, :, :2] == torch.tensor([0, 1])).all()


def some_blocks(length: int, heads: int) -> torch.Tensor:
    """Picks [length, heads, COUNT] drawn at random, the own block among them, as `pick_blocks` writes them."""
    generator = torch.Generator().manual_seed(length)
    found = torch.full((length, heads, COUNT), -1, dtype=torch.int32)
    for query in range(length):
        for head in range(heads):
            own = query // SIZE
            order = torch.randperm(own, generator=generator)[: COUNT - 1]
            order = torch.cat((order, torch.tensor([own]))).sort().values
            found[query, head, : len(order)] = order.to(torch.int32)
    return found


def attended(
    shape: Shape, sequences: list[Sequence], picks: list[torch.Tensor]
) -> list[torch.Tensor]:
    """[n, H, Dv] of all tokens of each sequence."""
    lengths = [len(sequence.q) for sequence in sequences]
    cache = Cache(ATTENDERS["reference"], shape, sequences)
    q = cache.prepare([*range(len(sequences))], lengths)
    how = {"size": SIZE, "scale": shape.scale}
    out = cache.provider.run(q, torch.cat(picks), cache.cache, cache.plan, **how)
    return list(out.split(lengths))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_sees_the_picked_blocks_alone(dtype: str, format: str) -> None:
    assert "reference" in accepted(ATTENDERS, dtype, format)
    shape = Shape(**vars(HEADS) | {"dtype": getattr(torch, dtype), "format": format})
    lengths = [1, 40, 150]
    sequences = draw(shape, lengths)
    picks = [some_blocks(length, shape.kv_heads) for length in lengths]
    found = attended(shape, sequences, picks)
    for sequence, chosen, mixed in zip(sequences, picks, found, strict=True):
        count, group = len(sequence.q), shape.heads // shape.kv_heads
        keys, values = (stored(shape, one) for one in (sequence.k, sequence.v))
        blocks = torch.arange(count) // SIZE
        seen = (chosen.unsqueeze(-1) == blocks).any(2) & torch.ones(count, count).tril().bool()[
            :, None
        ]
        keys, values = (one.repeat_interleave(group, 1) for one in (keys, values))
        each = torch.einsum("qhd,khd->qhk", sequence.q.double(), keys) * shape.scale
        each = each.masked_fill(~seen.repeat_interleave(group, 1), -math.inf).softmax(-1)
        want = torch.einsum("qhk,khd->qhd", each, values)
        compare(mixed, want, TOLERANCES["block_attention"][dtype])


def test_company_changes_no_bit_of_attention() -> None:
    lengths = [33, 90]
    sequences, picks = draw(HEADS, lengths), [some_blocks(length, 2) for length in lengths]
    together = attended(HEADS, sequences, picks)
    alone = [
        attended(HEADS, [one], [chosen])[0] for one, chosen in zip(sequences, picks, strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
