"""LoRA adapters of a step: which rows use which. Without adapters, nothing happens here."""

from __future__ import annotations

from typing import Protocol

from quire.worker.batch import Batch


class Adapters(Protocol):
    """Chosen at start; the runner calls it in every step."""

    def select(self, batch: Batch) -> None:
        """Tells the adapter layers which packed tokens use which slot."""


class NoAdapters:
    """The engine was started without adapters: every row uses the plain weights."""

    def select(self, batch: Batch) -> None:
        return None
