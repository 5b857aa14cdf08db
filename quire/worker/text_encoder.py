"""Has the encoder read the texts of a step, for the layers that look at them from then on.

What it computes is `models.encoder`; which rows of a step have a text to be read is decided in `engine.scheduler`.
"""

from __future__ import annotations

import numpy as np
import torch

from quire.layers.context import ForwardContext
from quire.models.decoder import Decoder
from quire.ops.arena import Arena
from quire.ops.attention import AttentionStep
from quire.protocol.step import StepPlan
from quire.worker.batch import Batch
from quire.worker.memory import CacheMemory
from quire.worker.state import WorkerState


class TextEncoder:
    """Texts one behind the other without padding; each row's keys and values go to its own blocks."""

    def __init__(
        self,
        *,
        decoder: Decoder,
        state: WorkerState,
        memory: CacheMemory,
        arena: Arena,
        device: torch.device,
    ) -> None:
        self._decoder = decoder
        self._state = state
        self._memory = memory
        self._arena = arena
        self._device = device
        kinds = [group.kind for group in memory.layout.groups]
        self._group, self._own_plan = kinds.index("cross"), len(kinds)

    def embed(self, batch: Batch) -> None:
        return None

    def encode(self, plan: StepPlan) -> None:
        """Reads the texts of plan.encodes, if there are any. The arena is free again afterwards."""
        if not plan.encodes:
            return
        rows = list(plan.encodes)
        texts = [self._tokens(row) for row in rows]
        lens = np.array([len(text) for text in texts], dtype=np.int32)
        starts = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum(lens, out=starts[1:])
        positions = np.concatenate([np.arange(length) for length in lens])
        size = self._memory.layout.groups[self._group].block_size
        table = self._state.block_tables[self._group]
        blocks = table[np.repeat(rows, lens), positions // size].astype(np.int64)
        step = AttentionStep(
            query_start=starts,
            seq_lens=lens,
            block_table=table[rows, : -(-int(lens.max()) // size)],
            slot_mapping=blocks * size + positions % size,
        )
        for which in (self._group, self._own_plan):
            self._memory.fill(which, step)
        self._arena.reset()
        context = ForwardContext(
            ids=torch.from_numpy(np.concatenate(texts)).to(self._device),
            positions=torch.from_numpy(positions)[None].to(self._device),
            plans=self._memory.plans,
            caches=self._memory.caches,
            group_of=self._memory.group_of,
            arena=self._arena,
        )
        self._decoder.encode(context)

    def _tokens(self, row: int) -> np.ndarray:
        given = self._state.row(row).new.encoder
        assert given is not None, f"row {row} has nothing for an encoder"
        return np.array(given.token_ids, dtype=np.int64)
