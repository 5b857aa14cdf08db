"""The feed-forward part of a layer, gated or plain.

Norms around it belong to the layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp, log1p
from statistics import NormalDist
from typing import Any, Protocol

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import Norm, RmsNorm
from quire.ops.arena import Arena
from quire.ops.elementwise import ACT, ACT_MUL, SCALE
from quire.ops.gating import LIMIT_GATED, SWIGLU_CLAMPED, XIELU
from quire.ops.registry import Table
from quire.ops.streams import LARGEST
from quire.quant.formats import PLAIN, Formats


class FeedForward(Protocol):
    """A part that works on each token alone."""

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""

    def __call__(self, x: torch.Tensor, arena: Arena, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""


class NormedPart:
    """norm(part(x))."""

    def __init__(self, part: FeedForward, norm: Norm) -> None:
        self._part, self._norm = part, norm

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the parameters of both."""
        self._part.load(weights)
        self._norm.load(weights)

    def __call__(self, x: torch.Tensor, arena: Arena, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        self._part(x, arena, out=out)
        self._norm(out, out=out)
        return out


class GatedMlp:
    """down(act(gate(x)) * up(x)) for x [T, C]; gate and up are one product.

    act     "silu", "gelu", "gelu_tanh", "relu" or "relu2"; or "swiglu_clamped", as `ops.gating` has it.
    format  of both weights.
    scales  factors of gate(x) and of up(x).
    down_bias  the product back has a bias, whether or not the others do.
    sparsity  the part of normally distributed gates that becomes zero; what they exceed the others by is left.
    limit   gate(x) is at most so much, and up(x) within it on both sides; 0 is no limit.
    gate_limit  of gate(x), if not 0, instead of `limit`.
    inner_eps  of an RMS norm of what down multiplies, `<name>.inner_norm`; 0 is none.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        size: int,
        width: int,
        act: str,
        bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        scales: tuple[float, float] = (1.0, 1.0),
        down_bias: bool = False,
        sparsity: float = 0.0,
        limit: float = 0.0,
        gate_limit: float = 0.0,
        inner_eps: float = 0.0,
    ) -> None:
        self._width = width
        self._gate_up = Linear(
            table,
            f"{name}.gate_up",
            in_size=size,
            out_size=2 * width,
            bias=bias,
            dtype=dtype,
            format=format,
        )
        halves = (slice(0, width), slice(width, 2 * width))
        self._scales: list[tuple[slice, Callable[..., Any]]] = [
            (half, partial(table.bind(SCALE, dtype_name(dtype), C=width), factor=factor))
            for half, factor in zip(halves, scales, strict=True)
            if factor != 1.0
        ]
        if sparsity:
            largest = table.bind(LARGEST, dtype_name(dtype), F=width)
            cut = partial(largest, deviations=NormalDist().inv_cdf(sparsity))
            self._scales.append((halves[0], cut))
        if limit and act != "swiglu_clamped":
            cap = table.bind(LIMIT_GATED, dtype_name(dtype), F=width)
            self._scales.append(
                (slice(0, 2 * width), partial(cap, limit=limit, gate_limit=gate_limit or limit))
            )
        op, how = ACT_MUL, dict[str, Any](act=act)
        if act == "swiglu_clamped":
            op, how = SWIGLU_CLAMPED, {"limit": limit}
        self._act_mul = partial(table.bind(op, dtype_name(dtype), F=width), **how)
        inner = partial(RmsNorm, table, size=width, eps=inner_eps, dtype=dtype)
        self._inner = [inner(f"{name}.inner_norm")] if inner_eps else []
        self._down = Linear(
            table,
            f"{name}.down",
            in_size=width,
            out_size=size,
            bias=bias or down_bias,
            dtype=dtype,
            format=format,
        )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._gate_up.load(weights)
        for norm in self._inner:
            norm.load(weights)
        self._down.load(weights)

    def __call__(self, x: torch.Tensor, arena: Arena, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        num_tokens = x.shape[0]
        gate_up = self._gate_up(
            x, out=arena.take((num_tokens, 2 * self._width), x.dtype)
        )  # [T, 2F]
        for half, scale in self._scales:
            scale(gate_up[:, half], out=gate_up[:, half])
        gated = arena.take((num_tokens, self._width), x.dtype)  # [T, F]
        self._act_mul(gate_up, out=gated)
        for norm in self._inner:
            norm(gated, out=gated)
        return self._down(gated, out=out)


class PlainMlp:
    """down(act(up(x))) for x [T, C]; act and format as in GatedMlp."""

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        size: int,
        width: int,
        act: str,
        bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self._width = width
        self._act_name = act
        self._up = Linear(
            table,
            f"{name}.up",
            in_size=size,
            out_size=width,
            bias=bias,
            dtype=dtype,
            format=format,
        )
        self._act: Callable[..., Any] = table.bind(ACT, dtype_name(dtype), F=width)
        self._down = Linear(
            table,
            f"{name}.down",
            in_size=width,
            out_size=size,
            bias=bias,
            dtype=dtype,
            format=format,
        )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._up.load(weights)
        self._down.load(weights)

    def __call__(self, x: torch.Tensor, arena: Arena, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        wide = self._up(x, out=arena.take((x.shape[0], self._width), x.dtype))  # [T, F]
        self._act(wide, act=self._act_name, out=wide)
        return self._down(wide, out=out)


class CurvedMlp(PlainMlp):
    """PlainMlp with the activation "xielu", whose numbers are learned: `<name>.rise`, `fall` [1], `slope`, `least`."""

    def __init__(
        self, table: Table, name: str, *, width: int, dtype: torch.dtype, **rest: Any
    ) -> None:
        super().__init__(table, name, width=width, dtype=dtype, **rest)
        self._name = name
        self._curve = table.bind(XIELU, dtype_name(dtype), F=width)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        super().load(weights)
        names = ("rise", "fall", "slope", "least")
        rise, fall, slope, least = (float(weights(f"{self._name}.{it}").item()) for it in names)
        curve = partial(
            self._curve, rise=log1p(exp(rise)), fall=slope + log1p(exp(fall)), slope=slope
        )
        self._act = lambda x, act, out: curve(x, least=least, out=out)


FEED_FORWARDS: dict[bool, Callable[..., FeedForward]] = {True: GatedMlp, False: PlainMlp}
"""The class by whether the part has a gate."""
