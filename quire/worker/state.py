"""What the worker knows of every running row, kept from step to step in preallocated arrays.

Gathering it into a step's tensors is `worker.batch`; who owns a row is decided in `engine.scheduler`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quire.protocol.cache import NULL_BLOCK, CacheLayout
from quire.protocol.step import NewRow, StepPlan


@dataclass(slots=True)
class Row:
    """The part of a row that is not array work: its request and what it asks."""

    new: NewRow
    num_known: int


class WorkerState:
    """Rows 0 to max_num_seqs - 1.

    token_ids     [rows, max_model_len + 1] int32, all known tokens, the newest sampled one too.
    block_tables  by group [rows, max blocks] int32, NULL_BLOCK where nothing is.
    num_blocks    by group [rows] int32.
    encoder_lens  [rows] int32, tokens that the encoder read.
    rows          what else is known, None for a free row.
    """

    def __init__(self, *, layout: CacheLayout, max_num_seqs: int, max_model_len: int) -> None:
        # np.zeros leaves pages untouched until a row uses them.
        self.token_ids: NDArray[np.int32] = np.zeros(
            (max_num_seqs, max_model_len + 1), dtype=np.int32
        )
        self.block_tables: list[NDArray[np.int32]] = []
        self.num_blocks: list[NDArray[np.int32]] = []
        for group in layout.groups:
            length = group.max_tokens or max_model_len + 1
            width = -(-length // group.block_size) + 1
            self.block_tables.append(np.full((max_num_seqs, width), NULL_BLOCK, dtype=np.int32))
            self.num_blocks.append(np.zeros(max_num_seqs, dtype=np.int32))
        self.encoder_lens: NDArray[np.int32] = np.zeros(max_num_seqs, dtype=np.int32)
        self.rows: list[Row | None] = [None] * max_num_seqs

    def apply(self, plan: StepPlan) -> None:
        """Frees, adds and grows rows, in the order that the plan's declaration states."""
        for row in plan.freed_rows:
            self.rows[row] = None
            for num_blocks in self.num_blocks:
                num_blocks[row] = 0
        for new in plan.new_rows:
            self._add(new)
        for growth in plan.growth:
            for group, block_ids in enumerate(growth.block_ids):
                self._append(group, growth.row, block_ids)
        for row, start, count, samples in zip(
            plan.rows, plan.starts, plan.counts, plan.samples, strict=True
        ):
            if samples:
                known = self.rows[row]
                assert known is not None, f"step {plan.step} runs the free row {row}"
                known.num_known = start + count + 1

    def _add(self, new: NewRow) -> None:
        assert self.rows[new.row] is None, f"row {new.row} is taken"
        self.token_ids[new.row, : len(new.token_ids)] = new.token_ids
        for group, block_ids in enumerate(new.block_ids):
            self.num_blocks[group][new.row] = 0
            self._append(group, new.row, block_ids)
        self.encoder_lens[new.row] = 0 if new.encoder is None else len(new.encoder.token_ids)
        self.rows[new.row] = Row(new, len(new.token_ids))

    def _append(self, group: int, row: int, block_ids: list[int]) -> None:
        start = int(self.num_blocks[group][row])
        self.block_tables[group][row, start : start + len(block_ids)] = block_ids
        self.num_blocks[group][row] = start + len(block_ids)

    def row(self, index: int) -> Row:
        """A row in use."""
        known = self.rows[index]
        assert known is not None, f"row {index} is free"
        return known
