"""Attention to what an encoder gave: its keys and values are cached once, and looked at whole by every token.

The encoder is `models.encoder`; plans and cache views are the worker's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from quire.layers.attention import AttentionSizes
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.attention import PAGED_ATTENTION
from quire.ops.registry import Bound, Table
from quire.quant.formats import PLAIN, Formats


class CrossAttention:
    """x [T, C] to [T, C]; its parameters: `<name>.q`, `<name>.kv`, `<name>.out`. Arguments as in AttentionLayer."""

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        qkv_bias: bool,
        out_bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        cache_format: str = "plain",
    ) -> None:
        self.index, self._sizes = index, sizes
        width = sizes.num_heads * sizes.head_size
        linear = partial(Linear, table, dtype=dtype, format=format)
        self._query = linear(f"{name}.q", in_size=sizes.size, out_size=width, bias=qkv_bias)
        self._kv_size = 2 * sizes.num_kv_heads * sizes.head_size
        self._kv = linear(f"{name}.kv", in_size=sizes.size, out_size=self._kv_size, bias=qkv_bias)
        self._attend = table.bind(
            PAGED_ATTENTION,
            dtype_name(dtype),
            format=cache_format,
            H=sizes.num_heads,
            K=sizes.num_kv_heads,
            D=sizes.head_size,
            bidirectional=True,
        )
        self._out = linear(f"{name}.out", in_size=width, out_size=sizes.size, bias=out_bias)

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """For the worker, which makes the operation's plans and cache views."""
        return (self._attend,)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (self._query, self._kv, self._out):
            part.load(weights)

    def remember(self, encoded: torch.Tensor, ctx: ForwardContext) -> None:
        """Caches keys and values of encoded [T, C], in the slots of the encoder's step `ctx`."""
        sizes, num_tokens = self._sizes, encoded.shape[0]
        mark = ctx.arena.mark()
        kv = self._kv(encoded, out=ctx.arena.take((num_tokens, self._kv_size), encoded.dtype))
        heads = kv.view(num_tokens, 2 * sizes.num_kv_heads, sizes.head_size)
        k, v = heads[:, : sizes.num_kv_heads], heads[:, sizes.num_kv_heads :]
        cache, plan = ctx.cached(self.index)
        self._attend.call("write", k, v, cache, plan)
        ctx.arena.release(mark)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Attends to what was remembered; writes [T, C] into `out`, which may be x."""
        sizes, num_tokens = self._sizes, x.shape[0]
        shape = (num_tokens, sizes.num_heads, sizes.head_size)
        query = ctx.arena.take(shape, x.dtype)
        self._query(x, out=query.view(num_tokens, -1))
        cache, plan = ctx.cached(self.index)
        mixed = ctx.arena.take(shape, x.dtype)
        self._attend(query, cache, plan, scale=sizes.scale, bidirectional=True, out=mixed)
        return self._out(mixed.view(num_tokens, -1), out=out)
