"""Which tokens an indexer picks, against the plain formula in float64, and attention over picked tokens."""

from __future__ import annotations

import math

import pytest
import torch

from quire.ops.picks import PICK_TOKENS, PICKED_ATTENTION
from quire.ops.registry import Signature, load_all, providers
from quire.ops.tolerances import TOLERANCES, Tolerance
from tests.ops.attention_cases import Cache, Sequence, Shape, draw, stored, whole

load_all()
PICKERS, ATTENDERS = providers(PICK_TOKENS), providers(PICKED_ATTENTION)
INDEX = Shape(heads=6, kv_heads=1, head_size=24, value_size=0)
LATENT = Shape(heads=4, kv_heads=1, head_size=40, value_size=24)
LENGTHS = [1, 30, 77, 1060]
FORMATS = ["plain", "fp8", "fp8_per_token_head", "int8_per_token_head", "fp8_e5m2"]


def weights_of(sequence: Sequence) -> torch.Tensor:
    """A weight of any sign for each query and head."""
    generator = torch.Generator().manual_seed(len(sequence.q))
    return torch.randn(len(sequence.q), INDEX.heads, generator=generator)


def scores(shape: Shape, sequence: Sequence) -> torch.Tensor:
    """[queries, keys] float64 by the formula; -inf where a key is behind the query."""
    keys = stored(shape, sequence.k)[:, 0]
    each = torch.einsum("qhd,kd->qhk", sequence.q.double(), keys).clamp(min=0)
    found = torch.einsum("qh,qhk->qk", weights_of(sequence).double(), each)
    behind = torch.ones_like(found, dtype=torch.bool).triu(1)
    return found.masked_fill(behind, -math.inf)


def picks_of(
    provider: str, shape: Shape, sequences: list[Sequence], counts: list[list[int]], top: int
) -> list[torch.Tensor]:
    """Picks [n, top] of all tokens of each sequence, computed in steps of `counts` tokens each."""
    cache = Cache(PICKERS[provider], shape, sequences)
    found: list[list[torch.Tensor]] = [[] for _ in sequences]
    for step in zip(*counts, strict=True):
        rows = [row for row, count in enumerate(step) if count]
        starts = [cache.done[row] for row in rows]
        q = cache.prepare(rows, [step[row] for row in rows])
        parts = [
            weights_of(sequences[row])[start : start + step[row]]
            for row, start in zip(rows, starts, strict=True)
        ]
        picks = torch.empty(len(q), top, dtype=torch.int32)
        cache.provider.run(q, torch.cat(parts), cache.cache, cache.plan, picks=picks)
        for row, part in zip(rows, picks.split([step[row] for row in rows]), strict=True):
            found[row].append(part.clone())
    return [torch.cat(parts) for parts in found]


def at_once(lengths: list[int]) -> list[list[int]]:
    return [[length] for length in lengths]


def as_sets(picks: torch.Tensor) -> list[set[int]]:
    return [set(row[row >= 0].tolist()) for row in picks]


def accepted(table: dict[str, object], dtype: str, format: str = "plain") -> list[str]:
    return [
        name
        for name, provider in table.items()
        if provider.accepts(Signature(dtype, format=format)) is None  # type: ignore[attr-defined]
    ]


@pytest.mark.parametrize(
    ("provider", "format"),
    [(name, format) for format in FORMATS for name in accepted(PICKERS, "float32", format)],
)
def test_the_best_tokens_are_picked(provider: str, format: str) -> None:
    shape = Shape(**vars(INDEX) | {"format": format})
    sequences, top = draw(shape, LENGTHS), 20
    for sequence, picks in zip(
        sequences, picks_of(provider, shape, sequences, at_once(LENGTHS), top), strict=True
    ):
        wanted = scores(shape, sequence)
        for query, row in enumerate(picks):
            seen = min(query + 1, top)
            assert (row[:seen].diff() > 0).all() and (row[seen:] == -1).all()
            assert row[0] >= 0 and row[:seen].max() <= query
            # Whatever was left out is no better than what was picked, but for rounding.
            chosen = wanted[query, row[:seen].long()]
            least = wanted[query, : query + 1].topk(seen).values
            torch.testing.assert_close(chosen.sort(descending=True).values, least)


@pytest.mark.parametrize("provider", PICKERS)
def test_of_equal_scores_the_earlier_token_is_picked(provider: str) -> None:
    (sequence,) = draw(INDEX, [90])
    alike = Sequence(sequence.q, sequence.k[:1].expand_as(sequence.k).contiguous(), sequence.v)
    for found in (alike, Sequence(torch.zeros_like(sequence.q), sequence.k, sequence.v)):
        (picks,) = picks_of(provider, INDEX, [found], [[90]], 7)
        assert as_sets(picks) == [set(range(min(query + 1, 7))) for query in range(90)]


@pytest.mark.parametrize("provider", PICKERS)
def test_scores_that_are_no_numbers_are_picked_first_and_harm_no_other_row(provider: str) -> None:
    sequences = draw(INDEX, [60, 60])
    (clean,) = picks_of(provider, INDEX, sequences[1:], [[60]], 5)
    sequences[0].k[[11, 13]] = math.nan
    broken, same = picks_of(provider, INDEX, sequences, [[60], [60]], 5)
    assert torch.equal(same, clean)
    assert all({11, 13} <= row for row in as_sets(broken)[13:])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("provider", PICKERS)
def test_company_chunks_and_block_size_change_no_pick(provider: str, dtype: str) -> None:
    shape = Shape(**vars(INDEX) | {"dtype": getattr(torch, dtype)})
    sequences = draw(shape, LENGTHS)
    wanted = [
        picks_of(provider, shape, [one], [[n]], 16)[0]
        for one, n in zip(sequences, LENGTHS, strict=True)
    ]
    cut = [[0, 1, 0], [29, 0, 1], [13, 40, 24], [600, 457, 3]]
    other = Shape(**vars(shape) | {"block_size": 64})
    for one in (shape, other):
        found = picks_of(provider, one, sequences, cut, 16)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def attended(
    provider: str,
    shape: Shape,
    sequences: list[Sequence],
    picks: list[torch.Tensor],
    sinks: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """[n, H, Dv] of all tokens of each sequence."""
    lengths = [len(sequence.q) for sequence in sequences]
    cache = Cache(ATTENDERS[provider], shape, sequences)
    q = cache.prepare([*range(len(sequences))], lengths)
    chosen, scale = torch.cat(picks), shape.scale
    out = cache.provider.run(q, chosen, cache.cache, cache.plan, scale=scale, sinks=sinks)
    return list(out.split(lengths))


def compare(found: torch.Tensor, want: torch.Tensor, tolerance: Tolerance) -> None:
    torch.testing.assert_close(
        found.double(), want.double(), rtol=tolerance.relative, atol=tolerance.absolute
    )


def some_picks(length: int, top: int) -> torch.Tensor:
    """Picks [length, top] drawn at random, as `pick_tokens` writes them."""
    generator = torch.Generator().manual_seed(length)
    found = torch.full((length, top), -1, dtype=torch.int32)
    for query in range(length):
        order = torch.randperm(query + 1, generator=generator)[:top]
        found[query, : len(order)] = order.sort().values
    return found


@pytest.mark.parametrize(
    ("provider", "dtype", "format"),
    [
        (name, dtype, format)
        for format in FORMATS
        for dtype in ("float32", "bfloat16")
        for name in accepted(ATTENDERS, dtype, format)
    ],
)
@pytest.mark.parametrize("has_sinks", [False, True])
def test_attention_sees_the_picked_tokens_alone(
    provider: str, dtype: str, format: str, has_sinks: bool
) -> None:
    shape = Shape(**vars(LATENT) | {"dtype": getattr(torch, dtype), "format": format})
    lengths = [1, 40, 150]
    sequences, picks = draw(shape, lengths), [some_picks(length, 37) for length in lengths]
    line = "picked_attention" if provider == "reference" else "paged_attention, rounded weights"
    sinks = torch.tensor([-0.5, 3.0, 0.0, 1.0]) if has_sinks else None
    for sequence, chosen, found in zip(
        sequences, picks, attended(provider, shape, sequences, picks, sinks), strict=True
    ):
        q, k = sequence.q.double(), stored(shape, sequence.k)[:, 0]
        each = torch.einsum("qhd,kd->qhk", q, k) * shape.scale
        seen = torch.zeros(len(q), len(q) + 1, dtype=torch.bool)
        seen.scatter_(1, torch.where(chosen < 0, len(q), chosen).long(), True)
        each = each.masked_fill(~seen[:, None, :-1], -math.inf)
        if sinks is not None:
            each = torch.cat((each, sinks.double().expand(len(q), -1).unsqueeze(-1)), -1)
        each = each.softmax(-1)[..., : len(q)]
        want = torch.einsum("qhk,kd->qhd", each, stored(shape, sequence.v)[:, 0])
        compare(found, want, TOLERANCES[line][dtype])


@pytest.mark.parametrize("provider", ATTENDERS)
def test_company_changes_no_bit_of_attention(provider: str) -> None:
    lengths = [33, 90]
    sequences, picks = draw(LATENT, lengths), [some_picks(length, 40) for length in lengths]
    together = attended(provider, LATENT, sequences, picks)
    alone = [
        attended(provider, LATENT, [one], [chosen])[0]
        for one, chosen in zip(sequences, picks, strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))


def test_all_tokens_picked_is_plain_attention() -> None:
    sequences = draw(LATENT, [70])
    (found,) = attended("reference", LATENT, sequences, [some_picks(70, 70)])
    plain = whole("reference", LATENT, sequences[0])
    compare(found, plain, TOLERANCES["paged_attention"]["float32"])
