"""What is reported beside a token: log-probabilities or logits, with ranks.

The arithmetic is `ops.logprobs`'; the texts of tokens are the front's business.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from quire.ops.logprobs import TOP_LOGPROBS
from quire.ops.registry import Table
from quire.protocol.step import PositionLogprobs
from quire.sampling.row import SampleRow

MODES = ("raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits")


class Logprobs:
    """`mode` says at which stage values are taken and whether they are normalised; see MODES."""

    def __init__(self, table: Table, *, vocab_size: int, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"logprobs_mode is {mode!r}; it must be one of {list(MODES)}.")
        self._top = table.bind(TOP_LOGPROBS, "float32", V=vocab_size)
        self.is_raw = mode.startswith("raw")
        self._normalize = mode.endswith("logprobs")

    def collect(
        self,
        values: torch.Tensor,
        places: list[int],
        rows: list[SampleRow],
        chosen: list[int],
    ) -> list[PositionLogprobs]:
        """For each row, whose logits are the one of values [n, V] at its place; values stay."""
        found = self._top(
            values,
            chosen,
            counts=[_count(row) for row in rows],
            extra=[row.params.logprob_token_ids or () for row in rows],
            normalize=self._normalize,
            rows=places,
        )
        return [PositionLogprobs(*row) for row in found]

    def of_prompt(
        self, logits: torch.Tensor, next_ids: NDArray[np.integer], count: int
    ) -> list[PositionLogprobs]:
        """For each position, logits [n, V] and the token that follows it; always raw logprobs.

        A position whose logits hold a NaN, or have no finite best, reports NaN.
        """
        found = self._top(
            logits,
            [int(one) for one in next_ids],
            counts=[count] * len(next_ids),
            extra=[()] * len(next_ids),
            normalize=True,
        )
        return [PositionLogprobs(*row) for row in found]


def _count(row: SampleRow) -> int:
    """How many of the best are reported: none where exact ids are asked for."""
    return 0 if row.params.logprob_token_ids is not None else row.params.logprobs or 0
