"""Gathers the rows of a plan into one packed batch; array work only.

What rows are is `worker.state`; what attention makes of the batch is the provider's plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quire.layers.context import ForwardContext
from quire.ops.arena import Arena
from quire.ops.attention import AttentionStep
from quire.ops.state import StateStep
from quire.protocol.step import StepPlan
from quire.worker.memory import CacheMemory
from quire.worker.reads import Reads
from quire.worker.state import WorkerState


@dataclass(kw_only=True)
class Batch:
    """One step's packed tokens.

    rows, starts, counts  [B] as in the plan.
    query_start           [B + 1] first packed token of each row.
    context               what the decoder gets.
    """

    plan: StepPlan
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    query_start: NDArray[np.int64]
    context: ForwardContext


class BatchBuilder:
    """Owns the step's input buffers, whose addresses do not move.

    has_types  whether the model reads token types.
    reads      finds the tokens for which alone the last layer must run; None where it runs for all.
    Sizes grow to the largest step seen, at most by a doubling at a time.
    """

    def __init__(
        self,
        *,
        state: WorkerState,
        memory: CacheMemory,
        arena: Arena,
        device: torch.device,
        has_types: bool = False,
        reads: Reads | None = None,
    ) -> None:
        self._state = state
        self._memory = memory
        self._arena = arena
        self._device = device
        self._has_types = has_types
        self._reads = reads
        self._reserve(256)

    def _reserve(self, num_tokens: int) -> None:
        self._capacity = num_tokens
        self._ids = torch.zeros(num_tokens, dtype=torch.int64, device=self._device)
        self._positions = torch.zeros((1, num_tokens), dtype=torch.int64, device=self._device)
        self._types = torch.zeros(num_tokens, dtype=torch.int64, device=self._device)

    def build(self, plan: StepPlan) -> Batch:
        """The batch of a plan already applied to the state."""
        rows = np.array(plan.rows, dtype=np.int64)
        starts = np.array(plan.starts, dtype=np.int64)
        counts = np.array(plan.counts, dtype=np.int64)
        query_start = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(counts, out=query_start[1:])
        num_tokens = int(query_start[-1])
        if num_tokens > self._capacity:
            self._reserve(max(num_tokens, 2 * self._capacity))
        row_of = np.repeat(rows, counts)
        positions = np.arange(num_tokens) - np.repeat(query_start[:-1] - starts, counts)
        ids = self._state.token_ids[row_of, positions].astype(np.int64)
        self._ids[:num_tokens].copy_(torch.from_numpy(ids))
        self._positions[0, :num_tokens].copy_(torch.from_numpy(positions))
        if self._has_types:
            self._fill_types(rows, query_start, positions)
        steps = self._fill_plans(rows, starts + counts, query_start, row_of, positions)
        self._arena.reset()
        context = ForwardContext(
            ids=self._ids[:num_tokens],
            positions=self._positions[:, :num_tokens],
            types=self._types[:num_tokens],
            plans=self._memory.plans,
            caches=self._memory.caches,
            group_of=self._memory.group_of,
            arena=self._arena,
        )
        if self._reads is not None:
            context.read = self._reads.few(plan, context, steps[self._reads.group])
        return Batch(
            plan=plan,
            rows=rows,
            starts=starts,
            counts=counts,
            query_start=query_start,
            context=context,
        )

    def _fill_types(
        self,
        rows: NDArray[np.int64],
        query_start: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> None:
        """Types of all tokens: 1 from where a row's second text begins. Most steps have none."""
        pairs = [
            (place, new.type_from)
            for place, row in enumerate(rows.tolist())
            if (new := self._state.row(row).new).type_from is not None
        ]
        types = self._types[: len(positions)].zero_()
        for place, first in pairs:
            begin, end = query_start[place], query_start[place + 1]
            types[begin:end] = torch.from_numpy((positions[begin:end] >= first).astype(np.int64))

    def _fill_plans(
        self,
        rows: NDArray[np.int64],
        seq_lens: NDArray[np.int64],
        query_start: NDArray[np.int64],
        row_of: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> list[Any]:
        """What each group's plan was filled with."""
        steps: list[Any] = []
        longest = int(seq_lens.max(initial=0))
        for index, group in enumerate(self._memory.layout.groups):
            table = self._state.block_tables[index]
            size = group.block_size
            if group.kind == "recurrent":
                states = StateStep(
                    query_start=query_start.astype(np.int32),
                    seq_lens=seq_lens.astype(np.int32),
                    block_table=table[rows, : -(-longest // size)],
                )
                steps.append(states)
                continue
            if group.kind == "cross":
                read = self._state.encoder_lens[rows]
                looks = AttentionStep(
                    query_start=query_start.astype(np.int32),
                    seq_lens=read,
                    block_table=table[rows, : -(-int(read.max(initial=0)) // size)],
                    slot_mapping=np.zeros(len(positions), dtype=np.int64),  # nothing is written
                )
                steps.append(looks)
                continue
            slots = table[row_of, positions // size].astype(np.int64) * size + positions % size
            step = AttentionStep(
                query_start=query_start.astype(np.int32),
                seq_lens=seq_lens.astype(np.int32),
                block_table=table[rows, : -(-longest // size)],
                slot_mapping=slots,
            )
            steps.append(step)
        for index, filled in enumerate(steps):
            self._memory.fill(index, filled)
        return steps
