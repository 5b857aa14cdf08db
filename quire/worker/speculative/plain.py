"""Proposing draft tokens. Without speculative decoding, nothing is proposed."""

from __future__ import annotations

from typing import Protocol

import torch

from quire.protocol.step import RowResult
from quire.worker.batch import Batch


class Drafter(Protocol):
    """Chosen at start; the runner calls it in every step."""

    def propose(self, batch: Batch, hidden: torch.Tensor, rows: list[RowResult]) -> list[RowResult]:
        """The same rows, with `drafts` filled for those that continue. hidden [T, C]."""


class NoDrafter:
    """One token a step."""

    def propose(self, batch: Batch, hidden: torch.Tensor, rows: list[RowResult]) -> list[RowResult]:
        return rows
