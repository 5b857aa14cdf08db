"""Sequences in a paged cache, and the plain formula in float64, for the tests of attention.

Blocks are scattered; every slot starts as NaN, table entries behind a sequence are out of range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from quire.ops.attention import PAGED_ATTENTION, AttentionStep, CachePlace
from quire.ops.cache_codes import encode
from quire.ops.formats import cache_format
from quire.ops.registry import Signature, load_all, providers
from quire.ops.tolerances import TOLERANCES, Tolerance

load_all()
PROVIDERS = {
    name: provider
    for name, provider in providers(PAGED_ATTENTION).items()
    if provider.accepts(Signature("float32")) is None
}


def tolerance_of(provider: str, dtype: torch.dtype) -> Tolerance:
    """How far a provider's results may be from the formula."""
    line = "paged_attention, rounded weights" if provider == "cpu" else "paged_attention"
    return TOLERANCES[line][str(dtype).removeprefix("torch.")]


@dataclass(frozen=True)
class Shape:
    """Sizes of one attention, how its cache is cut and in which format it is kept."""

    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    value_size: int = 32
    dtype: torch.dtype = torch.float32
    block_size: int = 16
    blocks_per_slab: int = 3
    window: int | None = None
    softcap: float = 0.0
    sinks: bool = False
    slopes: bool = False
    format: str = "plain"

    @property
    def scale(self) -> float:
        return self.head_size**-0.5


@dataclass(frozen=True)
class Sequence:
    """q [n, H, D], k [n, K, D], v [n, K, Dv] of all its tokens."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor


def draw(shape: Shape, lengths: list[int], seed: int = 0) -> list[Sequence]:
    """Random sequences of these lengths."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(*sizes: int) -> torch.Tensor:
        return torch.randn(sizes, generator=generator).to(shape.dtype)

    return [
        Sequence(
            tensor(n, shape.heads, shape.head_size),
            tensor(n, shape.kv_heads, shape.head_size),
            tensor(n, shape.kv_heads, shape.value_size),
        )
        for n in lengths
    ]


def sinks_of(shape: Shape) -> torch.Tensor | None:
    """A score per head, spread around 0."""
    return torch.linspace(-2.0, 2.0, shape.heads) if shape.sinks else None


def slopes_of(shape: Shape) -> torch.Tensor | None:
    """A slope per head."""
    return 2.0 ** -torch.arange(1.0, shape.heads + 1) if shape.slopes else None


class Cache:
    """Sequences stored step by step; `step` writes the next tokens of some of them and attends."""

    def __init__(
        self, provider: str | Any, shape: Shape, sequences: list[Sequence], seed: int = 0
    ) -> None:
        """provider: a name of `paged_attention`'s, or one of another operation with such a cache."""
        self.provider = PROVIDERS[provider] if isinstance(provider, str) else provider
        self.shape, self.sequences = shape, sequences
        size = shape.block_size
        needed = [-(-len(s.q) // size) for s in sequences]
        num_slabs = -(-(sum(needed) + 2) // shape.blocks_per_slab)
        sizes = (shape.kv_heads, shape.head_size, shape.value_size, shape.dtype, shape.format)
        layer_bytes = size * self.provider.bytes_per_token(*sizes)
        buffer = torch.empty(
            num_slabs, 2 * layer_bytes * shape.blocks_per_slab + 32, dtype=torch.uint8
        )
        if shape.format == "plain":
            buffer.view(shape.dtype).fill_(math.nan)
        else:
            buffer.fill_(0xFF)  # not a number as a code of e4m3, and as a scale
        place = CachePlace(
            buffer=buffer,
            block_size=size,
            blocks_per_slab=shape.blocks_per_slab,
            block_bytes=2 * layer_bytes,
            layer_offset=layer_bytes,
        )
        self.buffer = buffer
        self.cache = self.provider.view(place, *sizes)
        self.plan = self.provider.new_plan(
            block_size=size,
            blocks_per_slab=shape.blocks_per_slab,
            window=shape.window,
            device=torch.device("cpu"),
        )
        order = np.random.default_rng(seed).permutation(num_slabs * shape.blocks_per_slab)
        self.tables = np.full((len(sequences), max(needed)), 1 << 20, dtype=np.int32)
        for row, count in enumerate(needed):
            self.tables[row, :count], order = order[:count], order[count:]
        self.done = [0] * len(sequences)

    def prepare(self, rows: list[int], counts: list[int]) -> torch.Tensor:
        """Fills the plan for the next `counts` tokens of `rows`, writes them and gives their q."""
        size, window = self.shape.block_size, self.shape.window
        parts: list[tuple[Sequence, slice]] = []
        slots = []
        tables = self.tables[rows].copy()
        for at, (row, count) in enumerate(zip(rows, counts, strict=True)):
            start = self.done[row]
            positions = np.arange(start, start + count)
            slots.append(
                self.tables[row][positions // size].astype(np.int64) * size + positions % size
            )
            parts.append((self.sequences[row], slice(start, start + count)))
            if window is not None:
                tables[at, : max(start - window + 1, 0) // size] = -1
            self.done[row] += count
        step = AttentionStep(
            query_start=np.cumsum([0, *counts]).astype(np.int32),
            seq_lens=np.array([self.done[row] for row in rows], dtype=np.int32),
            block_table=tables,
            slot_mapping=np.concatenate(slots),
        )
        self.provider.fill(self.plan, step)
        k = torch.cat([sequence.k[part] for sequence, part in parts])
        v = torch.cat([sequence.v[part] for sequence, part in parts])
        self.provider.write(k, v, self.cache, self.plan)
        return torch.cat([sequence.q[part] for sequence, part in parts])

    def step(self, rows: list[int], counts: list[int]) -> list[torch.Tensor]:
        """Attention of the next `counts` tokens of `rows`, [count, H, Dv] each."""
        q = self.prepare(rows, counts)
        result = self.provider.run(
            q,
            self.cache,
            self.plan,
            scale=self.shape.scale,
            window=self.shape.window,
            softcap=self.shape.softcap,
            sinks=sinks_of(self.shape),
            slopes=slopes_of(self.shape),
        )
        return list(result.split(counts))


def whole(provider: str, shape: Shape, sequence: Sequence) -> torch.Tensor:
    """All positions of one sequence in one step, [n, H, Dv]."""
    return Cache(provider, shape, [sequence]).step([0], [len(sequence.q)])[0]


def stored(shape: Shape, numbers: torch.Tensor) -> torch.Tensor:
    """What a cache keeps of keys or values [n, K, D], float64."""
    if shape.format == "plain":
        return numbers.double()
    codes, scales = encode(numbers, cache_format(shape.format))
    exact = codes.double()
    return exact if scales is None else exact * scales.double().unsqueeze(-1)


def formula(shape: Shape, sequence: Sequence, count: int) -> torch.Tensor:
    """The last `count` positions by the textbook formula in float64, [count, H, Dv]."""
    length, group = len(sequence.q), shape.heads // shape.kv_heads
    q = sequence.q[length - count :].double()
    k = stored(shape, sequence.k).repeat_interleave(group, dim=1)
    v = stored(shape, sequence.v).repeat_interleave(group, dim=1)
    scores = torch.einsum("chd,lhd->hcl", q, k) * shape.scale
    if shape.softcap:
        scores = torch.tanh(scores / shape.softcap) * shape.softcap
    query = torch.arange(length - count, length).unsqueeze(1)
    key = torch.arange(length)
    slopes = slopes_of(shape)
    if slopes is not None:
        scores += slopes.double().view(-1, 1, 1) * (key - query)
    hidden = key > query
    if shape.window is not None:
        hidden |= key <= query - shape.window
    scores = scores.masked_fill(hidden, -math.inf)
    sinks = sinks_of(shape)
    if sinks is not None:
        sink = sinks.double().view(-1, 1, 1).expand(-1, count, 1)
        weights = torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return torch.einsum("hcl,lhd->chd", weights, v)
