"""The skeletons of layers that weigh the residual stream, or each of its numbers, before they add to it.

The plain ones are `models.decoder_layers`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.mlp import FeedForward
from quire.layers.norm import Norms
from quire.models.decoder_layers import DecoderLayer, MixerLayer
from quire.ops.streams import MULTIPLY


class BlendedSandwichLayer:
    """x = a x + b norm(mixer(norm(x))); x = c x + d norm(feed_forward(norm(x)))."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._around_mixer, self._around_feed_forward = (
            [norms.norm(f"{name}.norm_{side}_{part}") for side in ("before", "after")]
            for part in ("mixer", "feed_forward")
        )
        self._add_mixed, self._add_fed = norms.blend(0), norms.blend(2)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for norm in (*self._around_mixer, *self._around_feed_forward):
            norm.load(weights)
        for part in (self.mixer, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        before, after = self._around_mixer
        self.mixer(before(residual, out=x), ctx, out=x)
        self._add_mixed(residual, after(x, out=x), out=residual)
        before, after = self._around_feed_forward
        self._feed_forward(before(residual, out=x), ctx.arena, out=x)
        self._add_fed(residual, after(x, out=x), out=residual)
        ctx.arena.release(mark)


class WeighedStreamLayer:
    """x = w * x + mixer(norm(x)); x = w' * x + feed_forward(norm(x)).

    w and w' are the parameters `<name>.kept_by_mixer` and `<name>.kept_by_feed_forward` [C].
    """

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._name = name
        self._before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._before_feed_forward = norms.add_norm(f"{name}.norm_before_feed_forward")
        self._multiply = norms.table.bind(MULTIPLY, dtype_name(norms.dtype), C=norms.size)
        self._add = norms.add()
        self._kept: tuple[torch.Tensor, ...] = ()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self._before_mixer, self.mixer, self._before_feed_forward, self._feed_forward):
            part.load(weights)
        names = (f"{self._name}.kept_by_{part}" for part in ("mixer", "feed_forward"))
        self._kept = tuple(weights(name) for name in names)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._multiply(residual, self._kept[0], out=residual)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._multiply(residual, self._kept[1], out=residual)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


WEIGHED: dict[str, Callable[..., DecoderLayer]] = {
    "pre_weighed": WeighedStreamLayer,
    "sandwich_blended": BlendedSandwichLayer,
}
"""The class for each of their placements."""
