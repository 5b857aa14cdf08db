"""From the logits of a step's rows to their token ids and log-probabilities, in one fixed order.

Raw logits, grammar mask, raw log-probabilities, allowed ids, bias and bans, penalties, temperature,
min-p, top-k, top-p, the draw. The stages are the other files of this folder.
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
from quire.sampling.row import Sampled, SampleRow

__all__ = ["SampleRow", "Sampled", "Sampler"]


class Sampler:
    """Chooses tokens. What a row gets depends on that row alone, bit for bit.

    logprobs_mode  raw_logprobs, raw_logits, processed_logprobs or processed_logits: what is
                   reported, before or after everything that changes the distribution.
    """

    def __init__(self, table: Table, *, vocab_size: int, logprobs_mode: str) -> None:
        self._argmax = table.bind(ARGMAX, "float32", V=vocab_size)
        self._constraints = Constraints(table, vocab_size=vocab_size)
        self._penalties = Penalties(table, vocab_size=vocab_size)
        self._filters = Filters(table, vocab_size=vocab_size)
        self._logprobs = Logprobs(table, vocab_size=vocab_size, mode=logprobs_mode)

    def sample(self, logits: torch.Tensor, rows: list[SampleRow]) -> list[Sampled]:
        """A token for each row. logits [B, V] float32, may be modified.

        A row with a NaN, or whose best entry is not finite before or after the stages, is
        `nonfinite` and samples nothing; single entries of -inf are legal.
        """
        ids, best = self._argmax(logits)
        results = [
            Sampled(token_id, None, False) if math.isfinite(value) else Sampled(0, None, True)
            for token_id, value in zip(ids, best)
        ]
        busy = [at for at, row in enumerate(rows) if not results[at].nonfinite and not row.is_plain]
        if busy:
            self._sample_busy(logits, rows, busy, results)
        return results

    def prompt_logprobs(
        self, logits: torch.Tensor, next_ids: NDArray[np.integer], k: int
    ) -> list[PositionLogprobs]:
        """For each prompt position: the token that really follows, then the k best; k = -1 is all.

        logits [n, V] float32, not modified; values are raw log-probabilities in every mode.
        """
        return self._logprobs.of_prompt(logits, next_ids, k)

    def _sample_busy(
        self, logits: torch.Tensor, rows: list[SampleRow], busy: list[int], results: list[Sampled]
    ) -> None:
        """Fills in `results` for the rows at `busy`, which need more than one argmax."""
        self._constraints.apply_masks(logits, rows, busy)
        reporting = [at for at in busy if rows[at].params.wants_logprobs]
        values = logits[reporting] if reporting and self._logprobs.is_raw else None  # a copy
        self._constraints.apply(logits, rows, busy)
        self._penalties.apply(logits, rows, busy)
        random = [at for at in busy if rows[at].params.temperature > 0.0]
        if random:
            self._filters.apply(logits, rows, random)
        for at, token_id, best in zip(busy, *self._argmax(logits, busy)):
            results[at] = Sampled(token_id, None, not math.isfinite(best))
        random = [at for at in random if not results[at].nonfinite]
        if random:
            for at, token_id in zip(random, self._filters.draw(logits, rows, random)):
                results[at].token_id = token_id
        if reporting:
            self._report(logits if values is None else values, rows, reporting, results)

    def _report(
        self,
        values: torch.Tensor,
        rows: list[SampleRow],
        reporting: list[int],
        results: list[Sampled],
    ) -> None:
        """values: the rows at `reporting` [n, V] if raw, else all logits as the stages left them."""
        good = [(place, at) for place, at in enumerate(reporting) if not results[at].nonfinite]
        if not good:
            return
        lines = [place if self._logprobs.is_raw else at for place, at in good]
        found = self._logprobs.collect(
            values[lines] if len(lines) < values.shape[0] else values,
            [rows[at] for _, at in good],
            [results[at].token_id for _, at in good],
        )
        for (_, at), position in zip(good, found):
            results[at].logprobs = position
