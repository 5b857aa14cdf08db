"""The skeleton of a layer that adds and norms its input twice before its feed-forward part.

The others are in `models.decoder_layers`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.context import ForwardContext
from quire.layers.mlp import FeedForward
from quire.layers.norm import Norms
from quire.models.decoder_layers import MixerLayer


class AfterSumsTwiceLayer:
    """y = norm(x + mixer(x)); x = norm(x + y); x = norm(x + feed_forward(x)). Source: jina-bert-v2-qk-post-norm."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._add = norms.add()
        self._after_mixer = norms.norm(f"{name}.norm_after_mixer")
        self._again = norms.add_norm(f"{name}.norm_again")
        self._after_feed_forward = norms.add_norm(f"{name}.norm_after_feed_forward")

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        norms = (self._after_mixer, self._again)
        for part in (self.mixer, *norms, self._feed_forward, self._after_feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self.mixer(residual, ctx, out=x)
        self._add(residual, x, out=x)
        self._after_mixer(x, out=x)
        self._again(x, residual, out=x)
        # x is now the stream; `residual` takes what the feed-forward part adds to it.
        self._feed_forward(x, ctx.arena, out=residual)
        self._after_feed_forward(residual, x, out=residual)
        ctx.arena.release(mark)
