"""The skeletons of a decoder layer, one class for each placement of norms; none of them branches.

What a mixer or a feed-forward part computes is in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from quire.layers.attention import AttentionLayer
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.mlp import GatedMlp
from quire.layers.norm import AddRmsNorm, RmsNorm
from quire.ops.elementwise import ADD
from quire.ops.registry import Table


class DecoderLayer(Protocol):
    """One layer of a decoder. Everything it takes from the arena it gives back."""

    mixer: AttentionLayer

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""


class PreNormLayer:
    """x += mixer(norm(x)); x += feed_forward(norm(x))."""

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        mixer: AttentionLayer,
        feed_forward: GatedMlp,
        size: int,
        eps: float,
        dtype: torch.dtype,
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_mixer = RmsNorm(
            table, f"{name}.norm_before_mixer", size=size, eps=eps, dtype=dtype
        )
        self._before_feed_forward = AddRmsNorm(
            table, f"{name}.norm_before_feed_forward", size=size, eps=eps, dtype=dtype
        )
        self._add = table.bind(ADD, dtype_name(dtype), C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self._before_mixer, self.mixer, self._before_feed_forward, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class SandwichLayer:
    """x += norm(mixer(norm(x))); x += norm(feed_forward(norm(x)))."""

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        mixer: AttentionLayer,
        feed_forward: GatedMlp,
        size: int,
        eps: float,
        dtype: torch.dtype,
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_mixer = RmsNorm(
            table, f"{name}.norm_before_mixer", size=size, eps=eps, dtype=dtype
        )
        self._after_mixer = RmsNorm(
            table, f"{name}.norm_after_mixer", size=size, eps=eps, dtype=dtype
        )
        self._before_feed_forward = AddRmsNorm(
            table, f"{name}.norm_before_feed_forward", size=size, eps=eps, dtype=dtype
        )
        self._after_feed_forward = RmsNorm(
            table, f"{name}.norm_after_feed_forward", size=size, eps=eps, dtype=dtype
        )
        self._add = table.bind(ADD, dtype_name(dtype), C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (
            self._before_mixer,
            self._after_mixer,
            self.mixer,
            self._before_feed_forward,
            self._after_feed_forward,
            self._feed_forward,
        ):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._after_mixer(x, out=x)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._after_feed_forward(x, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


PLACEMENTS: dict[str, type[PreNormLayer | SandwichLayer]] = {
    "pre": PreNormLayer,
    "sandwich": SandwichLayer,
}
"""The class for each placement that a description can name."""
