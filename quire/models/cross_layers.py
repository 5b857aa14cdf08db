"""The skeletons of a decoder layer that looks at an encoder between its two parts.

Those without are in `models.decoder_layers`; what the parts compute is in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.context import ForwardContext
from quire.layers.cross_attention import CrossAttention
from quire.layers.mlp import FeedForward
from quire.layers.norm import Norms
from quire.models.decoder_layers import DecoderLayer, MixerLayer
from quire.ops.registry import Bound


class MixerAndCross:
    """Both mixers of a layer, for whoever asks which there are."""

    def __init__(self, mixer: MixerLayer, cross: MixerLayer) -> None:
        assert isinstance(cross, CrossAttention)
        self.own, self.cross = mixer, cross

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """Of both, in order."""
        return (*self.own.attends, *self.cross.attends)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the parameters of both."""
        self.own.load(weights)
        self.cross.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """The first alone: a layer calls the other one itself."""
        return self.own(x, ctx, out=out)


class PreNormCrossLayer:
    """x += mixer(norm(x)); x += cross(norm(x)); x += feed_forward(norm(x))."""

    def __init__(
        self, name: str, *, mixer: MixerAndCross, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._before_cross = norms.add_norm(f"{name}.norm_before_cross")
        self._before_feed_forward = norms.add_norm(f"{name}.norm_before_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for norm in (self._before_mixer, self._before_cross, self._before_feed_forward):
            norm.load(weights)
        self.mixer.load(weights)
        self._feed_forward.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._before_cross(x, residual, out=x)
        self.mixer.cross(x, ctx, out=x)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class AfterSumsCrossLayer:
    """x = norm(x + mixer(x)); x = norm(x + cross(x)); x = norm(x + feed_forward(x))."""

    def __init__(
        self, name: str, *, mixer: MixerAndCross, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        places = ("after_mixer", "after_cross", "after_feed_forward")
        self._norms = tuple(norms.add_norm(f"{name}.norm_{place}") for place in places)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for norm in self._norms:
            norm.load(weights)
        self.mixer.load(weights)
        self._feed_forward.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        after_mixer, after_cross, after_feed_forward = self._norms
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        after_mixer(self.mixer(residual, ctx, out=x), residual, out=x)
        # x is now the stream, and `residual` takes what is added to it; then they change places.
        after_cross(self.mixer.cross(x, ctx, out=residual), x, out=residual)
        self._feed_forward(residual, ctx.arena, out=x)
        after_feed_forward(x, residual, out=residual)
        ctx.arena.release(mark)


CROSS_PLACEMENTS: dict[str, Callable[..., DecoderLayer]] = {
    "pre_cross": PreNormCrossLayer,
    "after_sums_cross": AfterSumsCrossLayer,
}
"""The class for each placement of a layer that looks at an encoder."""
