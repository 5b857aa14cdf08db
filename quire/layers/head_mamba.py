"""A state-space mixer with one decay a head, whose steps and vectors are made of what the convolution gave.

The other state-space mixers are `layers.mamba`, whose convolution this uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.mamba import CausalConv, Weights
from quire.layers.norm import RmsNorm
from quire.ops.registry import Bound, Table
from quire.ops.scan import GROUP_NORM_GATED, SSD_SCAN
from quire.quant.formats import PLAIN, Formats


@dataclass(frozen=True, kw_only=True)
class HeadMambaSizes:
    """The numbers of one layer; what they mean is in `models.recurrent.HeadMamba`."""

    size: int
    num_heads: int
    head_size: int
    state_size: int
    step_rank: int
    kernel: int
    norm_eps: float

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_size


class HeadMambaLayer:
    """x [T, C] to [T, C] for mixer number `index`; source: the code that comes with PLaMo 2's files.

    Its parameters: `<name>.in` (gate, then what passes), `<name>.conv`, `<name>.made` (what writes, what reads,
    what makes steps) with norms `<name>.write_norm`, `<name>.read_norm`, `<name>.step_norm`, `<name>.step`,
    `<name>.step_bias`, `<name>.decay` (negative) and `<name>.skip` [H], `<name>.back`.
    """

    attends: tuple[Bound | None, ...] = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: HeadMambaSizes,
        *,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index, self._name, self._sizes = index, name, sizes
        inner, kind = sizes.inner, dtype_name(dtype)
        widths = (sizes.state_size, sizes.state_size, sizes.step_rank)
        self._parts = [slice(low, high) for low, high in pairwise([0, *accumulate(widths)])]
        linear = partial(Linear, table, bias=False, dtype=dtype)
        self._in = linear(f"{name}.in", in_size=sizes.size, out_size=2 * inner, format=format)
        self._conv = CausalConv(
            table, f"{name}.conv", size=inner, kernel=sizes.kernel, bias=False, dtype=dtype
        )
        self._made = linear(f"{name}.made", in_size=inner, out_size=sum(widths))
        norm = partial(RmsNorm, table, eps=sizes.norm_eps, dtype=dtype)
        names = ("write_norm", "read_norm", "step_norm")
        self._norms = [
            norm(f"{name}.{own}", size=width) for own, width in zip(names, widths, strict=True)
        ]
        self._step = linear(f"{name}.step", in_size=sizes.step_rank, out_size=sizes.num_heads)
        self._scan = table.bind(
            SSD_SCAN, kind, H=sizes.num_heads, P=sizes.head_size, N=sizes.state_size, G=1
        )
        self._gate = table.bind(GROUP_NORM_GATED, kind, C=inner)
        self._back = linear(f"{name}.back", in_size=inner, out_size=sizes.size, format=format)
        self._vectors: tuple[torch.Tensor, ...] = ()

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        parts: tuple[Any, ...] = (
            self._in,
            self._conv,
            self._made,
            *self._norms,
            self._step,
            self._back,
        )
        for part in parts:
            part.load(weights)
        names = ("step_bias", "decay", "skip")
        self._vectors = tuple(weights(f"{self._name}.{name}") for name in names)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the states forward; writes [T, C] into `out`, which may be x."""
        sizes, num_tokens, take = self._sizes, x.shape[0], ctx.arena.take
        (window, states), plan = ctx.cached(self.index)
        both = self._in(x, out=take((num_tokens, 2 * sizes.inner), x.dtype))
        passed = self._conv(both[:, sizes.inner :], window, ctx, plan)
        made = self._made(passed, out=take((num_tokens, self._parts[-1].stop), x.dtype))
        write, read, raw = (made[:, part] for part in self._parts)
        for norm, part in zip(self._norms, (write, read, raw), strict=True):
            norm(part, out=part)
        steps = self._step(raw, out=take((num_tokens, sizes.num_heads), x.dtype))
        by_head = (num_tokens, sizes.num_heads, sizes.head_size)
        mixed = take(by_head, x.dtype)
        self._scan(
            passed.view(by_head),
            write[:, None],
            read[:, None],
            steps,
            *self._vectors,
            states,
            plan,
            limits=(0.0, float("inf")),
            out=mixed,
        )
        rows = mixed.view(num_tokens, sizes.inner)
        gate = both[:, : sizes.inner]
        self._gate(rows, gate, None, eps=0.0, groups=1, kind="none", out=rows)
        return self._back(rows, out=out)
