"""Grouped-query attention of one layer: projections, norms of heads, positions, the paged cache.

Tables of positions come from `layers.rope`; plans and cache views from the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from quire.layers.cache_scales import CacheScales, with_scales
from quire.layers.context import ForwardContext
from quire.layers.distances import Buckets, alibi_slopes
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import LayerNorm, Norm, OwnRmsNorm, PlainNorm, RmsNorm
from quire.layers.output_gate import output_gates
from quire.layers.rope import root_slopes
from quire.ops.attention import PAGED_ATTENTION
from quire.ops.elementwise import CLAMP, SCALE
from quire.ops.registry import Bound, Table
from quire.ops.rope import QK_ROPE, ROPE
from quire.quant.formats import PLAIN, Formats


@dataclass(frozen=True, kw_only=True)
class AttentionSizes:
    """The numbers of one attention layer; window counts the query itself, softcap 0 is off.

    sinks  a learned score of each head that takes weight; alibi  factor of the heads' slopes, 0 is none;
    root_alibi  the longest distance whose root lowers scores by slopes, 0 is none;
    distances  those that add a learned score; clip  the bound of q, k and v, 0 is none.
    bidirectional  tokens see those behind them too.
    values, value_scale  as in `models.spec.Attention`.
    told   numbers that a cached key has beyond those of the product that makes it.
    chunked  the window is the stretch of so many positions in which the query stands.
    """

    size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    scale: float
    window: int | None
    softcap: float
    sinks: bool = False
    alibi: float = 0.0
    root_alibi: int = 0
    distances: Buckets | None = None
    clip: float = 0.0
    bidirectional: bool = False
    chunked: bool = False
    values: str = "own"
    value_size: int
    value_scale: float = 1.0
    told: int = 0

    @property
    def biased(self) -> bool:
        """Whether distances add numbers of a table to scores."""
        return self.distances is not None or self.root_alibi > 0

    @property
    def bounds(self) -> tuple[int, int, int]:
        """Where q, k and v end in the product that makes them; v is made of k if it ends where k does."""
        end_of_q = self.num_heads * self.head_size
        end_of_k = end_of_q + self.num_kv_heads * self.head_size
        own = self.num_kv_heads * self.value_size * (self.values != "normed_keys")
        return end_of_q, end_of_k, end_of_k + own


class AttentionLayer:
    """x [T, C] to [T, C] for decoder layer `index`.

    Its parameters: `<name>.qkv`, `<name>.out`, with norms `<name>.q_norm`, `<name>.k_norm`, with sinks
    `<name>.sinks` [H], with `gate` `<name>.gate`, with `mixed_eps` `<name>.mixed_norm` [H * D].

    rope     table [max_len, rot] of `layers.rope`, or None for a layer without positions.
    growth   table [max_len, D] of `layers.rope.growth_table` for queries, or None.
    gate     a key of `layers.output_gate.GATES`, or None for none.
    mixed_eps  of a norm of what all heads mixed, or None for none.
    qk_norm  norms of q and k, as in `models.spec.Attention`, with eps `qk_eps`.
    format   of both weights. cache_format: of keys and values, a key of `ops.formats.CACHE_FORMATS`.
    cache_scales  what a code of a key and of a value stands for, in a format of codes without scales.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        rope: torch.Tensor | None,
        growth: torch.Tensor | None = None,
        interleaved: bool,
        qk_norm: str,
        qk_eps: float,
        norm_after_rope: bool = False,
        qkv_bias: bool,
        out_bias: bool,
        gate: str | None = None,
        mixed_eps: float | None = None,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        cache_format: str = "plain",
        cache_scales: CacheScales = None,
    ) -> None:
        self.index, self._sizes = index, sizes
        self._to_write, self._to_run = with_scales(sizes.scale, cache_scales)
        self._bounds = sizes.bounds
        self._mixed = sizes.num_heads * sizes.value_size
        linear = partial(Linear, table, dtype=dtype, format=format)
        self._qkv = linear(
            f"{name}.qkv", in_size=sizes.size, out_size=self._bounds[2], bias=qkv_bias
        )
        clamp = table.bind(CLAMP, dtype_name(dtype), C=self._bounds[2]) if sizes.clip else None
        scale = table.bind(SCALE, dtype_name(dtype), C=sizes.num_kv_heads * sizes.value_size)
        self._value_scales = [scale] * (sizes.value_scale != 1.0)
        self._clips = [partial(clamp, limit=sizes.clip)] if clamp is not None else []
        self._sinks: torch.Tensor | None = None
        self._slopes: torch.Tensor | None = None
        self._sinks_name, self._distances_name = f"{name}.sinks", f"{name}.distances"
        norm = PlainNorm(table, sizes.head_size, qk_eps, dtype)
        self._value_norm = [norm] * (sizes.values != "own")
        # Of the signature: a provider that knows causal attention with moving windows only refuses them.
        asked = {"bidirectional": sizes.bidirectional, "chunked": sizes.chunked}
        self._unusual: dict[str, Any] = {name: True for name, value in asked.items() if value}
        self._on_heads = head_steps(
            table,
            name,
            sizes,
            dtype,
            rope=rope,
            growth=growth,
            interleaved=interleaved,
            qk_norm=qk_norm,
            eps=qk_eps,
            norm_after_rope=norm_after_rope,
        )
        heads = {"H": sizes.num_heads, "K": sizes.num_kv_heads, "D": sizes.head_size + sizes.told}
        heads |= self._unusual | ({"biased": True} if sizes.biased else {})
        self._attend = table.bind(PAGED_ATTENTION, dtype_name(dtype), format=cache_format, **heads)
        shape = (sizes.size, sizes.num_heads, sizes.value_size)
        self._gates = output_gates((gate, mixed_eps), table, name, linear, shape, dtype)
        self._out = linear(f"{name}.out", in_size=self._mixed, out_size=sizes.size, bias=out_bias)

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """For the worker, which makes the operation's plans and cache views."""
        return (self._attend,)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._qkv.load(weights)
        for step in self._on_heads:
            step.load(weights)
        if self._sizes.sinks:
            self._sinks = weights(self._sinks_name)
        if self._sizes.alibi:
            self._slopes = self._sizes.alibi * alibi_slopes(self._sizes.num_heads)
        if self._sizes.root_alibi:
            self._unusual["biases"] = root_slopes(self._sizes.num_heads, self._sizes.root_alibi)
        if self._sizes.distances is not None:
            self._unusual["biases"] = self._sizes.distances.spread(weights(self._distances_name))
        for gate in self._gates:
            gate.load(weights)
        self._out.load(weights)

    def _project(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        return self._qkv(x, out=ctx.arena.take((x.shape[0], self._bounds[2]), x.dtype))

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Caches keys and values, then attends; writes [T, C] into `out`, which may be x."""
        sizes, q = self._sizes, self.keep(x, ctx)
        mixed = ctx.arena.take((x.shape[0], sizes.num_heads, sizes.value_size), x.dtype)
        self._attend(
            q,
            *ctx.cached(self.index),
            window=sizes.window,
            softcap=sizes.softcap,
            sinks=self._sinks,
            slopes=self._slopes,
            **self._unusual,
            **self._to_run,
            out=mixed,
        )
        return self._finish(x, mixed, ctx, out)

    def keep(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """Caches keys and values of x [T, C]; returns queries [T, H, D] in the arena."""
        sizes, num_tokens, k_end = self._sizes, x.shape[0], self._bounds[1]
        qkv = self._project(x, ctx)
        for clip in self._clips:
            clip(qkv, out=qkv)
        q_and_k = qkv[:, :k_end].view(  # [T, H + K, D]
            num_tokens, sizes.num_heads + sizes.num_kv_heads, sizes.head_size
        )
        last = qkv[:, -sizes.num_kv_heads * sizes.value_size :]
        for scale in self._value_scales:
            scale(last, factor=sizes.value_scale, out=last)
        v = last.view(num_tokens, sizes.num_kv_heads, sizes.value_size)
        for norm in self._value_norm:
            v = norm(v, ctx.arena)
        for step in self._on_heads:
            step(q_and_k, ctx.positions[0])
        q_and_k = self._told(q_and_k, v, ctx)
        k = q_and_k[:, sizes.num_heads :]
        self._attend.call("write", k, v, *ctx.cached(self.index), **self._to_write)
        return q_and_k[:, : sizes.num_heads]

    def _told(self, q_and_k: torch.Tensor, v: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """Queries and keys [T, H + K, D] as attention takes them, with what is told of values [T, K, D]."""
        return q_and_k

    def _finish(
        self, x: torch.Tensor, mixed: torch.Tensor, ctx: ForwardContext, out: torch.Tensor
    ) -> torch.Tensor:
        all_heads = mixed.view(x.shape[0], self._mixed)
        for gate in self._gates:
            gate(x, all_heads, ctx.arena)
        return self._out(all_heads, out=out)


class HeadStep(Protocol):
    """Something done to query and key heads before attention."""

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameters."""

    def __call__(self, heads: torch.Tensor, positions: torch.Tensor) -> None:
        """Changes heads [T, H + K, D], queries first, at positions [T] in place."""


def head_steps(
    table: Table,
    name: str,
    sizes: AttentionSizes,
    dtype: torch.dtype,
    *,
    rope: torch.Tensor | None,
    growth: torch.Tensor | None,
    interleaved: bool,
    qk_norm: str,
    eps: float,
    norm_after_rope: bool,
) -> list[HeadStep]:
    """What is done to query and key heads, in order; a norm over each head and RoPE are one where they meet."""
    norms: list[HeadStep] = []
    turns: list[HeadStep] = []
    grown = [] if growth is None else [QueryGrowth(table, sizes, dtype, growth)]
    if qk_norm == "per_head" and rope is not None and not norm_after_rope:
        both = NormedRope(table, name, sizes, eps, dtype, rope=rope, interleaved=interleaved)
        return [both, *grown]
    if qk_norm != "none":
        norms.append(HeadNorms(table, name, sizes, eps, dtype, kind=qk_norm))
    if rope is not None:
        turns.append(Rope(table, sizes, dtype, rope, interleaved))
    steps = turns + norms if norm_after_rope else norms + turns
    return [*steps, *grown]


class HeadNorms:
    """A norm of queries and one of keys: `<name>.q_norm`, `<name>.k_norm`; kind of QK_NORMS."""

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: AttentionSizes,
        eps: float,
        dtype: torch.dtype,
        *,
        kind: str,
    ) -> None:
        make, self._over = QK_NORMS[kind]
        joined = self._over is _norm_all_heads
        self._num_heads = sizes.num_heads
        self._q, self._k = (
            make(
                table,
                f"{name}.{which}",
                size=sizes.head_size * (num_heads if joined else 1),
                eps=eps,
                dtype=dtype,
            )
            for which, num_heads in (("q_norm", sizes.num_heads), ("k_norm", sizes.num_kv_heads))
        )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes the parameters of both norms."""
        self._q.load(weights)
        self._k.load(weights)

    def __call__(self, heads: torch.Tensor, positions: torch.Tensor) -> None:
        """Changes heads [T, H + K, D] in place."""
        self._over(self._q, heads[:, : self._num_heads])
        self._over(self._k, heads[:, self._num_heads :])


class Rope:
    """Turns heads by a table [max_len, rot] of `layers.rope`; no parameters."""

    def __init__(
        self,
        table: Table,
        sizes: AttentionSizes,
        dtype: torch.dtype,
        angles: torch.Tensor,
        interleaved: bool,
    ) -> None:
        turn = table.bind(ROPE, dtype_name(dtype), D=sizes.head_size, rot=angles.shape[1])
        self._turn = partial(turn, table=angles, interleaved=interleaved)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes nothing."""

    def __call__(self, heads: torch.Tensor, positions: torch.Tensor) -> None:
        """Changes heads [T, H + K, D] in place."""
        self._turn(heads, positions)


class QueryGrowth:
    """Multiplies queries by a factor of their position, by a table of `layers.rope.growth_table`."""

    def __init__(
        self, table: Table, sizes: AttentionSizes, dtype: torch.dtype, factors: torch.Tensor
    ) -> None:
        self._num_heads = sizes.num_heads
        self._turn = Rope(table, sizes, dtype, factors, interleaved=False)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes nothing."""

    def __call__(self, heads: torch.Tensor, positions: torch.Tensor) -> None:
        """Changes the queries of heads [T, H + K, D] in place."""
        self._turn(heads[:, : self._num_heads], positions)


class NormedRope:
    """HeadNorms of the kind "per_head", then Rope, as one operation; the same parameters."""

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: AttentionSizes,
        eps: float,
        dtype: torch.dtype,
        *,
        rope: torch.Tensor,
        interleaved: bool,
    ) -> None:
        self._name = name
        turn = table.bind(
            QK_ROPE,
            dtype_name(dtype),
            H=sizes.num_heads,
            K=sizes.num_kv_heads,
            D=sizes.head_size,
            rot=rope.shape[1],
        )
        self._turn = partial(
            turn, table=rope, num_q_heads=sizes.num_heads, eps=eps, interleaved=interleaved
        )
        self._weights: tuple[torch.Tensor, torch.Tensor] | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes the weights [D] of both norms."""
        q, k = (weights(f"{self._name}.{which}.weight") for which in ("q_norm", "k_norm"))
        self._weights = (q, k)

    def __call__(self, heads: torch.Tensor, positions: torch.Tensor) -> None:
        """Changes heads [T, H + K, D] in place."""
        q_weight, k_weight = self._weights  # type: ignore[misc]
        self._turn(heads, q_weight, k_weight, positions)


def _norm_heads(norm: Norm, heads: torch.Tensor) -> None:
    norm(heads, out=heads)


def _norm_all_heads(norm: Norm, heads: torch.Tensor) -> None:
    joined = heads.view(heads.shape[0], -1)  # [T, H * D], the same memory
    norm(joined, out=joined)


QK_NORMS: dict[str, tuple[Callable[..., Norm], Callable[..., None]]] = {
    "per_head": (RmsNorm, _norm_heads),
    "full": (RmsNorm, _norm_all_heads),
    "layer": (partial(LayerNorm, bias=True), _norm_heads),
    "layer_full": (partial(LayerNorm, bias=True), _norm_all_heads),
    "layer_per_head": (partial(LayerNorm, bias=False), _norm_heads),
    "own_per_head": (OwnRmsNorm, _norm_heads),
}
"""The class for each norm of q and k that a description can name, and what it sees."""
