"""The two halves of a layer that blends each token with the one before: products around `ops.time_mix`.

States and the plan of a step come from the worker. Source: arXiv 2305.13048.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.elementwise import ACT
from quire.ops.gating import MUL_SIGMOID
from quire.ops.registry import Table
from quire.ops.time_mix import TOKEN_SHIFT, WKV
from quire.quant.formats import PLAIN, Formats

Weights = Callable[[str], torch.Tensor]


class TimeMixLayer:
    """x [T, C] to [T, C] for mixer `index`: means of values of D channels, gated.

    Its parameters: `<name>.shares` [3 C] of the token itself for key, value and receptance, `<name>.key`,
    `<name>.value` and `<name>.receptance` [D, C], `<name>.decay` (negative) and `<name>.first` [D],
    `<name>.back` [C, D].
    """

    attends = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        *,
        size: int,
        inner: int,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._inner = inner
        linear = partial(Linear, table, bias=False, dtype=dtype, format=format)
        self._shift = table.bind(TOKEN_SHIFT, dtype_name(dtype), C=size, M=3)
        self._products = [
            linear(f"{name}.{part}", in_size=size, out_size=inner)
            for part in ("key", "value", "receptance")
        ]
        self._weigh = table.bind(WKV, dtype_name(dtype), D=inner)
        self._back = linear(f"{name}.back", in_size=inner, out_size=size)
        self._vectors: tuple[torch.Tensor, ...] = ()

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        shares, decay, first = (
            weights(f"{self._name}.{one}") for one in ("shares", "decay", "first")
        )
        self._vectors = (shares.view(3, -1), decay, first)
        for product in (*self._products, self._back):
            product.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the states forward; writes [T, C] into `out`, which may be x."""
        (before, states), plan = ctx.cached(self.index)
        shares, decay, first = self._vectors
        count = x.shape[0]
        blends = ctx.arena.take((count, 3, x.shape[1]), x.dtype)
        self._shift(x, shares, before, plan, out=blends)
        key, value, gate = (
            product(blends[:, place], out=ctx.arena.take((count, self._inner), x.dtype))
            for place, product in enumerate(self._products)
        )
        self._weigh(key, value, gate, decay, first, states, plan, out=value)
        return self._back(value, out=out)


class ChannelMixLayer:
    """x [T, C] to [T, C] for mixer `index`: squared relu of F numbers, and a gate.

    Its parameters: `<name>.blends` [2 C], shares of the token itself for what goes up and for the gate, `<name>.up`
    [F, C], `<name>.gate` [C, C], `<name>.down` [C, F].
    """

    attends = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        *,
        size: int,
        inner: int,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._inner = inner
        at = dtype_name(dtype)
        linear = partial(Linear, table, bias=False, dtype=dtype, format=format)
        self._shift = table.bind(TOKEN_SHIFT, at, C=size, M=2)
        self._up = linear(f"{name}.up", in_size=size, out_size=inner)
        self._act = partial(table.bind(ACT, at, C=inner), act="relu2")
        self._gate = linear(f"{name}.gate", in_size=size, out_size=size)
        self._down = linear(f"{name}.down", in_size=inner, out_size=size)
        self._mul = table.bind(MUL_SIGMOID, at, C=size)
        self._shares = torch.empty(0)

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        self._shares = weights(f"{self._name}.blends").view(2, -1)
        for product in (self._up, self._gate, self._down):
            product.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the state forward; writes [T, C] into `out`, which may be x."""
        (before,), plan = ctx.cached(self.index)
        count, size = x.shape
        blends = ctx.arena.take((count, 2, size), x.dtype)
        self._shift(x, self._shares, before, plan, out=blends)
        inside = self._up(blends[:, 0], out=ctx.arena.take((count, self._inner), x.dtype))
        gates = self._gate(blends[:, 1], out=ctx.arena.take((count, size), x.dtype))
        self._act(inside, out=inside)
        self._down(inside, out=out)
        self._mul(out, gates, out=out)
        return out
