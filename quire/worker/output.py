"""From hidden states to the rows of a result: sampled tokens, log-probabilities, errors.

The choice itself is `sampling.sampler`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from quire.models.decoder import AnyDecoder
from quire.ops.elementwise import TAKE_ROWS
from quire.ops.registry import Table
from quire.protocol.params import SamplingParams
from quire.protocol.step import NewRow, PositionLogprobs, RowResult, StepPlan
from quire.sampling.processors import Processors
from quire.sampling.sampler import Sampled, Sampler, SampleRow
from quire.worker.batch import Batch
from quire.worker.state import WorkerState

Masks = Callable[[], NDArray[np.uint32] | None]
"""Waits for the grammar bitmasks of the step's sampling rows, [rows that need one, ceil(V / 32)]."""

_PROMPT_SLICE = 64  # prompt positions whose logits live at once: 64 x 150k float32 is 38 MiB


class Output:
    """Collects the results of generating rows and writes sampled tokens back to the state."""

    def __init__(
        self,
        *,
        state: WorkerState,
        decoder: AnyDecoder,
        table: Table,
        logprobs_mode: str,
        dtype: str,
        processors: Processors | None = None,
    ) -> None:
        self._state = state
        self._decoder = decoder
        self._sampler = Sampler(
            table,
            vocab_size=decoder.spec.vocab_size,
            logprobs_mode=logprobs_mode,
            processors=processors,
        )
        self._take = table.bind(TAKE_ROWS, dtype, C=decoder.spec.hidden_size)
        self._known: dict[int, tuple[NewRow, SampleRow]] = {}

    def num_read(self, plan: StepPlan) -> NDArray[np.int64]:
        """For each row of a plan, already applied to the state, how many of its last tokens `collect` reads."""
        found = np.array(plan.samples, dtype=np.int64)
        for place, row in enumerate(plan.rows):
            new = self._state.row(row).new
            if _wants_prompt_logprobs(new) and plan.starts[place] < new.num_prompt_tokens - 1:
                found[place] = plan.counts[place]
        return found

    def collect(self, batch: Batch, hidden: torch.Tensor, masks: Masks) -> list[RowResult]:
        """A RowResult for each row of the plan, in its order. hidden [T, C]; no more is read than `num_read` says."""
        prompt_logprobs = {
            position: self._prompt_logprobs(batch, hidden, position)
            for position, row in enumerate(batch.plan.rows)
            if _wants_prompt_logprobs(self._state.row(row).new)
        }
        sampled = self._sample(batch, hidden, masks)
        return [
            _result(row, sampled.get(position), prompt_logprobs.get(position))
            for position, row in enumerate(batch.plan.rows)
        ]

    def _sample(self, batch: Batch, hidden: torch.Tensor, masks: Masks) -> dict[int, Sampled]:
        """By place in the plan, for the rows that sample; the tokens are known to the state from here on."""
        places = [place for place, samples in enumerate(batch.plan.samples) if samples]
        if not places:
            return {}
        last_rows = batch.query_start[1:][places] - 1
        logits = self._logits(batch, hidden, last_rows)
        ends = (batch.starts + batch.counts)[places]
        rows = [
            self._sample_row(batch.plan.rows[place], int(end))
            for place, end in zip(places, ends, strict=True)
        ]
        needing = [
            row
            for row, place in zip(rows, places, strict=True)
            if self._state.row(batch.plan.rows[place]).new.needs_mask
        ]
        if needing:
            bits = masks()
            assert bits is not None and len(bits) == len(needing), "a mask is missing"
            for row, mask in zip(needing, bits, strict=True):
                row.mask = mask
        chosen = self._sampler.sample(logits, rows)
        self._state.token_ids[batch.rows[places], ends] = [choice.token_id for choice in chosen]
        return dict(zip(places, chosen, strict=True))

    def _sample_row(self, index: int, end: int) -> SampleRow:
        """What the sampler must know of a row; kept while the row serves one sequence."""
        new = self._state.row(index).new
        ids = self._state.token_ids[index]
        start = new.num_prompt_tokens
        known = self._known.get(index)
        if known is not None and known[0] is new:
            row = known[1]
            row.output_position, row.output_ids, row.mask = end - start, ids[start:end], None
            return row
        assert isinstance(new.params, SamplingParams)
        row = SampleRow(
            params=new.params,
            seed=new.seed,
            index=new.index,
            output_position=end - start,
            prompt_ids=ids[:start]
            if new.embeds is None
            else np.delete(ids[:start], new.embed_rows),
            has_embeds=new.embeds is not None,
            output_ids=ids[start:end],
            eos_token_ids=new.eos_token_ids,
        )
        self._known[index] = new, row
        return row

    def _prompt_logprobs(
        self, batch: Batch, hidden: torch.Tensor, place: int
    ) -> list[PositionLogprobs]:
        """For the prompt tokens that this chunk predicts, in slices of positions."""
        index = batch.plan.rows[place]
        new = self._state.row(index).new
        assert isinstance(new.params, SamplingParams) and new.params.prompt_logprobs is not None
        start, count = batch.plan.starts[place], batch.plan.counts[place]
        stop = min(start + count, new.num_prompt_tokens - 1)
        first = int(batch.query_start[place]) - start
        found: list[PositionLogprobs] = []
        for low in range(start, stop, _PROMPT_SLICE):
            high = min(low + _PROMPT_SLICE, stop)
            mark = batch.context.arena.mark()
            logits = self._logits(batch, hidden, np.arange(first + low, first + high))
            next_ids = self._state.token_ids[index, low + 1 : high + 1]
            found += self._sampler.prompt_logprobs(logits, next_ids, new.params.prompt_logprobs)
            batch.context.arena.release(mark)
        return found

    def _logits(self, batch: Batch, hidden: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        """[len(rows), V] float32."""
        index = torch.from_numpy(np.ascontiguousarray(rows)).to(hidden.device)
        taken = self._take(
            hidden, index, out=batch.context.arena.take((len(rows), hidden.shape[1]), hidden.dtype)
        )
        return self._decoder.logits(taken, batch.context)


def _result(
    row: int, choice: Sampled | None, prompt_logprobs: list[PositionLogprobs] | None
) -> RowResult:
    if choice is None:
        return RowResult(row=row, prompt_logprobs=prompt_logprobs)
    if choice.nonfinite:
        return RowResult(row=row, prompt_logprobs=prompt_logprobs, nonfinite=True)
    return RowResult(
        row=row,
        token_ids=[choice.token_id],
        logprobs=None if choice.logprobs is None else [choice.logprobs],
        prompt_logprobs=prompt_logprobs,
    )


def _wants_prompt_logprobs(new: NewRow) -> bool:
    """The first sequence of a request speaks for all of them."""
    return (
        isinstance(new.params, SamplingParams)
        and new.params.prompt_logprobs is not None
        and new.index == 0
    )
