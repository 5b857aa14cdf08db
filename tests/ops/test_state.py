"""Plans and views of recurrent states: where a step is cut, and which numbers a state is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quire.ops.state import NO_BLOCK, Piece, StatePlan, StateStep, StateView


def plan_of(
    interval: int, counts: list[int], seq_lens: list[int], table: list[list[int]]
) -> StatePlan:
    plan = StatePlan(interval)
    step = StateStep(
        query_start=np.cumsum([0, *counts]).astype(np.int32),
        seq_lens=np.array(seq_lens, dtype=np.int32),
        block_table=np.array(table, dtype=np.int32),
    )
    plan.fill(step)
    return plan


def test_a_step_is_cut_where_intervals_begin() -> None:
    plan = plan_of(8, [18, 1, 1], [18, 20, 9], [[4, 5, 6], [-1, -1, 7], [1, 2, -1]])
    assert plan.pieces() == [
        Piece(0, 0, 8, NO_BLOCK, 4),
        Piece(0, 8, 16, 4, 5),
        Piece(0, 16, 18, 5, 6),
        Piece(1, 18, 19, 7, 7),
        Piece(2, 19, 20, 1, 2),
    ]


def test_a_plan_keeps_its_record_in_place() -> None:
    plan = plan_of(8, [1], [1], [[0]])
    address = plan.address
    plan.fill(
        StateStep(
            query_start=np.array([0, 2], dtype=np.int32),
            seq_lens=np.array([9], dtype=np.int32),
            block_table=np.array([[1, 2]], dtype=np.int32),
        )
    )
    assert plan.address == address and plan.record[3:].tolist() == [2, 1, 8]
    with pytest.raises(ValueError, match="before it was filled"):
        StatePlan(8).pieces()


def test_states_lie_in_their_blocks_and_nowhere_else() -> None:
    buffer = torch.zeros((2, 512), dtype=torch.uint8)
    place = {"blocks_per_slab": 2, "block_bytes": 192, "offset": 64}
    view = StateView.inside(buffer, (2, 5), **place)
    view.at(3).copy_(torch.arange(10.0).view(2, 5))
    flat = buffer.view(torch.float32)
    assert flat[1, 64:74].tolist() == list(range(10)) and int(flat.count_nonzero()) == 9
    assert view.start(Piece(0, 0, 1, 3, 0)).tolist() == view.at(3).tolist()
    assert not view.start(Piece(0, 0, 1, NO_BLOCK, 3)).any()
    with pytest.raises(ValueError, match="does not fit"):
        StateView.inside(buffer, (2, 17), **place)
