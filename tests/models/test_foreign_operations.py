"""Operations of followed code: what a recorded step repeats."""

from __future__ import annotations

import torch

from quire.layers.context import ForwardContext
from quire.models.foreign.operations import Operations
from quire.models.foreign.program import Step
from quire.ops.arena import Arena
from quire.ops.registry import Table


def test_a_view_that_must_copy_copies_again_when_a_step_is_repeated() -> None:
    table = Table()
    ids = torch.zeros(3, dtype=torch.int64)
    ctx = ForwardContext(
        ids=ids,
        positions=ids.unsqueeze(0),
        plans=[],
        caches=[],
        group_of=[],
        arena=Arena(torch.device("cpu")),
    )
    step = Step(op="aten.view.default", args=[{"r": 0}, [1, {"t": [2, 0]}]], kwargs={}, outs=[1])
    run = Operations(table, torch.float32, set(), {}).run_of(step)
    memory = torch.arange(6.0).view(1, 2, 3)
    values = {0: memory.transpose(1, 2)}  # [1, T, 2], neighbours apart
    with table.record() as tape:
        run(values, 3, ctx, lambda number: torch.empty(0))
    assert torch.equal(values[1], torch.tensor([[0.0, 3, 1, 4, 2, 5]]))
    memory.mul_(10)
    tape.replay()
    assert torch.equal(values[1], torch.tensor([[0.0, 30, 10, 40, 20, 50]]))
