"""Several mixers in one layer: they read the same numbers, and their results are added.

What each of them computes is in its own file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.ops.elementwise import ADD, SCALE
from quire.ops.registry import Bound, Table


class _Mixer(Protocol):
    @property
    def attends(self) -> tuple[Bound | None, ...]: ...

    def load(self, weights: Callable[[str], torch.Tensor]) -> None: ...

    def __call__(
        self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor
    ) -> torch.Tensor: ...


class MixersSideBySide:
    """x [T, C] to the sum over `parts` of scale * part(x), rounded after each addition."""

    def __init__(
        self,
        table: Table,
        parts: Sequence[_Mixer],
        scales: Sequence[float],
        *,
        size: int,
        dtype: torch.dtype,
    ) -> None:
        self._parts = tuple(parts)
        self._scales = tuple(scales)
        self._add: Callable[..., Any] = table.bind(ADD, dtype_name(dtype), C=size)
        self._scale: Callable[..., Any] = table.bind(SCALE, dtype_name(dtype), C=size)

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """Those of all parts, in order."""
        return tuple(attend for part in self._parts for attend in part.attends)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the parameters of all parts."""
        for part in self._parts:
            part.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        arena, shape = ctx.arena, tuple(x.shape)
        total, made = arena.take(shape, x.dtype), arena.take(shape, x.dtype)
        for place, (part, scale) in enumerate(zip(self._parts, self._scales, strict=True)):
            mark = arena.mark()
            part(x, ctx, out=made)
            arena.release(mark)
            if place:
                self._add(total, made, scale=scale, out=total)
            else:
                self._scale(made, factor=scale, out=total)
        return self._scale(total, factor=1.0, out=out)  # type: ignore[no-any-return]
