"""The gated short convolution of one layer: two products around `ops.short_conv`.

States and the plan of a step come from the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.registry import Table
from quire.ops.short_conv import SHORT_CONV
from quire.quant.formats import PLAIN, Formats


class ShortConvLayer:
    """x [T, C] to [T, C] for mixer `index`.

    Its parameters: `<name>.in` [3W, C], `<name>.back` [C, W], `<name>.conv.weight` [W, kernel] float32; with
    `bias` one of each.
    """

    attends = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        *,
        size: int,
        width: int,
        kernel: int,
        bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._width = width
        self._has_bias = bias
        linear = partial(Linear, table, bias=bias, dtype=dtype, format=format)
        self._in = linear(f"{name}.in", in_size=size, out_size=3 * width)
        self._mix = table.bind(SHORT_CONV, dtype_name(dtype), C=width, W=kernel)
        self._back = linear(f"{name}.back", in_size=width, out_size=size)
        self._taps = torch.empty(0)
        self._bias: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._in.load(weights)
        self._taps = weights(f"{self._name}.conv.weight").t().contiguous()  # [kernel, W]
        if self._has_bias:
            self._bias = weights(f"{self._name}.conv.bias")
        self._back.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        (view,), plan = ctx.cached(self.index)
        thirds = self._in(x, out=ctx.arena.take((x.shape[0], 3 * self._width), x.dtype))
        mixed = ctx.arena.take((x.shape[0], self._width), x.dtype)
        self._mix(thirds, self._taps, self._bias, view, plan, out=mixed)
        return self._back(mixed, out=out)
