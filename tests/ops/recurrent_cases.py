"""Sequences over blocks of states: the steps of a schedule, and what an operation makes of them.

An operation on states is called as in a worker: several sequences a step, each cut into chunks somewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from quire.ops.state import StatePlan, StateStep, StateView


def in_order(chunks: Sequence[int]) -> list[list[tuple[int, int, int]]]:
    """The steps of one sequence, number 0, cut into chunks of these lengths."""
    ends = np.cumsum(chunks).tolist()
    return [[(0, end - size, end)] for end, size in zip(ends, chunks)]


def together(lengths: Sequence[int], chunk: int) -> list[list[tuple[int, int, int]]]:
    """The steps of several sequences that run side by side, `chunk` tokens of each a step."""
    steps = []
    for start in range(0, max(lengths), chunk):
        steps.append(
            [
                (number, start, min(start + chunk, length))
                for number, length in enumerate(lengths)
                if start < length
            ]
        )
    return steps


class Schedule:
    """Carries out steps of (sequence, first token, last token) with blocks of `interval` tokens.

    Each sequence has blocks of its own, in a shuffled order.
    """

    def __init__(self, lengths: Sequence[int], interval: int) -> None:
        self.lengths = list(lengths)
        self.plan = StatePlan(interval)
        per_sequence = -(-max(lengths) // interval)
        self.num_blocks = per_sequence * len(lengths)
        shuffled = np.random.default_rng(0).permutation(self.num_blocks).astype(np.int32)
        self.tables = shuffled.reshape(len(lengths), per_sequence)

    def views(self, *shapes: tuple[int, ...]) -> list[StateView]:
        """States of these shapes in every block, over memory of their own."""
        return [StateView.of(self.num_blocks, shape) for shape in shapes]

    def run(
        self,
        steps: list[list[tuple[int, int, int]]],
        inputs: Sequence[Sequence[torch.Tensor | None]],
        out_shape: tuple[int, ...],
        call: Callable[..., object],
    ) -> list[torch.Tensor]:
        """The results of each sequence; inputs[s] are its tensors [T, ...].

        call  (tensors of the packed tokens, plan, out).
        """
        dtype = next(one for one in inputs[0] if one is not None).dtype
        found = [torch.full((n, *out_shape), float("nan"), dtype=dtype) for n in self.lengths]
        for step in steps:
            counts = [end - start for _, start, end in step]
            self.plan.fill(
                StateStep(
                    query_start=np.cumsum([0, *counts]).astype(np.int32),
                    seq_lens=np.array([end for _, _, end in step], dtype=np.int32),
                    block_table=np.ascontiguousarray(self.tables[[s for s, _, _ in step]]),
                )
            )
            packed = [
                None if inputs[0][i] is None else torch.cat([inputs[s][i][a:b] for s, a, b in step])  # type: ignore[index]
                for i in range(len(inputs[0]))
            ]
            out = torch.full((sum(counts), *out_shape), float("nan"), dtype=dtype)
            call(packed, self.plan, out)
            for (s, a, b), rows in zip(step, out.split(counts)):
                found[s][a:b] = rows
        return found
