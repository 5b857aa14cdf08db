"""The last layer of a decoder, which in a long step runs for few tokens: those that somebody reads behind it.

Which these are is `worker.reads`' business; of all others it caches what later tokens look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.models.decoder_layers import DecoderLayer
from quire.models.spec import Attention, DecoderSpec, Mla
from quire.ops.elementwise import TAKE_ROWS
from quire.ops.embedding import PUT_ROWS
from quire.ops.registry import Table

_NORMED = ("pre", "pre_closed", "sandwich", "sandwich_open", "parallel", "parallel_shared")
_PLAIN = ("post", "after_sums", "pre_feed_forward")
"""Placements whose mixer reads the stream through a norm of the layer's, or as it is."""


def can_end_early(spec: DecoderSpec) -> bool:
    """Whether nothing but what the last layer caches of a token is needed of one that nobody reads.

    So it is where that layer is causal attention to keys of its own and a feed-forward part, on the one stream.
    """
    last = spec.layers[-1]
    if isinstance(last.mixer, Attention):
        mixer = last.mixer
        is_plain = mixer.shares is None and not (mixer.cross or mixer.bidirectional)
        is_plain = is_plain and mixer.indexer is None
    else:
        is_plain = isinstance(last.mixer, Mla) and last.mixer.picks is None
    others = (spec.program, spec.encoder, spec.streams, spec.layer_inputs)
    return (
        is_plain
        and spec.loops == 1
        and all(other is None for other in others)
        and last.placement in (*_NORMED, *_PLAIN)
        and not last.blends
        and not spec.sees_both_ways
    )


def with_last(
    layers: list[DecoderLayer], spec: DecoderSpec, table: Table, dtype: torch.dtype
) -> list[DecoderLayer]:
    """The layers of a decoder, the last one as LastLayer if it can be."""
    if not can_end_early(spec):
        return layers
    return [*layers[:-1], LastLayer(layers[-1], table, dtype, spec.hidden_size)]


class LastLayer:
    """Any layer of `can_end_early`; where `ctx.read` names rows, it makes those of the next stream alone."""

    def __init__(self, layer: Any, table: Table, dtype: torch.dtype, size: int) -> None:
        self.mixer = layer.mixer
        self._layer: DecoderLayer = layer
        before = getattr(layer, "before_mixer", None)
        self._before = () if before is None else (before,)
        self._take = table.bind(TAKE_ROWS, dtype_name(dtype), C=size)
        self._put = table.bind(PUT_ROWS, dtype_name(dtype), C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        self._layer.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place, or the rows of it that are read."""
        if ctx.read is None:
            self._layer(residual, ctx)
            return
        mark = ctx.arena.mark()
        x = residual
        for norm in self._before:
            x = norm(x, out=ctx.arena.take(tuple(x.shape), x.dtype))
        self.mixer.keep(x, ctx)
        ctx.arena.release(mark)
        rows = ctx.read.rows
        if len(rows):
            few = ctx.arena.take((len(rows), residual.shape[1]), residual.dtype)
            self._layer(self._take(residual, rows, out=few), ctx.read.context)
            self._put(residual, rows, few)
            ctx.arena.release(mark)
