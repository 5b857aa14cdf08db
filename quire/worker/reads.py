"""Which tokens of a step are read behind the last layer where they are few, and the step as that layer has it.

What results are made of them is `worker.output`'s and `worker.pooling`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from quire.layers.context import ForwardContext, ReadRows
from quire.ops.attention import AttentionStep
from quire.protocol.step import StepPlan
from quire.worker.memory import CacheMemory

_LEAST_TOKENS = 32
"""In a smaller step reading a weight takes most of a product's time, however few rows there are."""


class Reads:
    """Made for decoders of `models.last_layer.can_end_early`.

    num_read  for each row of a plan, how many of its last tokens are read.
    """

    def __init__(
        self, memory: CacheMemory, num_read: Callable[[StepPlan], NDArray[np.int64]]
    ) -> None:
        self._num_read = num_read
        group = memory.group_of[-1]
        assert group is not None, "the last layer caches nothing"
        self.group = group
        self._plan, self._fill = memory.new_plan(group)

    def few(self, plan: StepPlan, context: ForwardContext, step: AttentionStep) -> ReadRows | None:
        """The tokens that are read; None if the step is small, or more than half of it are.

        step  what was told of `group`.
        """
        if context.num_tokens < _LEAST_TOKENS or context.num_tokens == len(plan.rows):
            return None
        counts = self._num_read(plan)
        total = int(counts.sum())
        if 2 * total > context.num_tokens:
            return None
        is_read = counts > 0
        counts = counts[is_read]
        starts = np.zeros(len(counts) + 1, dtype=np.int32)
        np.cumsum(counts, out=starts[1:])
        rows = np.arange(total) + np.repeat(step.query_start[1:][is_read] - starts[1:], counts)
        if total:
            own = AttentionStep(
                query_start=starts,
                seq_lens=step.seq_lens[is_read],
                block_table=step.block_table[is_read],
                slot_mapping=step.slot_mapping[rows],
            )
            self._fill(own)
        at = torch.from_numpy(rows).to(context.ids.device)
        plans = list(context.plans)
        plans[self.group] = self._plan
        ids, positions = context.ids[at], context.positions[:, at]
        return ReadRows(
            rows=at, context=replace(context, ids=ids, positions=positions, plans=plans)
        )
