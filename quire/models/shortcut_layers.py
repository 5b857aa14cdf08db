"""Two layers of which the second adds what the experts of the first made, as LongCat's and Arctic's have it.

Other skeletons are `models.decoder_layers` and `models.stream_layers`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.context import ForwardContext
from quire.layers.mlp import FeedForward
from quire.layers.norm import Norms
from quire.layers.shortcut_moe import ShortcutMoe
from quire.models.decoder_layers import MixerLayer, PreNormLayer


class OpeningLayer:
    """x += mixer(norm(x)); y = norm(x); x += shared part of y; `ctx.shortcut` becomes experts of y."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: ShortcutMoe, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._before_feed_forward = norms.add_norm(f"{name}.norm_before_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self._before_mixer, self.mixer, self._before_feed_forward, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place, but for its experts."""
        assert ctx.shortcut is not None
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, routed=ctx.shortcut, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class ClosingLayer:
    """x += mixer(norm(x)); x += feed_forward(norm(x)); x += `ctx.shortcut`."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self._layer = PreNormLayer(name, mixer=mixer, feed_forward=feed_forward, norms=norms)
        self.mixer = mixer
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        self._layer.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part, and what the layer before left, to the residual stream [T, C] in place."""
        self._layer(residual, ctx)
        self._add(residual, ctx.shortcut, out=residual)


class ExpertsApartLayer:
    """`ctx.shortcut` becomes feed_forward(norm(x)); the stream stays as it is."""

    def __init__(self, name: str, *, mixer: None, feed_forward: FeedForward, norms: Norms) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_feed_forward = norms.norm(f"{name}.norm_before_feed_forward")

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self._before_feed_forward, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Leaves the layer's part of the residual stream [T, C] for the next layer to add."""
        assert ctx.shortcut is not None
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_feed_forward(residual, out=x)
        self._feed_forward(x, ctx.arena, out=ctx.shortcut)
        ctx.arena.release(mark)


SHORTCUTS = {
    "shortcut_open": OpeningLayer,
    "shortcut_apart": ExpertsApartLayer,
    "shortcut_close": ClosingLayer,
}
"""The class for each of their placements."""
