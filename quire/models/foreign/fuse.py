"""Joins neighbouring steps of a program to operations that we have as one; no torch.

Products of one input become one with their weights stacked, a sum and its norm one step, an activation and the
product with what stands beside it another; heads are joined in `models.foreign.heads`. Rows keep their order of
additions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from quire.models.foreign.heads import with_turned_heads
from quire.models.foreign.program import Program, Register, Step, inputs_of

_STACKED = ("attention", "feed_forward")


def fused(program: Program) -> Program:
    """The same program in fewer steps."""
    program = _with_gates(_with_stacks(program))
    return _with_sums(with_turned_heads(program, readers_of(program.steps)))


def _with_stacks(program: Program) -> Program:
    """Products of one register, of weights that are stored alike, as one step of several results."""
    groups: dict[tuple[int, str, bool], list[int]] = {}
    shared = {step.args[1] for step in program.steps if step.op == "embedding"}
    uses = Counter(step.args[1] for step in program.steps if step.op == "linear")
    for place, step in enumerate(program.steps[: program.head]):
        # What several layers share stays alone: it is stored once, and each of them reads it so.
        if step.op != "linear" or step.args[1] in shared or uses[step.args[1]] > 1:
            continue
        group = program.weights[step.args[1]].group
        if group in _STACKED:
            key = step.args[0]["r"], group, step.args[2] is None
            groups.setdefault(key, []).append(place)
    registers, steps = list(program.registers), list(program.steps)
    rows = {place: places for places in groups.values() if len(places) > 1 for place in places[:1]}
    gone: set[int] = set()
    for first, places in rows.items():
        members = [program.steps[place] for place in places]
        stack = len(registers)
        shape = registers[members[0].outs[0]].shape
        width = sum(registers[one.outs[0]].shape[-1][1] for one in members)
        registers.append(
            Register(
                shape=(*shape[:-1], (0, width)),
                order=tuple(range(len(shape))),
                dtype="model",
                base=stack,
            )
        )
        outs = [one.outs[0] for one in members]
        registers = [
            msgspec.structs.replace(one, base=stack) if one.base in outs else one
            for one in registers
        ]
        steps[first] = Step(
            op="linears",
            args=[
                members[0].args[0],
                [one.args[1] for one in members],
                [one.args[2] for one in members],
                stack,
            ],
            kwargs={},
            outs=outs,
        )
        gone.update(places[1:])
    kept = [step for place, step in enumerate(steps) if place not in gone]
    head = program.head - len(gone)
    return msgspec.structs.replace(program, registers=registers, steps=kept, head=head)


def _with_gates(program: Program) -> Program:
    """act(gate) * up, where gate and up are the two results of one step."""
    made = {step.outs[0]: step for step in program.steps if step.op == "act"}
    pairs = {tuple(step.outs): step.args[3] for step in program.steps if step.op == "linears"}
    readers = readers_of(program.steps)
    steps: list[Step] = []
    gone: set[int] = set()
    for step in program.steps:
        gate = next((made[one] for one in inputs_of(step) if one in made), None)
        if step.op == "aten.mul.Tensor" and gate is not None and len(inputs_of(step)) == 2:
            other = [one for one in inputs_of(step) if one != gate.outs[0]]
            source = gate.args[0]["r"]
            stack = pairs.get((source, *other))
            alone = all(readers[one] == 1 for one in (gate.outs[0], source, *other))
            if stack is not None and alone:
                gone.add(gate.outs[0])
                args = [{"r": stack}, gate.args[1]]
                steps.append(Step(op="act_mul", args=args, kwargs={}, outs=step.outs))
                continue
        steps.append(step)
    kept = [step for step in steps if step.op != "act" or step.outs[0] not in gone]
    head = program.head - len(program.steps) + len(kept)
    return msgspec.structs.replace(program, steps=kept, head=head)


def _with_sums(program: Program) -> Program:
    """A sum of two alike and the norm of it that follows, with both results."""
    steps: list[Step] = []
    before_head = 0
    for place, step in enumerate(program.steps):
        last = steps[-1] if steps else None
        if (
            last is not None
            and step.op == "rms_norm"
            and last.op == "aten.add.Tensor"
            and not last.kwargs
            and step.args[0] == {"r": last.outs[0]}
            and len(set(inputs_of(last))) == 2
            and place != program.head
            and _are_rows([*inputs_of(last), last.outs[0], step.outs[0]], program.registers)
        ):
            outs = [last.outs[0], step.outs[0]]
            steps[-1] = Step(
                op="add_rms_norm", args=[*last.args, *step.args[1:]], kwargs={}, outs=outs
            )
        else:
            steps.append(step)
        if place < program.head:
            before_head = len(steps)
    return msgspec.structs.replace(program, steps=steps, head=before_head)


def _are_rows(numbers: list[int], registers: list[Register]) -> bool:
    """Whether registers are rows [1, T, C] of the model's numbers, all of one shape."""
    found = [registers[number] for number in numbers]
    return all(
        one.order == (0, 1, 2) and one.shape == found[0].shape and one.dtype == "model"
        for one in found
    )


def readers_of(steps: Iterable[Step]) -> dict[int, int]:
    """How many steps read each register."""
    counts: dict[int, int] = {}
    for step in steps:
        for number in {*inputs_of(step)}:
            counts[number] = counts.get(number, 0) + 1
        for number in step.outs:
            counts.setdefault(number, 0)
    return counts
