"""Embeddings that replace placeholder tokens. A text model has none."""

from __future__ import annotations

from typing import Protocol

from quire.worker.batch import Batch


class Encoder(Protocol):
    """Chosen at start; the runner calls it in every step."""

    def embed(self, batch: Batch) -> None:
        """Sets `embeds` [E, C] and `embed_rows` [E] of the batch's context where media stand."""


class NoEncoder:
    """A text model: token ids say it all."""

    def embed(self, batch: Batch) -> None:
        return None
