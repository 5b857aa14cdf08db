"""A gated linear recurrence of one layer: products, a convolution over a few tokens, `ops.scan`'s recurrence.

States and the plan of a step come from the worker. Source: arXiv 2402.19427.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.mamba import CausalConv
from quire.layers.mla import HeadProducts
from quire.ops.elementwise import ACT_MUL
from quire.ops.gating import softplus
from quire.ops.registry import Table
from quire.ops.scan import GATED_LRU
from quire.quant.formats import PLAIN, Formats

_STEEPNESS = 8.0
"""A state keeps at least e to minus so many times the softplus of its number; the paper's c."""


@dataclass(frozen=True, kw_only=True)
class GatedLruSizes:
    """The numbers of one layer; what they mean is in `models.recurrent.GatedLru`."""

    size: int
    inner: int
    heads: int
    kernel: int
    act: str


class GatedLruLayer:
    """x [T, C] to [T, C] for mixer `index`: D numbers in H heads of W.

    Its parameters: `<name>.in` [2D, C] of gate and numbers, `<name>.conv`, `<name>.gates` [2H, W, W] from a
    head's numbers to what feeds its states and, behind all of those, what keeps them, `<name>.gates_bias` [2H, W],
    `<name>.fall` [D], `<name>.back` [C, D].
    """

    attends = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: GatedLruSizes,
        *,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._sizes = sizes
        self._share = share = sizes.inner // sizes.heads
        inner, kind = sizes.inner, dtype_name(dtype)
        linear = partial(Linear, table, bias=True, dtype=dtype, format=format)
        self._in = linear(f"{name}.in", in_size=sizes.size, out_size=2 * inner)
        self._conv = CausalConv(
            table,
            f"{name}.conv",
            size=inner,
            kernel=sizes.kernel,
            bias=True,
            dtype=dtype,
            act="none",
        )
        self._gates = HeadProducts(table, in_size=share, out_size=2 * share, dtype=dtype)
        self._scan = table.bind(GATED_LRU, kind, H=sizes.heads, W=share)
        self._act_mul = partial(table.bind(ACT_MUL, kind, F=inner), act=sizes.act)
        self._back = linear(f"{name}.back", in_size=inner, out_size=sizes.size)
        self._vectors: tuple[torch.Tensor, ...] = ()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        name, heads, share = self._name, self._sizes.heads, self._share
        for part in (self._in, self._conv, self._back):
            part.load(weights)
        gates = weights(f"{name}.gates").view(2, heads, share, share)
        self._gates.pack(gates.permute(1, 0, 3, 2).reshape(heads, 2 * share, share))
        bias = weights(f"{name}.gates_bias").view(2, heads, share)
        rate = -_STEEPNESS * softplus(weights(f"{name}.fall"))
        self._vectors = (bias.transpose(0, 1).reshape(heads, 2 * share).contiguous(), rate)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the states forward; writes [T, C] into `out`, which may be x."""
        (window, states), plan = ctx.cached(self.index)
        sizes, share, count = self._sizes, self._share, x.shape[0]
        both = self._in(x, out=ctx.arena.take((count, 2 * sizes.inner), x.dtype))
        passed = self._conv(both[:, sizes.inner :], window, ctx, plan)
        gates = ctx.arena.take((count, sizes.heads, 2 * share), x.dtype)
        self._gates(passed.view(count, sizes.heads, share), out=gates)
        # What the recurrence makes stands behind the gate, where the convolution's input was.
        self._scan(passed, gates, *self._vectors, states, plan, out=both[:, sizes.inner :])
        mixed = self._act_mul(both, out=ctx.arena.take((count, sizes.inner), x.dtype))
        return self._back(mixed, out=out)
