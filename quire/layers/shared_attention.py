"""Attention of a layer without keys and values of its own: it looks at those that an earlier layer cached.

Layers with their own are `layers.attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from quire.layers.attention import AttentionSizes, Rope
from quire.layers.cache_scales import CacheScales, with_scales
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import RmsNorm
from quire.ops.attention import PAGED_ATTENTION
from quire.ops.registry import Bound, Table
from quire.quant.formats import PLAIN, Formats


class SharedAttention:
    """x [T, C] to [T, C], with what mixer `shares` cached.

    Its parameters: `<name>.qkv` for queries alone, `<name>.out`, and if `normed` a norm over each head of queries,
    `<name>.q_norm`.
    rope  table [max_len, rot], or None. Other arguments are as in AttentionLayer.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        shares: int,
        sizes: AttentionSizes,
        *,
        rope: torch.Tensor | None,
        interleaved: bool,
        normed: bool,
        qk_eps: float,
        bias: bool,
        out_bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        cache_format: str = "plain",
        cache_scales: CacheScales = None,
    ) -> None:
        self._shares = shares
        self._sizes = sizes
        _, self._to_run = with_scales(sizes.scale, cache_scales)
        width = sizes.num_heads * sizes.head_size
        linear = partial(Linear, table, dtype=dtype, format=format)
        self._query = linear(f"{name}.qkv", in_size=sizes.size, out_size=width, bias=bias)
        norm = partial(RmsNorm, table, size=sizes.head_size, eps=qk_eps, dtype=dtype)
        self._norms = [norm(f"{name}.q_norm")] if normed else []
        self._turns = [] if rope is None else [Rope(table, sizes, dtype, rope, interleaved)]
        self._attend = table.bind(
            PAGED_ATTENTION,
            dtype_name(dtype),
            format=cache_format,
            H=sizes.num_heads,
            K=sizes.num_kv_heads,
            D=sizes.head_size,
        )
        self._out = linear(f"{name}.out", in_size=width, out_size=sizes.size, bias=out_bias)

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """For the worker; the plans and views are those of the layer that cached."""
        return (self._attend,)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._query.load(weights)
        for norm in self._norms:
            norm.load(weights)
        self._out.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Attends; writes [T, C] into `out`, which may be x."""
        sizes, num_tokens = self._sizes, x.shape[0]
        shape = (num_tokens, sizes.num_heads, sizes.head_size)
        query = ctx.arena.take(shape, x.dtype)
        self._query(x, out=query.view(num_tokens, -1))
        for norm in self._norms:
            norm(query, out=query)
        for turn in self._turns:
            turn(query, ctx.positions[0])
        cache, plan = ctx.cached(self._shares)
        mixed = ctx.arena.take(shape, x.dtype)
        self._attend(
            query,
            cache,
            plan,
            window=sizes.window,
            softcap=sizes.softcap,
            sinks=None,
            slopes=None,
            **self._to_run,
            out=mixed,
        )
        return self._out(mixed.view(num_tokens, -1), out=out)
