"""The skeletons of a decoder layer, one class for each placement of norms; none of them branches.

What a mixer or a feed-forward part computes is in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from quire.layers.context import ForwardContext
from quire.layers.mlp import FeedForward, NormedPart
from quire.layers.norm import Norms
from quire.ops.registry import Bound


class MixerLayer(Protocol):
    """The part of a layer in which tokens meet.

    attends  for each mixer that it is made of, mostly one, the bound operation on cached tokens; None for
             one that keeps states.
    """

    @property
    def attends(self) -> tuple[Bound | None, ...]: ...

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""


class DecoderLayer(Protocol):
    """One layer of a decoder. Everything it takes from the arena it gives back."""

    @property
    def mixer(self) -> MixerLayer | None: ...

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""


class PreNormLayer:
    """x += mixer(norm(x)); x += feed_forward(norm(x))."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self.before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._before_feed_forward = norms.add_norm(f"{name}.norm_before_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self.before_mixer, self.mixer, self._before_feed_forward, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self.before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class ClosedLayer(PreNormLayer):
    """x += mixer(norm(x)); x += norm(feed_forward(norm(x)))."""

    def __init__(self, name: str, *, feed_forward: FeedForward, norms: Norms, **mixer: Any) -> None:
        closed = NormedPart(feed_forward, norms.norm(f"{name}.norm_after_feed_forward"))
        super().__init__(name, feed_forward=closed, norms=norms, **mixer)


class PostNormLayer:
    """x += norm(mixer(x)); x += norm(feed_forward(x))."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._after_mixer = norms.norm(f"{name}.norm_after_mixer")
        self._after_feed_forward = norms.norm(f"{name}.norm_after_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self.mixer, self._after_mixer, self._feed_forward, self._after_feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self.mixer(residual, ctx, out=x)
        self._after_mixer(x, out=x)
        self._add(residual, x, out=residual)
        self._feed_forward(residual, ctx.arena, out=x)
        self._after_feed_forward(x, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class SandwichLayer:
    """x += norm(mixer(norm(x))); x += norm(feed_forward(norm(x)))."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self.before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._after_mixer = norms.norm(f"{name}.norm_after_mixer")
        self._before_feed_forward = norms.add_norm(f"{name}.norm_before_feed_forward")
        self._after_feed_forward = norms.norm(f"{name}.norm_after_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (
            self.before_mixer,
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
        self.before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._after_mixer(x, out=x)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._after_feed_forward(x, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class OpenSandwichLayer:
    """x += norm(mixer(norm(x))); x += norm(feed_forward(x)): norms of its own are before that part's parts."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        places = ("before_mixer", "after_mixer", "after_feed_forward")
        self._norms = tuple(norms.norm(f"{name}.norm_{place}") for place in places)
        self.before_mixer = self._norms[0]
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for norm in self._norms:
            norm.load(weights)
        for part in (self.mixer, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        before_mixer, after_mixer, after_feed_forward = self._norms
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._add(residual, after_mixer(x, out=x), out=residual)
        self._feed_forward(residual, ctx.arena, out=x)
        self._add(residual, after_feed_forward(x, out=x), out=residual)
        ctx.arena.release(mark)


class ParallelLayer:
    """x += mixer(norm(x)) + feed_forward(norm'(x)): both parts read the same x."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self.before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._before_feed_forward = norms.norm(f"{name}.norm_before_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self.before_mixer, self.mixer, self._before_feed_forward, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        shape = tuple(residual.shape)
        x = ctx.arena.take(shape, residual.dtype)
        y = ctx.arena.take(shape, residual.dtype)
        self.before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._before_feed_forward(residual, out=y)
        self._feed_forward(y, ctx.arena, out=y)
        self._add(residual, x, out=residual)
        self._add(residual, y, out=residual)
        ctx.arena.release(mark)


class ParallelSharedLayer:
    """y = norm(x); x += mixer(y) + feed_forward(y)."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self.before_mixer = norms.norm(f"{name}.norm_before_parts")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self.before_mixer, self.mixer, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        shape = tuple(residual.shape)
        x = ctx.arena.take(shape, residual.dtype)
        y = ctx.arena.take(shape, residual.dtype)
        self.before_mixer(residual, out=y)
        self.mixer(y, ctx, out=x)
        self._feed_forward(y, ctx.arena, out=y)
        self._add(residual, x, out=residual)
        self._add(residual, y, out=residual)
        ctx.arena.release(mark)


class AfterSumsLayer:
    """x = norm(x + mixer(x)); x = norm(x + feed_forward(x))."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._after_mixer = norms.add_norm(f"{name}.norm_after_mixer")
        self._after_feed_forward = norms.add_norm(f"{name}.norm_after_feed_forward")

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self.mixer, self._after_mixer, self._feed_forward, self._after_feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self.mixer(residual, ctx, out=x)
        self._after_mixer(x, residual, out=x)
        # x is now the stream; `residual` takes what the feed-forward part adds to it.
        self._feed_forward(x, ctx.arena, out=residual)
        self._after_feed_forward(residual, x, out=residual)
        ctx.arena.release(mark)


class PreFeedForwardLayer:
    """x += mixer(x); x += feed_forward(norm(x)): what comes in was normed before."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_feed_forward = norms.add_norm(f"{name}.norm_before_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self.mixer, self._before_feed_forward, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self.mixer(residual, ctx, out=x)
        self._before_feed_forward(x, residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class NormedStreamLayer:
    """x = norm(x); x = a x + b mixer(x); x = norm(x); x = c x + d feed_forward(x)."""

    def __init__(
        self, name: str, *, mixer: MixerLayer, feed_forward: FeedForward, norms: Norms
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._before_feed_forward = norms.norm(f"{name}.norm_before_feed_forward")
        self._add_mixed, self._add_fed = norms.blend(0), norms.blend(2)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self._before_mixer, self._before_feed_forward, self.mixer, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self.mixer(self._before_mixer(residual, out=residual), ctx, out=x)
        self._add_mixed(residual, x, out=residual)
        self._feed_forward(self._before_feed_forward(residual, out=residual), ctx.arena, out=x)
        self._add_fed(residual, x, out=residual)
        ctx.arena.release(mark)


class MixerOnlyLayer:
    """x += mixer(norm(x))."""

    def __init__(self, name: str, *, mixer: MixerLayer, feed_forward: None, norms: Norms) -> None:
        self.mixer = mixer
        self._before_mixer = norms.norm(f"{name}.norm_before_mixer")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self._before_mixer, self.mixer):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_mixer(residual, out=x)
        self.mixer(x, ctx, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


class FeedForwardOnlyLayer:
    """x += feed_forward(norm(x))."""

    def __init__(self, name: str, *, mixer: None, feed_forward: FeedForward, norms: Norms) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._before_feed_forward = norms.norm(f"{name}.norm_before_feed_forward")
        self._add = norms.add()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (self._before_feed_forward, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds the layer's part to the residual stream [T, C] in place."""
        mark = ctx.arena.mark()
        x = ctx.arena.take(tuple(residual.shape), residual.dtype)
        self._before_feed_forward(residual, out=x)
        self._feed_forward(x, ctx.arena, out=x)
        self._add(residual, x, out=residual)
        ctx.arena.release(mark)


PLACEMENTS: dict[str, Callable[..., DecoderLayer]] = {
    "pre": PreNormLayer,
    "post": PostNormLayer,
    "sandwich": SandwichLayer,
    "parallel": ParallelLayer,
    "parallel_shared": ParallelSharedLayer,
    "after_sums": AfterSumsLayer,
    "pre_feed_forward": PreFeedForwardLayer,
    "pre_closed": ClosedLayer,
    "mixer_only": MixerOnlyLayer,
    "feed_forward_only": FeedForwardOnlyLayer,
    "sandwich_open": OpenSandwichLayer,
    "normed_stream": NormedStreamLayer,
}
"""The class for each placement that a description can name."""
