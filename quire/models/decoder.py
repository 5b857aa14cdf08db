"""The one decoder: embedding, layers, final norm, head, whatever the architecture.

It is put together in `models.build`; who runs in a step is the worker's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, overload

import torch

from quire.layers.before_head import BeforeHead
from quire.layers.context import ForwardContext
from quire.layers.cross_attention import CrossAttention
from quire.layers.dtypes import dtype_name
from quire.layers.embedding import AddedRows, Embedding, Head
from quire.layers.layer_inputs import LayerInputs
from quire.layers.norm import Norm
from quire.models.compressed import Kept
from quire.models.cross_layers import MixerAndCross
from quire.models.decoder_layers import DecoderLayer
from quire.models.encoder import EncoderStack
from quire.models.spec import DecoderSpec, Mixer
from quire.ops.arena import Arena
from quire.ops.elementwise import SCALE
from quire.ops.registry import Bound, Table


@dataclass(frozen=True)
class CacheBinding:
    """What the worker must know of what one mixer keeps to make its plan and its view of the cache.

    index   its number among what the mixers of all layers keep.
    attend  the operation on cached tokens; None for a recurrent mixer.
    """

    index: int
    spec: Mixer | Kept
    attend: Bound | None


class AnyDecoder(Protocol):
    """What runs a model: the one decoder, or a program of Transformers."""

    spec: DecoderSpec
    dtype: torch.dtype
    bindings: tuple[CacheBinding, ...]

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes every parameter once and packs it."""

    def forward(self, ctx: ForwardContext) -> torch.Tensor:
        """[T, C] in the arena, what `logits` takes rows of."""

    def logits(self, hidden: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """[B, V] float32 for rows [B, C]."""

    def normed(self, hidden: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """The final norm of rows [B, C]."""


class StreamEnds(Protocol):
    """The ends of several residual streams, which layers get as one tensor."""

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""

    def open(self, hidden: torch.Tensor, arena: Arena) -> torch.Tensor:
        """The streams of embeddings [T, C], in the arena."""

    def shown(self, streams: torch.Tensor) -> torch.Tensor:
        """The one [T, C] that stands for all where somebody looks on."""

    def close(self, streams: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[T, C] in the arena, what the final norm takes."""


class Decoder:
    """A model with its weights. All tensors it returns lie in the step's arena.

    spec       without windows that reach `max_model_len`: caches and plans agree with layers.
    embedding_norm  nothing, or one norm of the embedding.
    layer_inputs  what every layer gets beside the residual stream, if anything.
    streams    the ends of several residual streams, where there are some; a pass then runs all layers at once.
    encoder    what layers look at, if anything; its attentions come last in `bindings`.
    added      what is added to the embedding before that norm: rows by token type and by position.
    """

    def __init__(
        self,
        table: Table,
        spec: DecoderSpec,
        *,
        embedding: Embedding,
        embedding_norm: Sequence[Norm],
        added: Sequence[AddedRows],
        layer_inputs: LayerInputs | None,
        streams: StreamEnds | None,
        encoder: EncoderStack | None,
        layers: Sequence[DecoderLayer],
        final_norm: Norm,
        before_head: BeforeHead | None,
        head: Head,
        dtype: torch.dtype,
    ) -> None:
        self.spec = spec
        self.dtype = dtype
        self._num_picks = spec.num_picks
        self._has_shortcuts = spec.has_shortcuts
        attends = [
            attend for layer in layers if layer.mixer is not None for attend in layer.mixer.attends
        ]
        attends, mixers = attends * spec.loops, list(spec.cached)
        self._encoder = encoder
        self._readers: list[CrossAttention] = []
        if encoder is not None and spec.encoder is not None:
            own = [layer.mixer for layer in encoder.layers if layer.mixer is not None]
            attends += [one for mixer in own for one in mixer.attends]
            mixers += [one for layer in spec.encoder.layers for one in layer.mixers]
            found = [layer.mixer for layer in layers]
            self._readers = [one.cross for one in found if isinstance(one, MixerAndCross)]
        self.bindings = tuple(
            CacheBinding(index, mixer, attend)
            for index, (mixer, attend) in enumerate(zip(mixers, attends, strict=True))
        )
        self._embedding = embedding
        self._embedding_norm = tuple(embedding_norm)
        self._added = tuple(added)
        self._layer_inputs = layer_inputs
        self._streams = streams
        self._layers = tuple(layers)
        self._final_norm = final_norm
        self._before_head = before_head
        self._head = head
        self._copy = table.bind(SCALE, dtype_name(dtype), C=spec.hidden_size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes every parameter once, layer by layer, and packs it at once."""
        self._embedding.load(weights, self._head.linear if self.spec.tie_head else None)
        for norm in self._embedding_norm:
            norm.load(weights)
        for rows in self._added:
            rows.load(weights)
        for part in (self._layer_inputs, self._streams, self._encoder):
            if part is not None:
                part.load(weights)
        for layer in self._layers:
            layer.load(weights)
        self._final_norm.load(weights)
        if self._before_head is not None:
            self._before_head.load(weights)
        if not self.spec.tie_head:
            self._head.linear.load(weights)

    def encode(self, ctx: ForwardContext) -> torch.Tensor:
        """What the encoder makes of whole texts [T, C], after it was cached for the layers that look at it."""
        assert self._encoder is not None, "this decoder has no encoder"
        return self._encoder(ctx, self._readers)

    @overload
    def forward(
        self,
        ctx: ForwardContext,
        hidden: torch.Tensor | None = None,
        layers: range | None = None,
        taps: tuple[()] = (),
    ) -> torch.Tensor: ...

    @overload
    def forward(
        self,
        ctx: ForwardContext,
        hidden: torch.Tensor | None = None,
        layers: range | None = None,
        taps: tuple[int, ...] = (),
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]: ...

    def forward(
        self,
        ctx: ForwardContext,
        hidden: torch.Tensor | None = None,
        layers: range | None = None,
        taps: tuple[int, ...] = (),
    ) -> torch.Tensor | tuple[torch.Tensor, list[torch.Tensor]]:
        """The residual stream [T, C] after `layers`, before the final norm.

        hidden  [T, C] to start from, changed in place; None starts from ctx.ids.
        layers  which layers run; None is all. In a second loop they have further numbers.
        taps    layers whose output is wanted too: the result is then (hidden, copies [T, C]).
        """
        residual = self._embedded(ctx) if hidden is None else hidden
        if self._has_shortcuts and ctx.shortcut is None:
            ctx.shortcut = ctx.arena.take(tuple(residual.shape), residual.dtype)
        if self._num_picks and ctx.picks is None:
            ctx.picks = ctx.arena.take((ctx.num_tokens, self._num_picks), torch.int32)
        tapped: dict[int, torch.Tensor] = {}
        count = len(self._layers)
        views = [_of_loop(ctx, self.spec, loop) for loop in range(self.spec.loops)]
        for index in range(count * self.spec.loops) if layers is None else layers:
            loop, number = divmod(index, count)
            if loop and not number:
                self._final_norm(residual, out=residual)
            self._layers[number](residual, views[loop])
            if index in taps:
                stream = residual if self._streams is None else self._streams.shown(residual)
                kept = ctx.arena.take(tuple(stream.shape), residual.dtype)
                tapped[index] = self._copy(stream, factor=1.0, out=kept)
        if self._streams is not None:
            residual = self._streams.close(residual, ctx.arena)
        if not taps:
            return residual
        return residual, [tapped[index] for index in taps if index in tapped]

    def _embedded(self, ctx: ForwardContext) -> torch.Tensor:
        hidden = self._embedding(ctx)
        for rows in self._added:
            rows(hidden, ctx)
        for norm in self._embedding_norm:
            norm(hidden, out=hidden)
        if self._layer_inputs is not None:
            self._layer_inputs(hidden, ctx)
        if self.spec.keeps_embedding:
            kept = ctx.arena.take(tuple(hidden.shape), hidden.dtype)
            ctx.embedded = self._copy(hidden, factor=1.0, out=kept)
        return hidden if self._streams is None else self._streams.open(hidden, ctx.arena)

    def logits(self, hidden: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """[B, V] float32 for rows [B, C] of the residual stream; the final norm is applied here."""
        rows = self.normed(hidden, ctx)
        if self._before_head is not None:
            rows = self._before_head(rows, ctx.arena)
        return self._head(rows, ctx.arena)

    def normed(self, hidden: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """The final norm of rows [B, C] of the residual stream."""
        normed = ctx.arena.take(tuple(hidden.shape), hidden.dtype)
        self._final_norm(hidden, out=normed)
        return normed


def _of_loop(ctx: ForwardContext, spec: DecoderSpec, loop: int) -> ForwardContext:
    """The step as the layers see it in a loop: the caches are those of that loop."""
    if not loop:
        return ctx
    first = loop * (len(spec.mixers) // spec.loops)
    return replace(ctx, caches=ctx.caches[first:], group_of=ctx.group_of[first:])
