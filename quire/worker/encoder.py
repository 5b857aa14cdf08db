"""Embeddings that replace placeholder tokens: rows that a prompt brought along.

Checking them is `frontend.embeds`' business; putting them in place is `layers.embedding`'s.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from quire.protocol.request import TensorRef
from quire.protocol.step import StepPlan
from quire.worker.batch import Batch
from quire.worker.state import WorkerState


class Encoder(Protocol):
    """Chosen at start; the runner calls it in every step."""

    def embed(self, batch: Batch) -> None:
        """Sets `embeds` [E, C] and `embed_rows` [E] of the batch's context where media stand."""

    def encode(self, plan: StepPlan) -> None:
        """What must be read before the rows of a plan, already applied to the state, can run."""


class NoEncoder:
    """A text model: token ids say it all."""

    def embed(self, batch: Batch) -> None:
        return None

    def encode(self, plan: StepPlan) -> None:
        return None


class PromptEmbeds:
    """Rows of prompts that were given as embeddings."""

    def __init__(self, state: WorkerState, device: torch.device) -> None:
        self._state = state
        self._device = device

    def encode(self, plan: StepPlan) -> None:
        return None

    def embed(self, batch: Batch) -> None:
        """Takes from each row's embeddings those that its chunk computes."""
        places: list[NDArray[np.int64]] = []
        values: list[NDArray[np.float32]] = []
        for at, row in enumerate(batch.plan.rows):
            new = self._state.row(row).new
            start, count = batch.plan.starts[at], batch.plan.counts[at]
            if new.embeds is None or start > new.embed_rows[-1]:
                continue
            low, high = (
                bisect_left(new.embed_rows, start),
                bisect_left(new.embed_rows, start + count),
            )
            positions = np.array(new.embed_rows[low:high], dtype=np.int64)
            places.append(positions + (int(batch.query_start[at]) - start))
            values.append(_rows(new.embeds)[low:high])
        if not any(len(one) for one in places):
            return
        context = batch.context
        context.embed_rows = torch.from_numpy(np.concatenate(places)).to(self._device)
        context.embeds = torch.from_numpy(np.concatenate(values)).to(self._device)


def _rows(tensor: TensorRef) -> NDArray[np.float32]:
    """A view of its numbers, float32."""
    return np.frombuffer(tensor.data, dtype="<f4").reshape(tensor.shape)
