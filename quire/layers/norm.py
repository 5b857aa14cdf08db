"""Norms with their weights, alone or joined with the residual addition before them.

Variants such as 1 + w are folded into the weight when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from quire.layers.dtypes import dtype_name
from quire.ops.arena import Arena
from quire.ops.elementwise import ADD, SCALE
from quire.ops.norm import ADD_RMS_NORM, LAYER_NORM, RMS_NORM
from quire.ops.registry import Table


class Norm(Protocol):
    """A norm over the last axis."""

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameters."""

    def __call__(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes the norm of x [..., C] into `out` of the same shape, which may be x."""


class AddNorm(Protocol):
    """A norm of the residual stream after something was added to it."""

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameters."""

    def __call__(
        self, x: torch.Tensor, residual: torch.Tensor, *, out: torch.Tensor
    ) -> torch.Tensor:
        """Adds x [T, C] to `residual` in place; the norm of the sum goes to `out`, maybe x."""


class RmsNorm:
    """x / rms(x) * weight over the last axis; its parameter is `<name>.weight` [C] float32."""

    def __init__(
        self, table: Table, name: str, *, size: int, eps: float, dtype: torch.dtype
    ) -> None:
        self.name = name
        self._eps = eps
        self._norm = table.bind(RMS_NORM, dtype_name(dtype), C=size)
        self._weight: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameter."""
        self._weight = weights(f"{self.name}.weight")

    def __call__(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes the norm of x [..., C] into `out` of the same shape, which may be x."""
        self._norm(x, self._weight, eps=self._eps, out=out)
        return out


class PlainNorm:
    """x / rms(x) over the last axis, without weights."""

    def __init__(self, table: Table, size: int, eps: float, dtype: torch.dtype) -> None:
        self._ones = torch.ones(size, device=table.device)
        self._norm = table.bind(RMS_NORM, dtype_name(dtype), C=size)
        self._eps = eps

    def __call__(self, x: torch.Tensor, arena: Arena) -> torch.Tensor:
        """The norm of x [..., C], in the arena."""
        out = arena.take(tuple(x.shape), x.dtype)
        self._norm(x, self._ones, eps=self._eps, out=out)
        return out


class OwnRmsNorm(RmsNorm):
    """RmsNorm of heads [T, H, C], each with weights of its own: `<name>.weight` [H, C] float32."""

    def __call__(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes the norm of each head of x [T, H, C] into `out` of the same shape, which may be x."""
        assert self._weight is not None, "used before it was loaded"
        for head, weight in enumerate(self._weight):
            self._norm(x[:, head], weight, eps=self._eps, out=out[:, head])
        return out


class LayerNorm:
    """(x - mean) / deviation * weight + bias over the last axis, of size C.

    Its parameters: `<name>.weight` [C], or [H, C] for x [T, H, C], and with `bias` `<name>.bias`
    of the same shape; float32.
    """

    def __init__(
        self, table: Table, name: str, *, size: int, eps: float, dtype: torch.dtype, bias: bool
    ) -> None:
        self.name = name
        self._eps = eps
        self._has_bias = bias
        self._norm = table.bind(LAYER_NORM, dtype_name(dtype), C=size)
        self._weight: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameters."""
        self._weight = weights(f"{self.name}.weight")
        self._bias = weights(f"{self.name}.bias") if self._has_bias else None

    def __call__(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes the norm of x [..., C] into `out` of the same shape, which may be x."""
        self._norm(x, self._weight, self._bias, eps=self._eps, out=out)
        return out


class AddRmsNorm:
    """residual += x, then the norm of the sum; its parameter is `<name>.weight` [C] float32."""

    def __init__(
        self, table: Table, name: str, *, size: int, eps: float, dtype: torch.dtype
    ) -> None:
        self.name = name
        self._eps = eps
        self._norm = table.bind(ADD_RMS_NORM, dtype_name(dtype), C=size)
        self._weight: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameter."""
        self._weight = weights(f"{self.name}.weight")

    def __call__(
        self, x: torch.Tensor, residual: torch.Tensor, *, out: torch.Tensor
    ) -> torch.Tensor:
        """Adds x [T, C] to `residual` in place; the norm of the sum goes to `out`, maybe x."""
        self._norm(x, residual, self._weight, eps=self._eps, out=out)
        return out


class AddThenNorm:
    """residual += scale * x, then any norm of the sum; its parameters are those of the norm."""

    def __init__(self, norm: Norm, add: Callable[..., Any]) -> None:
        self._norm = norm
        self._add = add

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes the norm's parameters."""
        self._norm.load(weights)

    def __call__(
        self, x: torch.Tensor, residual: torch.Tensor, *, out: torch.Tensor
    ) -> torch.Tensor:
        """Adds scale * x [T, C] to `residual` in place; the norm of the sum goes to `out`."""
        self._add(residual, x, out=residual)
        return self._norm(residual, out=out)


class NoNorm:
    """x as it is; no parameters. What ends in norms has no further one."""

    def __init__(
        self, table: Table, name: str, *, size: int, eps: float, dtype: torch.dtype
    ) -> None:
        self._copy = table.bind(SCALE, dtype_name(dtype), C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes nothing."""

    def __call__(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes x [..., C] into `out` of the same shape."""
        self._copy(x, factor=1.0, out=out)
        return out


NORMS: dict[str, Callable[..., Norm]] = {
    "rms": RmsNorm,
    "layer": partial(LayerNorm, bias=True),
    "layer_unbiased": partial(LayerNorm, bias=False),
    "none": NoNorm,
}
"""The class for each kind of norm that a description can name."""


@dataclass(frozen=True, kw_only=True)
class Norms:
    """Makes the norms and additions of one layer, which are all alike.

    kind            a key of NORMS.
    size            C.
    residual_scale  factor of what is added to the residual stream.
    stream_scales   factors of the stream and of what is added, by the mixer and by the feed-forward part.
    """

    table: Table
    kind: str
    size: int
    eps: float
    dtype: torch.dtype
    residual_scale: float = 1.0
    stream_scales: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def norm(self, name: str) -> Norm:
        """A norm whose parameters begin with `name`."""
        return NORMS[self.kind](self.table, name, size=self.size, eps=self.eps, dtype=self.dtype)

    def add_norm(self, name: str) -> AddNorm:
        """The same after an addition: one operation where there is one."""
        if self.kind == "rms" and self.residual_scale == 1.0:
            return AddRmsNorm(self.table, name, size=self.size, eps=self.eps, dtype=self.dtype)
        return AddThenNorm(self.norm(name), self.add())

    def add(self) -> Callable[..., Any]:
        """add(residual, x, out=residual): residual [T, C] + residual_scale * x."""
        bound = self.table.bind(ADD, dtype_name(self.dtype), C=self.size)
        return partial(bound, scale=self.residual_scale)

    def blend(self, place: int) -> Callable[..., Any]:
        """blend(residual, x, out=residual): kept * residual [T, C] + added * x, which spoils x.

        place  of `kept` among `stream_scales`, where `added` follows it.
        """
        kept, added = self.stream_scales[place : place + 2]
        add = self.table.bind(ADD, dtype_name(self.dtype), C=self.size)
        scale = self.table.bind(SCALE, dtype_name(self.dtype), C=self.size)

        def blend(residual: torch.Tensor, x: torch.Tensor, *, out: torch.Tensor) -> None:
            if added != 1.0:
                scale(x, factor=added, out=x)
            add(x, residual, scale=kept, out=out)

        return blend
