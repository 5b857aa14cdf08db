"""Attention over a window of vectors and over entries that stand for many tokens, of one layer.

The arithmetic on what is cached is `ops.compressed`. Source: the DeepSeek V4 report, section 2.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.mla import HeadProducts
from quire.layers.norm import PlainNorm, RmsNorm
from quire.ops.arena import Arena
from quire.ops.compressed import COMPRESSED_ATTENTION, Mixing, Rows
from quire.ops.registry import Bound, Table
from quire.ops.rope import ROPE
from quire.quant.formats import PLAIN, Formats


@dataclass(frozen=True, kw_only=True)
class CompressedSizes:
    """The numbers of one layer: H heads of D, Q of the latent of queries; G groups of heads with R numbers each.

    rate, series  tokens of an entry, and vectors that each gives; rate 0: no entries.
    index_heads, index_size, top_k  of the index; 0: none.
    """

    size: int
    num_heads: int
    head_size: int
    q_rank: int
    scale: float
    window: int
    rate: int
    series: int
    index_heads: int
    index_size: int
    top_k: int
    out_groups: int
    out_rank: int
    eps: float


class CompressedAttention:
    """x [T, C] to [T, C] for a layer whose kept rows have the numbers from `index` on.

    Its parameters: `<name>.q_down`, `q_norm`, `q_up`, `kv`, `kv_norm`, `sinks` [H], `out_down` [G * R, H * D / G],
    `out`; of entries `compress` and of an index `index.q`, `index.shares` [IH, C], `index.compress`.

    tables  [max_len, P] of the turn, and of the turn back.
    format  of the weights but those of entries, of the index, and out_down's.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: CompressedSizes,
        *,
        tables: tuple[torch.Tensor, torch.Tensor],
        interleaved: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        cache_format: str = "plain",
    ) -> None:
        self.index = index
        self._name = name
        self._sizes = sizes
        kind, heads, size = dtype_name(dtype), sizes.num_heads, sizes.head_size
        linear = partial(Linear, table, bias=False, dtype=dtype, format=format)
        norm = partial(RmsNorm, table, eps=sizes.eps, dtype=dtype)
        self._q_down = linear(f"{name}.q_down", in_size=sizes.size, out_size=sizes.q_rank)
        self._q_norm = norm(f"{name}.q_norm", size=sizes.q_rank)
        self._q_up = linear(f"{name}.q_up", in_size=sizes.q_rank, out_size=heads * size)
        self._head_norm = PlainNorm(table, size, sizes.eps, dtype)
        self._kv = linear(f"{name}.kv", in_size=sizes.size, out_size=size)
        self._kv_norm = norm(f"{name}.kv_norm", size=size)
        self._turned = tables[0].shape[1]
        turn = table.bind(ROPE, kind, D=self._turned, rot=self._turned)
        self._turn, self._turn_back = (
            partial(turn, table=one, interleaved=interleaved) for one in tables
        )
        self._attend = table.bind(
            COMPRESSED_ATTENTION, kind, format=cache_format, H=heads, K=1, D=size
        )
        self._sinks = torch.empty(0)
        self._out_down = HeadProducts(
            table,
            in_size=heads * size // sizes.out_groups,
            out_size=sizes.out_rank,
            dtype=dtype,
        )
        self._out = linear(
            f"{name}.out", in_size=sizes.out_groups * sizes.out_rank, out_size=sizes.size
        )
        parts = partial(
            EntryParts,
            table,
            sizes=sizes,
            turn=tables[0],
            interleaved=interleaved,
            dtype=dtype,
        )
        self._entries: EntryParts | None = None
        self._picker: Index | None = None
        if sizes.rate:
            self._entries = parts(f"{name}.compress", head_size=size)
        if sizes.index_heads:
            own = parts(f"{name}.index.compress", head_size=sizes.index_size)
            self._picker = Index(table, f"{name}.index", sizes, own, self._turn, dtype=dtype)

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """For the worker, which makes the operation's plans and cache views, one for each kind of rows."""
        return (self._attend,) * (3 if self._sizes.rate else 1)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        sizes = self._sizes
        for part in (self._q_down, self._q_norm, self._q_up, self._kv, self._kv_norm):
            part.load(weights)
        self._sinks = weights(f"{self._name}.sinks")
        both = weights(f"{self._name}.out_down.weight")
        self._out_down.pack(both.view(sizes.out_groups, sizes.out_rank, -1))
        self._out.load(weights)
        for entries in (self._entries, self._picker):
            if entries is not None:
                entries.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Caches what is kept, then attends; writes [T, C] into `out`, which may be x."""
        sizes, arena, positions = self._sizes, ctx.arena, ctx.positions[0]
        num_tokens, heads, size = x.shape[0], sizes.num_heads, sizes.head_size
        latent = self._q_down(x, out=arena.take((num_tokens, sizes.q_rank), x.dtype))
        self._q_norm(latent, out=latent)
        made = self._q_up(latent, out=arena.take((num_tokens, heads * size), x.dtype))
        query = self._head_norm(made.view(num_tokens, heads, size), arena)
        self._turn(query[..., size - self._turned :], positions)
        key = self._kv(x, out=arena.take((num_tokens, size), x.dtype))
        self._kv_norm(key, out=key)
        key = key.unsqueeze(1)  # [T, 1, D]
        self._turn(key[..., size - self._turned :], positions)
        near = self._rows(ctx, 0)
        self._attend.call("write", key, key[..., :0], near)
        entries, picks = self._made(x, latent, ctx)
        mixed = arena.take((num_tokens, heads, size), x.dtype)
        self._attend(
            query,
            near,
            scale=sizes.scale,
            window=sizes.window,
            sinks=self._sinks,
            entries=entries,
            picks=picks,
            out=mixed,
        )
        self._turn_back(mixed[..., size - self._turned :], positions)
        narrow = arena.take((num_tokens, sizes.out_groups, sizes.out_rank), x.dtype)
        self._out_down(mixed.view(num_tokens, sizes.out_groups, -1), out=narrow)
        return self._out(narrow.view(num_tokens, -1), out=out)

    def _rows(self, ctx: ForwardContext, place: int) -> Rows:
        """The window's rows, the entries, or what those are made of."""
        number = self.index + place
        rate = self._sizes.rate if place == 1 else 1
        return Rows(*ctx.cached(number), rate)

    def _made(
        self, x: torch.Tensor, latent: torch.Tensor, ctx: ForwardContext
    ) -> tuple[Rows | None, torch.Tensor | None]:
        """The entries, those of this step made, and of an index each token's picks."""
        if self._entries is None:
            return None, None
        entries, tail = self._rows(ctx, 1), self._rows(ctx, 2)
        first = self._entries.gives(x, ctx.arena)
        second = first[..., :0] if self._picker is None else self._picker.parts.gives(x, ctx.arena)
        self._attend.call("write", first, second, tail)
        self._attend.call("compress", tail, entries, self._entries.mixing, is_index=False)
        if self._picker is None:
            return entries, None
        self._attend.call("compress", tail, entries, self._picker.parts.mixing, is_index=True)
        query, shares = self._picker(x, latent, ctx)
        picks = ctx.arena.take((x.shape[0], self._sizes.top_k), torch.int32)
        self._attend.call("pick", query, shares, entries, out=picks)
        return entries, picks


class EntryParts:
    """What a token gives to entries, and how they are made of it.

    Its parameters: `<name>.weight` [2 * series * D, C], the vectors and then what weighs them, `<name>.slots`
    [rate, series * D], `<name>.norm.weight` [D].
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        sizes: CompressedSizes,
        head_size: int,
        turn: torch.Tensor,
        interleaved: bool,
        dtype: torch.dtype,
    ) -> None:
        self._name = name
        self._mix = partial(
            Mixing, table=turn, series=sizes.series, eps=sizes.eps, interleaved=interleaved
        )
        self._width = 2 * sizes.series * head_size
        self._product = Linear(
            table, name, in_size=sizes.size, out_size=self._width, bias=False, dtype=dtype
        )
        self._mixing: Mixing | None = None

    @property
    def mixing(self) -> Mixing:
        """For `ops.compressed`."""
        assert self._mixing is not None
        return self._mixing

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._product.load(weights)
        bias, norm = weights(f"{self._name}.slots"), weights(f"{self._name}.norm.weight")
        self._mixing = self._mix(bias=bias, norm=norm)

    def gives(self, x: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[T, 1, 2 * series * D] from the arena."""
        given = self._product(x, out=arena.take((x.shape[0], self._width), x.dtype))
        return given.unsqueeze(1)


class Index:
    """Queries [T, IH, ID] of the index, and the share of each [T, IH]."""

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: CompressedSizes,
        parts: EntryParts,
        turn: Callable[..., object],
        *,
        dtype: torch.dtype,
    ) -> None:
        self.parts = parts
        self._turn = turn
        self._heads, self._size = sizes.index_heads, sizes.index_size
        linear = partial(Linear, table, bias=False, dtype=dtype)
        width = sizes.index_heads * sizes.index_size
        self._q = linear(f"{name}.q", in_size=sizes.q_rank, out_size=width)
        self._shares = linear(f"{name}.shares", in_size=sizes.size, out_size=sizes.index_heads)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (self.parts, self._q, self._shares):
            part.load(weights)

    def __call__(
        self, x: torch.Tensor, latent: torch.Tensor, ctx: ForwardContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both from the arena, for x [T, C] and the latent of its queries."""
        num_tokens, arena = x.shape[0], ctx.arena
        query = arena.take((num_tokens, self._heads, self._size), x.dtype)
        self._q(latent, out=query.view(num_tokens, -1))
        turned = self.parts.mixing.table.shape[1]
        self._turn(query[..., self._size - turned :], ctx.positions[0])
        return query, self._shares(x, out=arena.take((num_tokens, self._heads), x.dtype))
