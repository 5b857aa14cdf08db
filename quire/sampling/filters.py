"""Temperature, then min-p, top-k and top-p, then the draw; greedy rows take the best entry.

The arithmetic is `ops.sample`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.ops.registry import Table
from quire.ops.sample import ARGMAX, DIVIDE_ROWS, FILTER_ROWS, SAMPLE_ROWS
from quire.protocol.params import SamplingParams
from quire.sampling.row import SampleRow


class Filters:
    """The bound operations of random sampling."""

    def __init__(self, table: Table, *, vocab_size: int) -> None:
        self._divide = table.bind(DIVIDE_ROWS, "float32", V=vocab_size)
        self._filter = table.bind(FILTER_ROWS, "float32", V=vocab_size)
        self._argmax = table.bind(ARGMAX, "float32", V=vocab_size)
        self._sample = table.bind(SAMPLE_ROWS, "float32", V=vocab_size)

    def apply(
        self,
        logits: torch.Tensor,
        rows: list[SampleRow],
        places: list[int],
        then: Callable[[torch.Tensor], None] | None = None,
    ) -> None:
        """Scales in place and sets what is filtered out to -inf. logits [B, V].

        places  rows with a temperature above 0.
        then    acts on all logits between scaling and filtering; rows not in `places` are put back.
        """
        if not places:
            return
        self._divide(logits, places, [rows[at].params.temperature for at in places])
        if then is not None:
            others = sorted(set(range(len(rows))).difference(places))
            kept = logits[others]
            then(logits)
            logits[others] = kept
        cut = [at for at in places if has_filter(rows[at])]
        if cut:
            self._filter(
                logits,
                cut,
                min_p=[rows[at].params.min_p for at in cut],
                top_k=[rows[at].params.top_k for at in cut],
                top_p=[rows[at].params.top_p for at in cut],
            )

    def choose(
        self, logits: torch.Tensor, rows: list[SampleRow], applied: list[int]
    ) -> tuple[list[int], list[float]]:
        """A token id for each row, drawn by its seed, output position and index; and its best entry.

        logits [B, V] are not modified; `apply` has acted on the rows `applied`.
        """
        found: tuple[list[int], list[float]]
        if not any(row.params.temperature for row in rows):
            found = self._argmax(logits)
            return found
        asked = [_asked(row.params) for row in rows]
        for at in applied:
            asked[at] = (1.0, 0.0, 0, 1.0)
        temperature, min_p, top_k, top_p = zip(*asked)
        found = self._sample(
            logits,
            range(len(rows)),
            temperature=temperature,
            min_p=min_p,
            top_k=top_k,
            top_p=top_p,
            seeds=[row.seed for row in rows],
            positions=[row.output_position for row in rows],
            indices=[row.index for row in rows],
        )
        return found


def _asked(params: SamplingParams) -> tuple[float, float, int, float]:
    return params.temperature, params.min_p, params.top_k, params.top_p


def has_filter(row: SampleRow) -> bool:
    """Whether min-p, top-k or top-p is on."""
    return row.params.min_p > 0.0 or row.params.top_k > 0 or row.params.top_p < 1.0
