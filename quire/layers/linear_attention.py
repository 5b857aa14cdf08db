"""Linear attention of one layer: products, `ops.scan` with one decay for each head, a gated norm.

States and the plan of a step come from the worker. Source: arXiv 2405.17381.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.elementwise import ACT
from quire.ops.gating import RMS_NORM_GATED
from quire.ops.registry import Table
from quire.ops.scan import SSD_SCAN
from quire.quant.formats import PLAIN, Formats

_ONE_STEP = (1.0, 1.0)
"""The least and the greatest step of the recurrence: all steps are one, whatever they are made of."""


class LinearAttentionLayer:
    """x [T, C] to [T, C] for mixer `index`: I = num_heads * head_size numbers of a token pass it.

    decays  [H], the logarithm of the part of its state that a head keeps from token to token.
    act     of queries, keys and values; eps: of the norm of all heads together.
    Its parameters: `<name>.in` [4I, C] of queries, keys, values and gates, `<name>.back` [C, I], and
    `<name>.norm.weight` [I] float32.
    """

    attends = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        *,
        size: int,
        num_heads: int,
        head_size: int,
        decays: tuple[float, ...],
        act: str,
        eps: float,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._heads = (num_heads, head_size)
        self._inner = inner = num_heads * head_size
        self._activation, self._eps = act, eps
        at = dtype_name(dtype)
        self._in = Linear(
            table,
            f"{name}.in",
            in_size=size,
            out_size=4 * inner,
            bias=False,
            dtype=dtype,
            format=format,
        )
        self._act = table.bind(ACT, at, C=3 * inner)
        self._scan = table.bind(SSD_SCAN, at, H=num_heads, P=head_size, N=head_size, G=num_heads)
        self._norm = table.bind(RMS_NORM_GATED, at, C=inner)
        self._back = Linear(
            table,
            f"{name}.back",
            in_size=inner,
            out_size=size,
            bias=False,
            dtype=dtype,
            format=format,
        )
        zeros = torch.zeros(num_heads, device=table.device)
        decay = torch.tensor(decays, dtype=torch.float32, device=table.device)
        self._vectors = (zeros, decay, zeros)  # bias of the steps, decay, skip
        self._steps = torch.zeros((1, num_heads), dtype=dtype, device=table.device)
        self._norm_weight = torch.empty(0)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._in.load(weights)
        self._norm_weight = weights(f"{self._name}.norm.weight")
        self._back.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the states forward; writes [T, C] into `out`, which may be x."""
        (states,), plan = ctx.cached(self.index)
        count, inner = x.shape[0], self._inner
        made = self._in(x, out=ctx.arena.take((count, 4 * inner), x.dtype))
        self._act(made[:, : 3 * inner], act=self._activation, out=made[:, : 3 * inner])
        queries, keys, values = (
            made[:, place * inner : (place + 1) * inner].view(count, *self._heads)
            for place in range(3)
        )
        mixed = ctx.arena.take((count, inner), x.dtype)
        self._scan(
            values,
            keys,
            queries,
            self._steps.expand(count, -1),
            *self._vectors,
            states,
            plan,
            limits=_ONE_STEP,
            out=mixed.view(count, *self._heads),
        )
        whole = mixed.view(count, 1, inner)  # one norm for all heads
        gates = made[:, 3 * inner :].view(count, 1, inner)
        self._norm(whole, gates, self._norm_weight, eps=self._eps, act="sigmoid", out=whole)
        return self._back(mixed, out=out)
