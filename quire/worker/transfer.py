"""Moves cache blocks elsewhere and back around a step. Without a mover, nothing happens here."""

from __future__ import annotations

from typing import Protocol

from quire.worker.batch import Batch


class Transfer(Protocol):
    """Chosen at start; the runner calls it in every step."""

    def before(self, batch: Batch) -> None:
        """Starts or awaits loads that this step's rows need."""

    def after(self, batch: Batch) -> None:
        """Starts saves of what this step computed."""


class NoTransfer:
    """The cache stays where it is."""

    def before(self, batch: Batch) -> None:
        return None

    def after(self, batch: Batch) -> None:
        return None
