"""Repetition, frequency and presence penalties.

The arithmetic is `ops.sample_edits.PENALIZE`.
"""

from __future__ import annotations

import numpy as np
import torch

from quire.ops.registry import Table
from quire.ops.sample_edits import PENALIZE
from quire.sampling.row import SampleRow


class Penalties:
    """Repetition looks at prompt and output, the other two at the output only."""

    def __init__(self, table: Table, *, vocab_size: int) -> None:
        self._penalize = table.bind(PENALIZE, "float32", V=vocab_size)

    def apply(self, logits: torch.Tensor, rows: list[SampleRow], places: list[int]) -> None:
        """In place, for the rows at `places` that have a penalty. logits [B, V]."""
        chosen = [at for at in places if has_penalty(rows[at])]
        if not chosen:
            return
        some = [rows[at] for at in chosen]
        self._penalize(
            logits,
            chosen,
            seen=[
                np.concatenate((row.prompt_ids, row.output_ids)).astype(np.int64) for row in some
            ],
            output=[row.output_ids.astype(np.int64) for row in some],
            repetition=[row.params.repetition_penalty for row in some],
            frequency=[row.params.frequency_penalty for row in some],
            presence=[row.params.presence_penalty for row in some],
        )


def has_penalty(row: SampleRow) -> bool:
    """Whether any of the three is on."""
    params = row.params
    return (
        params.repetition_penalty != 1.0
        or params.frequency_penalty != 0.0
        or params.presence_penalty != 0.0
    )
