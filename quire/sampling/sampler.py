"""From the logits of a step's rows to their token ids and log-probabilities, in one fixed order.

Raw logits, grammar mask, raw log-probabilities, allowed ids, bias and bans, the operator's processors,
penalties, temperature, min-p, top-k, top-p, the draw. The stages are the other files of this folder.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from quire.ops.registry import Table
from quire.ops.sample import ARGMAX
from quire.protocol.step import PositionLogprobs
from quire.sampling.constraints import Constraints
from quire.sampling.filters import Filters
from quire.sampling.logprobs import Logprobs
from quire.sampling.penalties import Penalties
from quire.sampling.processors import Processors
from quire.sampling.row import Sampled, SampleRow

__all__ = ["SampleRow", "Sampled", "Sampler"]


class Sampler:
    """Chooses tokens. What a row gets depends on that row alone, bit for bit.

    processors     logits processors of the operator's own, which see all rows together.
    logprobs_mode  raw_logprobs, raw_logits, processed_logprobs or processed_logits: what is
                   reported, before or after everything that changes the distribution.
    """

    def __init__(
        self,
        table: Table,
        *,
        vocab_size: int,
        logprobs_mode: str,
        processors: Processors | None = None,
    ) -> None:
        self._argmax = table.bind(ARGMAX, "float32", V=vocab_size)
        self._constraints = Constraints(table, vocab_size=vocab_size)
        self._penalties = Penalties(table, vocab_size=vocab_size)
        self._filters = Filters(table, vocab_size=vocab_size)
        self._logprobs = Logprobs(table, vocab_size=vocab_size, mode=logprobs_mode)
        self._processors = processors

    def sample(self, logits: torch.Tensor, rows: list[SampleRow]) -> list[Sampled]:
        """A token for each row. logits [B, V] float32, may be modified.

        A row with a NaN, or whose best entry is not finite before or after the stages, is
        `nonfinite` and samples nothing; single entries of -inf are legal.
        """
        reporting = [at for at, row in enumerate(rows) if row.params.wants_logprobs]
        processors = self._processors
        if processors is not None:
            processors.update(rows)
        edits = [at for at, row in enumerate(rows) if row.is_edited or processors is not None]
        edited = self._finite(logits, edits)
        raw: torch.Tensor | None = None
        copied: list[int] = []  # rows that report values from before the edits
        if edited:
            self._constraints.apply_masks(logits, rows, edited)
            if reporting and self._logprobs.is_raw:
                copied = sorted(set(reporting).intersection(edited))
                raw = logits[copied]
            self._constraints.apply(logits, rows, edited)
            if processors is not None:
                edited = self._process(processors, logits, rows, edited)
            self._penalties.apply(logits, rows, edited)
        shaped: list[int] = []
        if processors is not None and processors.has_late:
            random = [at for at, row in enumerate(rows) if row.params.temperature > 0.0]
            shaped = self._finite(logits, random)
            self._filters.apply(logits, rows, shaped, then=processors.apply_late)
        elif reporting and not self._logprobs.is_raw:
            random = [at for at in reporting if rows[at].params.temperature > 0.0]
            shaped = self._finite(logits, random)
            self._filters.apply(logits, rows, shaped)
        results = [
            Sampled(token_id, None, not math.isfinite(best))
            for token_id, best in zip(*self._filters.choose(logits, rows, shaped))
        ]
        if raw is not None:
            self._report(raw, rows, copied, results, places=range(len(copied)))
            reporting = sorted(set(reporting).difference(copied))
        self._report(logits, rows, reporting, results)
        return results

    def _process(
        self,
        processors: Processors,
        logits: torch.Tensor,
        rows: list[SampleRow],
        edited: list[int],
    ) -> list[int]:
        """Runs the early processors; returns those of `edited` that are still finite.

        A grammar wins over them, and a row that was not finite before stays so.
        """
        processors.apply_early(logits)
        for at in sorted(set(range(len(rows))).difference(edited)):
            logits[at].fill_(math.nan)
        self._constraints.apply_masks(logits, rows, edited)
        return self._finite(logits, edited)

    def prompt_logprobs(
        self, logits: torch.Tensor, next_ids: NDArray[np.integer], k: int
    ) -> list[PositionLogprobs]:
        """For each prompt position: the token that really follows, then the k best; k = -1 is all.

        logits [n, V] float32, not modified; values are raw log-probabilities in every mode.
        """
        return self._logprobs.of_prompt(logits, next_ids, k)

    def _finite(self, logits: torch.Tensor, places: list[int]) -> list[int]:
        """Those of `places` whose best entry is finite: stages leave the others alone."""
        if not places:
            return places
        return [
            at for at, best in zip(places, self._argmax(logits, places)[1]) if math.isfinite(best)
        ]

    def _report(
        self,
        values: torch.Tensor,
        rows: list[SampleRow],
        reporting: list[int],
        results: list[Sampled],
        *,
        places: range | None = None,
    ) -> None:
        """Fills in log-probabilities. values: those of `reporting`, in the rows `places` or their own."""
        good = [
            (at, place)
            for at, place in zip(reporting, reporting if places is None else places)
            if not results[at].nonfinite
        ]
        if not good:
            return
        found = self._logprobs.collect(
            values,
            [place for _, place in good],
            [rows[at] for at, _ in good],
            [results[at].token_id for at, _ in good],
        )
        for (at, _), position in zip(good, found):
            results[at].logprobs = position
