"""Joins what a program does to the heads of queries and keys, their norms and turns, to one step; no torch.

Only where both are parts of one product, side by side, and nobody sees them before they are turned.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from quire.models.foreign.program import Program, Step, inputs_of


@dataclass(frozen=True)
class _Chain:
    """How heads come from a product to their turn.

    source  the product's result. places  of the steps between, and of the turn. norm  (weight, eps) or None.
    sizes   (heads, numbers of each).
    """

    source: int
    places: tuple[int, ...]
    turn: Step
    norm: tuple[str, float] | None
    sizes: tuple[int, int]


def with_turned_heads(program: Program, readers: dict[int, int]) -> Program:
    """The same program with a step `qk_rope` for the two turns of each layer where that can be.

    readers  how many steps read each register.
    """
    makers = {out: place for place, step in enumerate(program.steps) for out in step.outs}
    chains: dict[int, _Chain] = {}
    for place, step in enumerate(program.steps):
        if step.op == "rope":
            chain = _chain(program, makers, readers, place)
            if chain is not None:
                chains[chain.source] = chain
    registers, steps = list(program.registers), list(program.steps)
    gone: set[int] = set()
    for product in program.steps:
        if product.op != "linears" or len(product.outs) < 2:
            continue
        q, k = (chains.get(out) for out in product.outs[:2])
        if q is None or k is None or not _are_alike(q, k):
            continue
        stack, outs = product.args[3], [q.turn.outs[0], k.turn.outs[0]]
        norms = None if q.norm is None or k.norm is None else [q.norm[0], k.norm[0]]
        steps[max(*q.places, *k.places)] = Step(
            op="qk_rope",
            args=[
                {"r": stack},
                *q.turn.args[1:],
                norms,
                q.norm[1] if q.norm else 0.0,
                [q.sizes[0], k.sizes[0], q.sizes[1]],
            ],
            kwargs={},
            outs=outs,
        )
        gone |= {*q.places, *k.places} - {max(*q.places, *k.places)}
        registers = [
            msgspec.structs.replace(one, base=stack) if one.base in outs else one
            for one in registers
        ]
    kept = [step for place, step in enumerate(steps) if place not in gone]
    head = program.head - sum(place < program.head for place in gone)
    return msgspec.structs.replace(program, registers=registers, steps=kept, head=head)


def _are_alike(q: _Chain, k: _Chain) -> bool:
    """Whether one step can do both: by the same table, both normed or none, heads of one size."""
    norms = (q.norm is None) == (k.norm is None) and (q.norm or k.norm or ("", 0))[1] == (
        k.norm or q.norm or ("", 0)
    )[1]
    return norms and q.turn.args[1:] == k.turn.args[1:] and q.sizes[1] == k.sizes[1]


def _chain(
    program: Program, makers: dict[int, int], readers: dict[int, int], place: int
) -> _Chain | None:
    """The way back from a turn to a product: a view as heads, one norm or none, axes that change places or not."""
    turn = program.steps[place]
    number, axis = turn.args[0]["r"], 1
    places, norm = [place], None
    while number in makers and readers[number] == 1:
        step = program.steps[makers[number]]
        shape = program.registers[number].shape
        if step.op == "aten.transpose.int" and step.args[1:] == [1, 2] and axis == 1:
            axis = 2
        elif step.op == "rms_norm" and norm is None and len(shape) == 4:
            if program.weights[step.args[1]].shape != (shape[3][1],):
                return None
            norm = (step.args[1], step.args[2])
        elif step.op in ("aten.view.default", "aten._unsafe_view.default"):
            source = inputs_of(step)[0]
            width = program.registers[source].shape[-1]
            (k, heads), (_, size) = shape[2:] if len(shape) == 4 else ((1, 0), (0, 0))
            is_heads = shape[:2] == ((0, 1), (1, 0)) and not k and width == (0, heads * size)
            is_product = len(program.registers[source].shape) == 3 and readers[source] == 1
            if not is_heads or not is_product or turn.args[3] != axis:
                return None
            places.append(makers[number])
            return _Chain(source, tuple(places), turn, norm, (heads, size))
        else:
            return None
        places.append(makers[number])
        number = inputs_of(step)[0]
    return None
