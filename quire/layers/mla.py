"""Attention over a latent of each token that all heads share, in the absorbed form for every row.

Keys and values are never made of the latent: the products that would make them are done on the query and
on what attention mixed. Grouped-query attention is `layers.attention`. Source: arXiv 2405.04434.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.indexer import Picker
from quire.layers.linear import Linear
from quire.layers.norm import RmsNorm
from quire.layers.output_gate import output_gates
from quire.ops.arena import Arena
from quire.ops.attention import PAGED_ATTENTION
from quire.ops.elementwise import SCALE
from quire.ops.linear import LINEAR
from quire.ops.picks import PICKED_ATTENTION
from quire.ops.registry import Bound, Table
from quire.ops.rope import ROPE
from quire.quant.formats import PLAIN, Formats


@dataclass(frozen=True, kw_only=True)
class MlaSizes:
    """The numbers of one layer: H heads, R numbers of the latent, N and P of a query without and with a
    position, V of a head's value; q_rank 0 is a query made of x at once; kv_factor is of the normed latent."""

    size: int
    num_heads: int
    q_rank: int
    kv_rank: int
    nope_size: int
    rope_size: int
    out_size: int
    scale: float
    kv_factor: float = 1.0

    @property
    def query_size(self) -> int:
        return self.nope_size + self.rope_size

    @property
    def key_size(self) -> int:
        """Of a cached key: the normed latent and the part with a position."""
        return self.kv_rank + self.rope_size


class MlaLayer:
    """x [T, C] to [T, C] for decoder layer `index`.

    Its parameters: `<name>.kv_down` [R + P, C] with the norm `<name>.kv_norm`, `<name>.kv_up`
    [H * (N + V), R], `<name>.out`; and `<name>.q`, or `<name>.q_down`, `<name>.q_norm`, `<name>.q_up`; with sinks
    `<name>.sinks` [H], with `gate` `<name>.gate`.

    rope    table [max_len, P] of `layers.rope`; None: nothing is turned.
    growth  table [max_len, R + P] of `layers.rope.growth_table` for queries, or None.
    bias    of the products that make latents, and of the output.
    eps     of the norms of both latents.
    format  of all weights but kv_up's.
    picker  what says which tokens a query sees; None: it sees all.
    sinks   a learned score of each head takes weight. gate: a key of `layers.output_gate.GATES`, or None.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: MlaSizes,
        *,
        rope: torch.Tensor | None,
        growth: torch.Tensor | None = None,
        interleaved: bool,
        bias: bool,
        eps: float,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        cache_format: str = "plain",
        picker: Picker | None = None,
        sinks: bool = False,
        gate: str | None = None,
    ) -> None:
        self.index = index
        self._name = name
        self._sizes = sizes
        linear = partial(Linear, table, dtype=dtype, format=format)
        self._query = LatentQuery(table, name, sizes, linear, bias=bias, eps=eps, dtype=dtype)
        self._kv_down = linear(
            f"{name}.kv_down", in_size=sizes.size, out_size=sizes.key_size, bias=bias
        )
        self._kv_norm = RmsNorm(table, f"{name}.kv_norm", size=sizes.kv_rank, eps=eps, dtype=dtype)
        turn = table.bind(ROPE, dtype_name(dtype), D=sizes.rope_size, rot=sizes.rope_size)
        self._turn: Callable[..., object] = _leave
        if rope is not None:
            self._turn = partial(turn, table=rope, interleaved=interleaved)
        self._grow: Callable[..., object] = _leave
        if growth is not None:
            whole = table.bind(ROPE, dtype_name(dtype), D=sizes.key_size, rot=sizes.key_size)
            self._grow = partial(whole, table=growth, interleaved=False)
        self._copy = table.bind(SCALE, dtype_name(dtype), C=sizes.rope_size)
        self._absorb = HeadProducts(
            table, in_size=sizes.nope_size, out_size=sizes.kv_rank, dtype=dtype
        )
        self._pickers = () if picker is None else (picker,)
        self._mix = self._mix_all if picker is None else self._mix_picked
        self._attend = table.bind(
            PAGED_ATTENTION if picker is None else PICKED_ATTENTION,
            dtype_name(dtype),
            format=cache_format,
            H=sizes.num_heads,
            K=1,
            D=sizes.key_size,
        )
        self._expand = HeadProducts(
            table, in_size=sizes.kv_rank, out_size=sizes.out_size, dtype=dtype
        )
        shape = (sizes.size, sizes.num_heads, sizes.out_size)
        self._gates = output_gates((gate, None), table, name, linear, shape, dtype)
        self._has_sinks = sinks
        self._sinks: dict[str, torch.Tensor] = {}
        self._out = linear(
            f"{name}.out", in_size=sizes.num_heads * sizes.out_size, out_size=sizes.size, bias=bias
        )

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """For the worker, which makes the operation's plans and cache views."""
        return (self._attend, *(one for picker in self._pickers for one in picker.attends))

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        sizes = self._sizes
        self._query.load(weights)
        self._kv_down.load(weights)
        self._kv_norm.load(lambda name: weights(name) * sizes.kv_factor)
        for picker in self._pickers:
            picker.load(weights)
        both = weights(f"{self._name}.kv_up.weight").view(sizes.num_heads, -1, sizes.kv_rank)
        self._absorb.pack(both[:, : sizes.nope_size].transpose(1, 2))
        self._expand.pack(both[:, sizes.nope_size :])
        if self._has_sinks:
            self._sinks = {"sinks": weights(f"{self._name}.sinks")}
        for part in (*self._gates, self._out):
            part.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Caches the latents, then attends; writes [T, C] into `out`, which may be x."""
        sizes, num_tokens, positions = self._sizes, x.shape[0], ctx.positions[0]
        self.keep(x, ctx)
        source = self._query.source(x, ctx.arena)
        for picker in self._pickers:
            picker(x, source, ctx)
        query = self._absorbed(self._query(source, ctx.arena), positions, ctx.arena)
        mixed = ctx.arena.take((num_tokens, sizes.num_heads, sizes.kv_rank), x.dtype)
        self._mix(query, ctx, out=mixed)
        values = ctx.arena.take((num_tokens, sizes.num_heads, sizes.out_size), x.dtype)
        self._expand(mixed, out=values)
        values = values.view(num_tokens, -1)
        for gate in self._gates:
            gate(x, values, ctx.arena)
        return self._out(values, out=out)

    def keep(self, x: torch.Tensor, ctx: ForwardContext) -> None:
        """Caches the latents of x [T, C]."""
        sizes = self._sizes
        key = self._kv_down(x, out=ctx.arena.take((x.shape[0], sizes.key_size), x.dtype))
        latent = key[:, : sizes.kv_rank]
        self._kv_norm(latent, out=latent)
        key = key.unsqueeze(1)  # [T, 1, R + P]
        self._turn(key[..., sizes.kv_rank :], ctx.positions[0])
        self._attend.call("write", key, key[..., : sizes.kv_rank], *self._cached(ctx))

    def _cached(self, ctx: ForwardContext) -> tuple[Any, Any]:
        """This layer's view of the cache, and its plan."""
        return ctx.cached(self.index)

    def _mix_all(self, query: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> None:
        scale = self._sizes.scale
        self._attend(query, *self._cached(ctx), scale=scale, **self._sinks, out=out)

    def _mix_picked(self, query: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> None:
        cache, plan = self._cached(ctx)
        scale = self._sizes.scale
        self._attend(query, ctx.picks, cache, plan, scale=scale, **self._sinks, out=out)

    def _absorbed(self, query: torch.Tensor, positions: torch.Tensor, arena: Arena) -> torch.Tensor:
        """Queries [T, H, N + P] as they meet the cached keys: [T, H, R + P], the last P turned, all grown."""
        sizes, (num_tokens, num_heads, _) = self._sizes, query.shape
        absorbed = arena.take((num_tokens, num_heads, sizes.key_size), query.dtype)
        self._absorb(query[..., : sizes.nope_size], out=absorbed[..., : sizes.kv_rank])
        rows = (num_tokens * num_heads, -1)
        turned = absorbed[..., sizes.kv_rank :]
        self._copy(
            query.view(rows)[:, sizes.nope_size :],
            factor=1.0,
            out=absorbed.view(rows)[:, sizes.kv_rank :],
        )
        self._turn(turned, positions)
        self._grow(absorbed, positions)
        return absorbed


def _leave(heads: torch.Tensor, positions: torch.Tensor) -> None:
    """Turns nothing."""


class LatentQuery:
    """x [T, C] to queries [T, H, N + P], through a normed latent of their own if q_rank is not 0."""

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: MlaSizes,
        linear: Callable[..., Linear],
        *,
        bias: bool,
        eps: float,
        dtype: torch.dtype,
    ) -> None:
        self._shape = (sizes.num_heads, sizes.query_size)
        width, rank = sizes.num_heads * sizes.query_size, sizes.q_rank
        self._rank = rank
        self._down: tuple[Linear, RmsNorm] | None = None
        if rank:
            self._down = (
                linear(f"{name}.q_down", in_size=sizes.size, out_size=rank, bias=bias),
                RmsNorm(table, f"{name}.q_norm", size=rank, eps=eps, dtype=dtype),
            )
        last = f"{name}.q_up" if rank else f"{name}.q"
        self._up = linear(last, in_size=rank or sizes.size, out_size=width, bias=False)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (*(self._down or ()), self._up):
            part.load(weights)

    def source(self, x: torch.Tensor, arena: Arena) -> torch.Tensor:
        """What queries are made of: the normed latent [T, q_rank] from the arena, or x itself."""
        if self._down is None:
            return x
        down, norm = self._down
        latent = down(x, out=arena.take((x.shape[0], self._rank), x.dtype))
        return norm(latent, out=latent)

    def __call__(self, source: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[T, H, N + P] from the arena, made of `source`."""
        query = arena.take((source.shape[0], *self._shape), source.dtype)
        self._up(source, out=query.view(source.shape[0], -1))
        return query


class HeadProducts:
    """x [T, H, K] to [T, H, N], each head by a weight of its own."""

    def __init__(self, table: Table, *, in_size: int, out_size: int, dtype: torch.dtype) -> None:
        self._product = table.bind(LINEAR, dtype_name(dtype), format="plain", N=out_size, K=in_size)
        self._packed: list[object] = []

    def pack(self, weights: torch.Tensor) -> None:
        """Packs weights [H, N, K], which may be strided."""
        pack = self._product.provider.pack
        self._packed = [pack(weight.contiguous(), None) for weight in weights]

    def __call__(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, H, N] into `out`; tokens and heads of both may be any distance apart."""
        for head, packed in enumerate(self._packed):
            self._product(x[:, head], packed, delta=None, out=out[:, head])
        return out
