"""Layers of which each part stands between several residual streams; of DeepSeek V4 and Hy4.

Plain skeletons are `models.decoder_layers`; how streams are read and written is `layers.hyper`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.hashed_moe import HashedMoe
from quire.layers.hyper import HyperConnection, HyperEnds
from quire.layers.mlp import FeedForward
from quire.layers.norm import Norms
from quire.models.build_mixers import MixerParts
from quire.models.decoder_layers import MixerLayer
from quire.models.spec import HyperStreams


def connection(
    parts: MixerParts, name: str, streams: HyperStreams, norm_eps: float, *, writes: bool
) -> HyperConnection:
    """One whose parameters begin with `name`."""
    return HyperConnection(
        parts.table,
        name,
        count=streams.count,
        size=parts.size,
        num_shares=streams.num_shares if writes else streams.count,
        rounds=streams.rounds,
        eps=streams.eps,
        most=streams.most,
        norm_eps=norm_eps,
        dtype=parts.dtype,
    )


def hyper_ends(parts: MixerParts, streams: HyperStreams, norm_eps: float) -> HyperEnds:
    """The ends of the streams, whose parameter is `streams.close`."""
    closing = connection(parts, "streams.close", streams, norm_eps, writes=False)
    return HyperEnds(parts.table, closing, streams.count, parts.dtype)


class HyperLayer:
    """Of streams x [T, S, C]: x = mix(x) + write(mixer(norm(read(x)))); likewise with the feed-forward part."""

    def __init__(
        self,
        parts: MixerParts,
        name: str,
        streams: HyperStreams,
        norms: Norms,
        *,
        norm_eps: float,
        mixer: MixerLayer,
        feed_forward: FeedForward | HashedMoe,
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        places = ("mixer", "feed_forward")
        self._norms = tuple(norms.norm(f"{name}.norm_before_{place}") for place in places)
        self._connections = tuple(
            connection(parts, f"{name}.around_{place}", streams, norm_eps, writes=True)
            for place in places
        )
        feed: Callable[..., object] = partial(_without_tokens, feed_forward)
        if isinstance(feed_forward, HashedMoe):
            feed = partial(_with_tokens, feed_forward)
        self._runs: tuple[Callable[..., object], ...] = (mixer, feed)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for part in (*self._connections, *self._norms, self.mixer, self._feed_forward):
            part.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next streams [T, S, C] in place."""
        for around, norm, run in zip(self._connections, self._norms, self._runs, strict=True):
            mark = ctx.arena.mark()
            x, shares = around.read(residual, ctx.arena)
            run(norm(x, out=x), ctx, out=x)
            around.write(residual, x, shares)
            ctx.arena.release(mark)


def _with_tokens(
    part: HashedMoe, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor
) -> None:
    part(x, ctx.ids, ctx.arena, out=out)


def _without_tokens(
    part: Callable[..., object], x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor
) -> None:
    part(x, ctx.arena, out=out)
