"""State-space mixers: products, a convolution over a few tokens, a recurrence, a gate.

States are kept by the cache; plans and views come from the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.elementwise import SCALE
from quire.ops.norm import RMS_NORM
from quire.ops.registry import Bound, Table
from quire.ops.scan import CAUSAL_CONV, GROUP_NORM_GATED, SELECTIVE_SCAN, SSD_SCAN
from quire.quant.formats import PLAIN, Formats

Weights = Callable[[str], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Mamba2Sizes:
    """The numbers of one layer; what they mean is in `models.recurrent.Mamba2`.

    scales  factors of what `in` makes: the gate, the numbers that pass, the vectors that write and that
            read, the steps.
    """

    size: int
    num_heads: int
    head_size: int
    state_size: int
    groups: int
    kernel: int
    conv_bias: bool
    bias: bool
    gate_norm: str
    norm_groups: int
    norm_eps: float
    limits: tuple[float, float]
    scales: tuple[float, ...]

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_size

    @property
    def vectors(self) -> int:
        """Numbers of all groups' vectors of one kind."""
        return self.groups * self.state_size


class CausalConv:
    """A convolution of each channel of x [T, C] over the last tokens, and silu or no activation.

    Its parameters: `<name>.weight` [C, 1, W], and with `bias` `<name>.bias` [C]; float32.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        size: int,
        kernel: int,
        bias: bool,
        dtype: torch.dtype,
        act: str = "silu",
    ) -> None:
        self.name = name
        self._act = act
        self._has_bias = bias
        self._conv = table.bind(CAUSAL_CONV, dtype_name(dtype), C=size, W=kernel)
        self._weights: tuple[torch.Tensor, torch.Tensor | None] | None = None

    def load(self, weights: Weights) -> None:
        """Takes its parameters."""
        bias = weights(f"{self.name}.bias") if self._has_bias else None
        self._weights = (weights(f"{self.name}.weight").squeeze(1).t().contiguous(), bias)

    def __call__(
        self, x: torch.Tensor, inputs: Any, ctx: ForwardContext, plan: Any
    ) -> torch.Tensor:
        """[T, C] from the arena; `inputs` is the view of the window."""
        weight, bias = self._weights  # type: ignore[misc]
        out = ctx.arena.take(tuple(x.shape), x.dtype)
        self._conv(x, weight, bias, inputs, plan, act=self._act, out=out)
        return out


class Mamba2Layer:
    """x [T, C] to [T, C] with one decay a head, for mixer number `index`.

    Its parameters: `<name>.in`, `<name>.conv`, `<name>.step_bias`, `<name>.decay` (negative) and
    `<name>.skip` [H], `<name>.norm` [I], `<name>.back`.
    """

    attends: tuple[Bound | None, ...] = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: Mamba2Sizes,
        *,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._sizes = sizes
        inner, vectors, heads = sizes.inner, sizes.vectors, sizes.num_heads
        widths = (inner, inner, vectors, vectors, heads)
        ends = [0, *accumulate(widths)]
        self._parts = [slice(low, high) for low, high in pairwise(ends)]
        self._convolved = slice(inner, inner + inner + 2 * vectors)
        kind = dtype_name(dtype)
        linear = partial(Linear, table, bias=sizes.bias, dtype=dtype, format=format)
        self._in = linear(f"{name}.in", in_size=sizes.size, out_size=ends[-1])
        self._scales = [
            (part, partial(table.bind(SCALE, kind, C=width), factor=factor))
            for part, width, factor in zip(self._parts, widths, sizes.scales, strict=True)
            if factor != 1.0
        ]
        self._conv = CausalConv(
            table,
            f"{name}.conv",
            size=inner + 2 * vectors,
            kernel=sizes.kernel,
            bias=sizes.conv_bias,
            dtype=dtype,
        )
        self._scan = table.bind(
            SSD_SCAN, kind, H=heads, P=sizes.head_size, N=sizes.state_size, G=sizes.groups
        )
        self._gate = table.bind(GROUP_NORM_GATED, kind, C=inner)
        self._back = linear(f"{name}.back", in_size=inner, out_size=sizes.size)
        self._vectors: tuple[torch.Tensor, ...] = ()
        self._norm: torch.Tensor | None = None

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        name = self._name
        self._in.load(weights)
        self._conv.load(weights)
        bias, decay, skip = (weights(f"{name}.{part}") for part in ("step_bias", "decay", "skip"))
        self._vectors = (bias, decay, skip)
        if self._sizes.gate_norm != "none":
            self._norm = weights(f"{name}.norm.weight")
        self._back.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the states forward; writes [T, C] into `out`, which may be x."""
        sizes, num_tokens = self._sizes, x.shape[0]
        (window, states), plan = ctx.cached(self.index)
        made = ctx.arena.take((num_tokens, self._parts[-1].stop), x.dtype)
        self._in(x, out=made)
        for part, scale in self._scales:
            scale(made[:, part], out=made[:, part])
        passed = self._conv(made[:, self._convolved], window, ctx, plan)
        inner, vectors = sizes.inner, sizes.vectors
        by_group = (num_tokens, sizes.groups, sizes.state_size)
        mixed = ctx.arena.take((num_tokens, sizes.num_heads, sizes.head_size), x.dtype)
        self._scan(
            passed[:, :inner].view(num_tokens, sizes.num_heads, sizes.head_size),
            passed[:, inner : inner + vectors].view(by_group),
            passed[:, inner + vectors :].view(by_group),
            made[:, self._parts[-1]],
            *self._vectors,
            states,
            plan,
            limits=sizes.limits,
            out=mixed,
        )
        rows = mixed.view(num_tokens, inner)
        self._gate(
            rows,
            made[:, self._parts[0]],
            self._norm,
            eps=sizes.norm_eps,
            groups=sizes.norm_groups,
            kind=sizes.gate_norm,
            out=rows,
        )
        return self._back(rows, out=out)


@dataclass(frozen=True, kw_only=True)
class Mamba1Sizes:
    """The numbers of one layer; what they mean is in `models.recurrent.Mamba1`."""

    size: int
    inner: int
    state_size: int
    step_rank: int
    kernel: int
    conv_bias: bool
    bias: bool
    norms: str
    norm_eps: float


class Mamba1Layer:
    """x [T, C] to [T, C] with a decay of each number of the state, for mixer number `index`.

    Its parameters: `<name>.in`, `<name>.conv`, `<name>.made`, `<name>.step`, `<name>.step_bias`,
    `<name>.skip` [D], `<name>.decay` [D, N] (negative), `<name>.back`, and with learned
    norms `<name>.step_norm`, `<name>.write_norm`, `<name>.read_norm`.
    """

    attends: tuple[Bound | None, ...] = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: Mamba1Sizes,
        *,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._sizes = sizes
        inner, rank, kind = sizes.inner, sizes.step_rank, dtype_name(dtype)
        widths = (rank, sizes.state_size, sizes.state_size)
        self._parts = [slice(low, high) for low, high in pairwise([0, *accumulate(widths)])]
        linear = partial(Linear, table, dtype=dtype)
        self._in = linear(
            f"{name}.in", in_size=sizes.size, out_size=2 * inner, bias=sizes.bias, format=format
        )
        self._conv = CausalConv(
            table,
            f"{name}.conv",
            size=inner,
            kernel=sizes.kernel,
            bias=sizes.conv_bias,
            dtype=dtype,
        )
        self._made = linear(f"{name}.made", in_size=inner, out_size=sum(widths), bias=False)
        self._norms = [
            (part, partial(table.bind(RMS_NORM, kind, C=width), eps=sizes.norm_eps))
            for part, width in zip(self._parts, widths, strict=True)
            if sizes.norms != "none"
        ]
        self._step = linear(f"{name}.step", in_size=rank, out_size=inner, bias=False)
        self._scan = table.bind(SELECTIVE_SCAN, kind, D=inner, N=sizes.state_size)
        self._gate = table.bind(GROUP_NORM_GATED, kind, C=inner)
        self._back = linear(
            f"{name}.back", in_size=inner, out_size=sizes.size, bias=sizes.bias, format=format
        )
        self._vectors: tuple[torch.Tensor, ...] = ()
        self._norm_weights: list[torch.Tensor] = []

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        name = self._name
        for part in (self._in, self._conv, self._made, self._step, self._back):
            part.load(weights)
        bias, decay, skip = (weights(f"{name}.{part}") for part in ("step_bias", "decay", "skip"))
        self._vectors = (bias, decay.t().contiguous(), skip)
        if self._sizes.norms == "learned":
            names = ("step_norm", "write_norm", "read_norm")
            self._norm_weights = [weights(f"{name}.{norm}.weight") for norm in names]
        else:
            widths = [part.stop - part.start for part in self._parts]
            self._norm_weights = [torch.ones(width, device=decay.device) for width in widths]

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the states forward; writes [T, C] into `out`, which may be x."""
        inner, num_tokens = self._sizes.inner, x.shape[0]
        (window, states), plan = ctx.cached(self.index)
        both = self._in(x, out=ctx.arena.take((num_tokens, 2 * inner), x.dtype))
        passed = self._conv(both[:, :inner], window, ctx, plan)
        made = ctx.arena.take((num_tokens, self._parts[-1].stop), x.dtype)
        self._made(passed, out=made)
        for (part, norm), weight in zip(self._norms, self._norm_weights, strict=False):
            norm(made[:, part], weight, out=made[:, part])
        raw, write, read = (made[:, part] for part in self._parts)
        steps = self._step(raw, out=ctx.arena.take((num_tokens, inner), x.dtype))
        mixed = ctx.arena.take((num_tokens, inner), x.dtype)
        self._scan(passed, write, read, steps, *self._vectors, states, plan, out=mixed)
        self._gate(mixed, both[:, inner:], None, eps=0.0, kind="none", out=mixed)
        return self._back(mixed, out=out)
