"""The encoder of an encoder-decoder model: a text read whole, once, for the decoder's layers to look at.

It is put together in `models.build`; which texts a step reads is the worker's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from quire.layers.context import ForwardContext
from quire.layers.cross_attention import CrossAttention
from quire.layers.embedding import AddedRows, Embedding
from quire.layers.norm import Norm
from quire.models.decoder_layers import DecoderLayer


class EncoderStack:
    """Its layers, the norms at both ends, and what it hands its result to.

    embedding  the decoder's, which loads it.
    """

    def __init__(
        self,
        *,
        embedding: Embedding,
        added: Sequence[AddedRows],
        embedding_norm: Sequence[Norm],
        layers: Sequence[DecoderLayer],
        final_norm: Norm,
    ) -> None:
        self._embedding = embedding
        self._added = tuple(added)
        self._embedding_norm = tuple(embedding_norm)
        self.layers = tuple(layers)
        self._final_norm = final_norm

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its own parameters, in the order of `models.parameters`."""
        for norm in self._embedding_norm:
            norm.load(weights)
        for rows in self._added:
            rows.load(weights)
        for layer in self.layers:
            layer.load(weights)
        self._final_norm.load(weights)

    def __call__(self, ctx: ForwardContext, readers: Sequence[CrossAttention]) -> torch.Tensor:
        """Reads the texts of a step, whole ones; [T, C] in the arena, which `readers` have cached."""
        hidden = self._embedding(ctx)
        for rows in self._added:
            rows(hidden, ctx)
        for norm in self._embedding_norm:
            norm(hidden, out=hidden)
        for layer in self.layers:
            layer(hidden, ctx)
        self._final_norm(hidden, out=hidden)
        for reader in readers:
            reader.remember(hidden, ctx)
        return hidden
