"""Attention over a window and over entries: the definition against plain formulas in float64, and its bits.

Sequences come in steps of odd sizes, in company and alone; slots that nothing was written to hold NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from quire.models.compressed import Compressed, Kept
from quire.models.spec import Rope
from quire.ops.attention import AttentionStep, CachePlace
from quire.ops.compressed import COMPRESSED_ATTENTION, Mixing, Rows
from quire.ops.registry import Signature, load_all, providers
from quire.ops.tolerances import TOLERANCES

load_all()
HEADS, SIZE, TURNED, WINDOW, EPS = 3, 16, 6, 20, 0.01
INDEX_HEADS, INDEX_SIZE = 9, 8
LENGTHS = (75, 31, 1, 52)


@dataclass(frozen=True)
class Shape:
    """Tokens of an entry, how many are picked (0: all are seen), and how the cache is cut."""

    rate: int = 4
    top_k: int = 5
    block_size: int = 8
    dtype: torch.dtype = torch.float32

    @property
    def series(self) -> int:
        return 2 if self.top_k else 1

    @property
    def kept(self) -> tuple[Kept, ...]:
        index = (INDEX_HEADS, INDEX_SIZE) if self.top_k else (0, 0)
        spec = Compressed(
            num_heads=HEADS,
            head_size=SIZE,
            q_rank=1,
            rope=Rope(dim=TURNED),
            window=WINDOW,
            rate=self.rate,
            index_heads=index[0],
            index_size=index[1],
            index_top_k=self.top_k,
            out_groups=1,
            out_rank=1,
        )
        return spec.kept


def table() -> torch.Tensor:
    angles = torch.arange(128.0)[:, None] * 0.7 ** torch.arange(TURNED // 2)
    return torch.cat((angles.cos(), angles.sin()), dim=1)


class Inputs:
    """What the layer's products give of each token of some sequences."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        generator = torch.Generator().manual_seed(1)
        draw = partial(torch.randn, generator=generator)
        self.mixing = [
            Mixing(
                draw(shape.rate, shape.series * size),
                1 + 0.3 * draw(size),
                table(),
                shape.series,
                EPS,
                True,
            )
            for size in (SIZE, INDEX_SIZE)
        ]
        self.sinks = draw(HEADS)
        widths = {
            "q": HEADS * SIZE,
            "key": SIZE,
            "first": 2 * shape.series * SIZE,
            "second": 2 * shape.series * INDEX_SIZE if shape.top_k else 0,
            "index_q": INDEX_HEADS * INDEX_SIZE,
            "shares": INDEX_HEADS,
        }
        self.sequences = [
            {name: draw(length, width).to(shape.dtype) for name, width in widths.items()}
            for length in LENGTHS
        ]


class Cache:
    """The three kinds of rows in blocks of their own, in a shuffled order."""

    def __init__(self, inputs: Inputs, provider: Any) -> None:
        self.inputs, self.shape, self.provider = inputs, inputs.shape, provider
        self.done = [0] * len(LENGTHS)
        needed = -(-max(LENGTHS) // self.shape.block_size)
        order = np.random.default_rng(0).permutation(needed * len(LENGTHS) * 2)
        self.tables = order[: needed * len(LENGTHS)].reshape(len(LENGTHS), needed).astype(np.int32)
        self.rows = [self._rows(kept, len(order)) for kept in self.shape.kept]
        self.windows = [kept.window for kept in self.shape.kept]

    def _rows(self, kept: Kept, num_blocks: int) -> Rows:
        each = kept.rows(self.shape.block_size)
        sizes = (1, kept.head_size, kept.value_size, self.shape.dtype)
        num_bytes = each * self.provider.bytes_per_token(*sizes)
        place = CachePlace(
            buffer=torch.full((num_blocks, num_bytes), 0xFF, dtype=torch.uint8),
            block_size=each,
            blocks_per_slab=1,
            block_bytes=num_bytes,
            layer_offset=0,
        )
        plan = self.provider.new_plan(
            block_size=self.shape.block_size, blocks_per_slab=1, window=kept.window, device="cpu"
        )
        return Rows(self.provider.view(place, *sizes), plan, kept.rate)

    def step(self, rows: list[int], counts: list[int]) -> list[torch.Tensor]:
        """Attends for the next `counts` tokens of `rows`: [n, H, D] of each."""
        size, ends = (
            self.shape.block_size,
            [self.done[r] + n for r, n in zip(rows, counts, strict=True)],
        )
        parts = [slice(self.done[r], end) for r, end in zip(rows, ends, strict=True)]
        positions = [np.arange(part.start, part.stop) for part in parts]
        slots = [
            self.tables[r][at // size].astype(np.int64) * size + at % size
            for r, at in zip(rows, positions, strict=True)
        ]
        for own, window in zip(self.rows, self.windows, strict=True):
            tables = self.tables[rows].copy()
            for at, part in enumerate(parts):
                if window is not None:  # blocks that it has passed were given back
                    tables[at, : max(part.start - window + 1, 0) // size] = -1
            step = AttentionStep(
                query_start=np.cumsum([0, *counts]).astype(np.int32),
                seq_lens=np.array(ends, dtype=np.int32),
                block_table=tables,
                slot_mapping=np.concatenate(slots),
            )
            self.provider.fill(own.plan, step)
        given = {
            name: torch.cat(
                [self.inputs.sequences[r][name][part] for r, part in zip(rows, parts, strict=True)]
            )
            for name in self.inputs.sequences[0]
        }
        for row, end in zip(rows, ends, strict=True):
            self.done[row] = end
        return list(self._attend(given).split(counts))

    def _attend(self, given: dict[str, torch.Tensor]) -> torch.Tensor:
        shape, (near, entries, tail) = self.shape, self.rows
        key = given["key"].unsqueeze(1)
        self.provider.write(key, key[..., :0], near)
        self.provider.write(given["first"].unsqueeze(1), given["second"].unsqueeze(1), tail)
        picks = None
        for is_index in (False, True)[: shape.series]:
            self.provider.compress(tail, entries, self.inputs.mixing[is_index], is_index=is_index)
        if shape.top_k:
            query = given["index_q"].view(-1, INDEX_HEADS, INDEX_SIZE)
            picks = torch.empty(len(query), shape.top_k, dtype=torch.int32)
            self.provider.pick(query, given["shares"], entries, out=picks)
        query = given["q"].view(-1, HEADS, SIZE)
        return self.provider.run(  # type: ignore[no-any-return]
            query,
            near,
            scale=SIZE**-0.5,
            window=WINDOW,
            sinks=self.inputs.sinks,
            entries=entries,
            picks=picks,
            out=torch.empty_like(query),
        )


def entries_of(given: torch.Tensor, mixing: Mixing, rate: int, dtype: torch.dtype) -> torch.Tensor:
    """All entries of a sequence by the definition, one number at a time."""
    series, size = mixing.series, len(mixing.norm)
    vectors, weighing = given.double().chunk(2, -1)
    found = []
    for w in range(len(given) // rate):
        slots = [(t, size * (series - 1), t - w * rate) for t in range(w * rate, w * rate + rate)]
        if series == 2 and w:
            slots += [(t - rate, 0, place) for t, _, place in slots]
        x = torch.stack([vectors[t, at : at + size] for t, at, _ in slots])
        y = torch.stack(
            [
                weighing[t, at : at + size] + mixing.bias[p, at : at + size].double()
                for t, at, p in slots
            ]
        )
        made = (x * torch.softmax(y, 0)).sum(0)
        made = made * torch.rsqrt(made.square().mean() + EPS) * mixing.norm.double()
        cos, sin = mixing.table[w * rate].double().chunk(2)
        a, b = made[size - TURNED :: 2].clone(), made[size - TURNED + 1 :: 2].clone()
        made[size - TURNED :: 2], made[size - TURNED + 1 :: 2] = (
            a * cos - b * sin,
            b * cos + a * sin,
        )
        found.append(made.to(dtype).double())
    return torch.stack(found) if found else torch.zeros(0, size, dtype=torch.float64)


def formula(inputs: Inputs, sequence: dict[str, torch.Tensor]) -> torch.Tensor:
    """[T, H, D] in float64 from whole sequences."""
    shape, length = inputs.shape, len(sequence["q"])
    entries = entries_of(sequence["first"], inputs.mixing[0], shape.rate, shape.dtype)
    index = None
    if shape.top_k:
        index = entries_of(sequence["second"], inputs.mixing[1], shape.rate, shape.dtype)
    out = torch.empty(length, HEADS, SIZE, dtype=torch.float64)
    for t in range(length):
        seen = list(range((t + 1) // shape.rate))
        if index is not None:
            query = sequence["index_q"][t].double().view(INDEX_HEADS, INDEX_SIZE)
            scores = torch.relu(query @ index[seen].T).T @ sequence["shares"][t].double()
            seen = sorted(sorted(seen, key=lambda w: -float(scores[w]))[: shape.top_k])
        near = sequence["key"][max(t - WINDOW + 1, 0) : t + 1].double()
        keys = torch.cat((near, entries[seen]))
        scores = sequence["q"][t].double().view(HEADS, SIZE) @ keys.T * SIZE**-0.5
        both = torch.cat((scores, inputs.sinks.double()[:, None]), -1)
        out[t] = torch.softmax(both, -1)[:, :-1] @ keys
    return out


SHAPES = [
    Shape(),
    Shape(rate=3, top_k=4, block_size=16),
    Shape(rate=20, top_k=0),
    Shape(rate=12, top_k=0, block_size=16, dtype=torch.bfloat16),
]
PROVIDERS = [
    provider
    for provider in providers(COMPRESSED_ATTENTION).values()
    if provider.accepts(Signature("float32")) is None
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda it: it.name)
def test_values_are_those_of_the_formula_in_steps_of_any_size(provider: Any, shape: Shape) -> None:
    inputs = Inputs(shape)
    whole, cut = Cache(inputs, provider), Cache(inputs, provider)
    together = whole.step([0, 1, 2, 3], list(LENGTHS))
    tolerance = TOLERANCES["compressed_attention"][str(shape.dtype).removeprefix("torch.")]
    for found, sequence in zip(together, inputs.sequences, strict=True):
        want = formula(inputs, sequence)
        torch.testing.assert_close(
            found.double(), want, rtol=tolerance.relative, atol=tolerance.absolute
        )
    plan = [([3, 0], [1, 13]), ([0], [1]), ([1, 0, 2], [30, 7, 1]), ([0, 3], [1, 40]), ([3], [11])]
    plan += [([0, 1], [20, 1])] + [([0], [1])] * 33
    pieces: dict[int, list[torch.Tensor]] = {row: [] for row in range(len(LENGTHS))}
    for rows, counts in plan:
        for row, found in zip(rows, cut.step(rows, counts), strict=True):
            pieces[row].append(found)
    for row, found in enumerate(together):
        assert torch.equal(torch.cat(pieces[row]), found), f"sequence {row}"


def test_equal_scores_go_to_the_earlier_entry() -> None:
    inputs = Inputs(Shape())
    for sequence in inputs.sequences:
        sequence["shares"].zero_()
    cache = Cache(inputs, providers(COMPRESSED_ATTENTION)["reference"])
    cache.step([0], [LENGTHS[0]])
    out = torch.empty(LENGTHS[0], 5, dtype=torch.int32)
    query = inputs.sequences[0]["index_q"].view(-1, INDEX_HEADS, INDEX_SIZE)
    cache.provider.pick(query, inputs.sequences[0]["shares"], cache.rows[1], out=out)
    assert out[74].tolist() == [0, 1, 2, 3, 4]
    assert out[10].tolist() == [0, 1, -1, -1, -1]


def test_rows_of_fewer_bits_are_refused() -> None:
    provider = providers(COMPRESSED_ATTENTION)["reference"]
    assert "not as fp8" in str(provider.accepts(Signature("float32", format="fp8")))
