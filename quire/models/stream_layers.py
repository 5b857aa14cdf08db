"""Layers that get something beside the residual stream: numbers of their own, an earlier stream, several streams.

Gemma 3n and 4 and Solar have them; plain skeletons are `models.decoder_layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from quire.layers.altup import AltUp
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.layer_inputs import InputPart
from quire.layers.linear import Linear
from quire.layers.mlp import FeedForward
from quire.layers.norm import Norms
from quire.models.build_mixers import MixerParts
from quire.models.decoder_layers import DecoderLayer, MixerLayer
from quire.models.spec import DecoderSpec, LayerSpec, Streams
from quire.ops.elementwise import ADD, SCALE
from quire.ops.streams import MULTIPLY


@dataclass(frozen=True)
class EndParts:
    """What a layer's end is made with: `name` of the layer, its number, its norms."""

    parts: MixerParts
    decoder: DecoderSpec
    name: str
    number: int
    norms: Norms

    def input_part(self, act: str | None) -> list[InputPart]:
        """The part that adds the layer's own input, or nothing."""
        inputs = self.decoder.layer_inputs
        if inputs is None or act is None:
            return []
        part = InputPart(
            self.parts.table,
            f"{self.name}.input",
            self.number,
            size=self.parts.size,
            input_size=inputs.size,
            act=act,
            norm=self.norms.norm,
            dtype=self.parts.dtype,
            format=self.parts.format,
        )
        return [part]

    def bind(self, op: Any) -> Callable[..., Any]:
        """An operation on rows of the residual stream."""
        return self.parts.table.bind(op, dtype_name(self.parts.dtype), C=self.parts.size)

    def linear(self, name: str, in_size: int, out_size: int) -> Linear:
        """A product of the layer without bias."""
        return Linear(
            self.parts.table,
            f"{self.name}.{name}",
            in_size=in_size,
            out_size=out_size,
            bias=False,
            dtype=self.parts.dtype,
            format=self.parts.format,
        )


class EndedLayer:
    """Any layer, then x += input part(x), then x times a learned number `<name>.factor` [1]."""

    def __init__(self, layer: DecoderLayer, spec: LayerSpec, end: EndParts) -> None:
        self.mixer = layer.mixer
        self.before_mixer = getattr(layer, "before_mixer", None)
        self._layer = layer
        self._inputs = end.input_part(spec.input_act)
        self._add = end.norms.add()
        self._factor_name = f"{end.name}.factor" if spec.scaled else None
        self._scale = end.bind(SCALE)
        self._factors: list[Callable[..., Any]] = []

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        self._layer.load(weights)
        for part in self._inputs:
            part.load(weights)
        if self._factor_name is not None:
            factor = float(weights(self._factor_name).item())
            self._factors = [partial(self._scale, factor=factor)]

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        self._layer(residual, ctx)
        mark = ctx.arena.mark()
        for part in self._inputs:
            x = ctx.arena.take(tuple(residual.shape), residual.dtype)
            self._add(residual, part(residual, ctx, out=x), out=residual)
        for scale in self._factors:
            scale(residual, out=residual)
        ctx.arena.release(mark)


class KeepingLayer:
    """Any layer, whose input stays for later ones: `ctx.kept`."""

    def __init__(self, layer: DecoderLayer, end: EndParts) -> None:
        self.mixer = layer.mixer
        self._layer = layer
        self._number = end.number
        self._copy = end.bind(SCALE)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        self._layer.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Keeps the residual stream [T, C], then runs the layer."""
        kept = ctx.arena.take(tuple(residual.shape), residual.dtype)
        ctx.kept[self._number] = self._copy(residual, factor=1.0, out=kept)
        self._layer(residual, ctx)


class BlendingLayer:
    """x = share * what came into an earlier layer + (1 - share) * x, for each of `blends`; then any layer."""

    def __init__(
        self, layer: DecoderLayer, blends: tuple[tuple[int, float], ...], end: EndParts
    ) -> None:
        self.mixer = layer.mixer
        self._layer = layer
        self._blends = blends
        self._scale, self._add = end.bind(SCALE), end.bind(ADD)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        self._layer.load(weights)

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next residual stream [T, C] in place."""
        for number, share in self._blends:
            self._scale(residual, factor=1.0 - share, out=residual)
            self._add(residual, ctx.kept[number], scale=share, out=residual)
        self._layer(residual, ctx)


class AltUpLayer:
    """A sandwich on one of the streams [S, T, C], with a narrow product beside the mixer.

    Further parameters: `<name>.altup`, `<name>.laurel.down`, `up` and `norm`, with `scaled` `<name>.altup.scale`.
    """

    def __init__(
        self,
        spec: LayerSpec,
        streams: Streams,
        end: EndParts,
        *,
        mixer: MixerLayer,
        feed_forward: FeedForward,
    ) -> None:
        self.mixer = mixer
        self._feed_forward = feed_forward
        self._active, self._rank = streams.active, streams.rank
        name, size, norm = end.name, end.parts.size, end.norms.norm
        self._altup = AltUp(
            end.parts.table,
            f"{name}.altup",
            count=streams.count,
            active=streams.active,
            size=size,
            eps=spec.norm_eps,
            dtype=end.parts.dtype,
        )
        self._down = end.linear("laurel.down", size, streams.rank)
        self._up = end.linear("laurel.up", streams.rank, size)
        self._laurel_norm = norm(f"{name}.laurel.norm")
        places = ("before_mixer", "after_mixer", "before_feed_forward", "after_feed_forward")
        self._norms = tuple(norm(f"{name}.norm_{place}") for place in places)
        self._add = end.norms.add()
        self._scale, self._multiply = end.bind(SCALE), end.bind(MULTIPLY)
        self._inputs = end.input_part(spec.input_act)
        self._scale_name = f"{name}.altup.scale" if streams.scaled else None
        self._scales: list[torch.Tensor] = []

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the layer's parameters."""
        for norm in (self._laurel_norm, *self._norms):
            norm.load(weights)
        for part in (self._altup, self._down, self._up, self.mixer, self._feed_forward):
            part.load(weights)
        for own in self._inputs:
            own.load(weights)
        if self._scale_name is not None:
            self._scales = [weights(self._scale_name)]

    def __call__(self, residual: torch.Tensor, ctx: ForwardContext) -> None:
        """Makes the next streams [S, T, C] in place."""
        mark = ctx.arena.mark()
        expected = self._altup.predict(residual, ctx.arena)
        made = self._made(expected[self._active], ctx)
        self._altup.correct(expected, made, ctx.arena, out=residual)
        self._scale(residual[self._active], factor=1.0, out=made)
        for scales in self._scales:
            self._multiply(made, scales, out=made)
        for part in self._inputs:
            part(made, ctx, out=made)
            for stream in residual[1:]:
                self._add(stream, made, out=stream)
        ctx.arena.release(mark)

    def _made(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """What mixer and feed-forward part make of the active stream [T, C], in the arena."""
        before_mixer, after_mixer, before_feed_forward, after_feed_forward = self._norms
        arena, shape = ctx.arena, tuple(x.shape)
        made, beside = arena.take(shape, x.dtype), arena.take(shape, x.dtype)
        before_mixer(x, out=made)
        narrow = self._down(made, out=arena.take((shape[0], self._rank), x.dtype))
        self._laurel_norm(self._up(narrow, out=beside), out=beside)
        self._add(beside, made, out=beside)
        self.mixer(made, ctx, out=made)
        self._add(x, after_mixer(made, out=made), out=made)
        self._add(made, beside, out=made)
        self._scale(made, factor=2.0**-0.5, out=made)
        before_feed_forward(made, out=beside)
        self._feed_forward(beside, arena, out=beside)
        self._add(made, after_feed_forward(beside, out=beside), out=made)
        return made
