"""Temperature, then min-p, top-k and top-p, then the draw, for rows that are not greedy.

The arithmetic is `ops.sample`'s.
"""

from __future__ import annotations

import torch

from quire.ops.registry import Table
from quire.ops.sample import DIVIDE_ROWS, FILTER_ROWS, GUMBEL_DRAW
from quire.sampling.row import SampleRow


class Filters:
    """The bound operations of random sampling. `places` are rows with a temperature above 0."""

    def __init__(self, table: Table, *, vocab_size: int) -> None:
        self._divide = table.bind(DIVIDE_ROWS, "float32", V=vocab_size)
        self._filter = table.bind(FILTER_ROWS, "float32", V=vocab_size)
        self._draw = table.bind(GUMBEL_DRAW, "float32", V=vocab_size)

    def apply(self, logits: torch.Tensor, rows: list[SampleRow], places: list[int]) -> None:
        """Scales in place and sets what is filtered out to -inf. logits [B, V]."""
        self._divide(logits, places, [rows[at].params.temperature for at in places])
        cut = [at for at in places if has_filter(rows[at])]
        if cut:
            self._filter(
                logits,
                cut,
                min_p=[rows[at].params.min_p for at in cut],
                top_k=[rows[at].params.top_k for at in cut],
                top_p=[rows[at].params.top_p for at in cut],
            )

    def draw(self, logits: torch.Tensor, rows: list[SampleRow], places: list[int]) -> list[int]:
        """A token id for each place, by its seed, output position and index. logits as `apply` left them."""
        ids: list[int] = self._draw(
            logits,
            places,
            seeds=[rows[at].seed for at in places],
            positions=[rows[at].output_position for at in places],
            indices=[rows[at].index for at in places],
        )
        return ids


def has_filter(row: SampleRow) -> bool:
    """Whether min-p, top-k or top-p is on."""
    return row.params.min_p > 0.0 or row.params.top_k > 0 or row.params.top_p < 1.0
