"""Where the registers of a program lie: few pieces of memory that take turns; no torch.

A register's piece is free once its last reader has run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from quire.models.foreign.fuse import fused
from quire.models.foreign.program import Program, Step, inputs_of
from quire.models.foreign.rows import VIEWS, short

_SIZING_TOKENS = 64
"""For so many tokens pieces of memory are compared."""


@dataclass(frozen=True)
class Rooms:
    """Pieces of memory of a run of steps.

    slots     registers that take turns in each piece.
    slot_of   by register that has memory of its own.
    in_place  turned heads and sums that lie where their input lay, with the register of that.
    """

    slots: list[list[int]] = field(default_factory=list)
    slot_of: dict[int, int] = field(default_factory=dict)
    in_place: dict[int, int] = field(default_factory=dict)

    def num_bytes(self, program: Program, num_tokens: int, dtype_bytes: int) -> list[int]:
        """Bytes of each piece in a step."""
        return [
            max(program.registers[number].num_bytes(num_tokens, dtype_bytes) for number in slot)
            for slot in self.slots
        ]


@dataclass(frozen=True)
class Layout:
    """What of a program runs when.

    positional  steps that follow from positions and parameters: carried out at load, for every position.
    edges       registers of those that others read: rows of a table in each step.
    body, head  steps before and from the product that makes logits.
    program     the same with joined steps, whose registers these are.
    """

    program: Program
    positional: list[Step]
    edges: list[int]
    body: list[Step]
    head: list[Step]
    body_rooms: Rooms
    head_rooms: Rooms


@lru_cache(maxsize=8)
def layout_of(program: Program, *, joined: bool = True) -> Layout:
    """Parts of a program with their memory. joined: whether products of one input are stacked."""
    regions = [register.base for register in program.registers]
    program = fused(program) if joined else program
    fixed = settled(program.steps, program.constants)
    positional = [step for step in program.steps if set(step.outs) <= fixed]
    steps = [
        (place, step) for place, step in enumerate(program.steps) if not set(step.outs) <= fixed
    ]
    edges = sorted(
        {
            number
            for _, step in steps
            for number in (inputs_of(step)[:1] if is_turn(step) else inputs_of(step))
            if number in fixed and number not in program.constants and number != 1
        }
    )
    body = [step for place, step in steps if place < program.head]
    head = [step for place, step in steps if place >= program.head]
    hidden = program.registers[program.hidden].base
    return Layout(
        program=program,
        positional=positional,
        edges=edges,
        body=body,
        head=head,
        body_rooms=_rooms(program, body, edges, regions, keep={hidden}),
        head_rooms=_rooms(
            program, head, [], regions, keep={program.registers[program.logits].base}
        ),
    )


def settled(steps: Iterable[Step], constants: Iterable[int]) -> set[int]:
    """The registers that torch makes of positions, parameters and constants alone."""
    found = {1, *constants}
    for step in steps:
        if step.op.startswith("aten.") and set(inputs_of(step)) <= found:
            found.update(step.outs)
    return found


def is_turn(step: Step) -> bool:
    """Whether a step turns heads, by a table of two registers that nobody needs in a step."""
    return step.op in ("rope", "qk_rope")


def is_view(step: Step) -> bool:
    """Whether a step of torch only looks at memory in another way."""
    return short(step) in VIEWS


def _rooms(
    program: Program, steps: list[Step], edges: list[int], regions: list[int], *, keep: set[int]
) -> Rooms:
    """Memory for what steps make, and for rows of tables.

    regions  by register: the part of its memory that is its own, before steps were joined.
    keep     registers that have memory elsewhere.
    """
    return _Rooming(program, steps, edges, regions, keep).rooms()


class _Rooming:
    """Walks the steps once, giving pieces of memory and taking them back."""

    def __init__(
        self,
        program: Program,
        steps: list[Step],
        edges: list[int],
        regions: list[int],
        keep: set[int],
    ) -> None:
        self._program = program
        self._steps = steps
        self._edges = edges
        self._keep = keep
        self._bases = [register.base for register in program.registers]
        self._regions = regions + list(range(len(regions), len(self._bases)))
        self._last: dict[int, int] = {}
        self._last_of_region: dict[int, int] = {}
        for place, step in enumerate(steps):
            for number in (*inputs_of(step), *step.outs):
                self._last[self._bases[number]] = place
                self._last_of_region[self._regions[number]] = place
        self._rooms = Rooms()
        self._free: list[int] = []
        self._merged: dict[int, int] = {}  # of what is made in place, the register that was there

    def rooms(self) -> Rooms:
        """The pieces."""
        for number in self._edges:
            self._take(number)
        for place, step in enumerate(self._steps):
            for base in dict.fromkeys(self._bases[out] for out in step.outs):
                if self._root(base) not in self._rooms.slot_of and base not in self._keep:
                    self._place(base, place, step)
            used = {self._root(self._bases[one]) for one in (*inputs_of(step), *step.outs)}
            for number in used:
                done = self._last.get(number, place) <= place and number not in self._edges
                if done and number in self._rooms.slot_of:
                    self._free.append(self._rooms.slot_of[number])
        for number in self._merged:
            self._rooms.slot_of[number] = self._rooms.slot_of[self._root(number)]
        return self._rooms

    def _place(self, base: int, place: int, step: Step) -> None:
        """Memory for what a step makes: for turned heads and sums where an input lay, if nobody reads it later."""
        count = {"rope": 1, "add_rms_norm": 2}.get(step.op, 0) if base == step.outs[0] else 0
        for number in inputs_of(step)[:count]:
            source = self._bases[number]
            is_last = self._last_of_region[self._regions[number]] == place
            if is_last and self._root(source) in self._rooms.slot_of:
                self._merged[base] = source
                self._rooms.in_place[base] = number
                holder = self._root(base)
                self._last[holder] = max(self._last[holder], self._last[base])
                return
        self._take(base)

    def _root(self, number: int) -> int:
        while number in self._merged:
            number = self._merged[number]
        return number

    def _size(self, number: int) -> int:
        return self._program.registers[number].num_bytes(_SIZING_TOKENS, 2)

    def _take(self, number: int) -> None:
        """A free piece of about that size, else a new one."""
        slots = self._rooms.slots
        best = min(
            self._free,
            key=lambda slot: (
                max(map(self._size, slots[slot])) < self._size(number),
                abs(max(map(self._size, slots[slot])) - self._size(number)),
            ),
            default=None,
        )
        if best is None:
            slots.append([number])
            self._rooms.slot_of[number] = len(slots) - 1
            return
        self._free.remove(best)
        slots[best].append(number)
        self._rooms.slot_of[number] = best


def program_bytes(program: Program, num_tokens: int, num_rows: int, dtype_bytes: int) -> int:
    """Bytes that a step takes from its arena: num_tokens packed ones, of which num_rows give logits."""
    return max(
        _step_bytes(layout_of(program, joined=joined), num_tokens, num_rows, dtype_bytes)
        for joined in (True, False)
    )


def _step_bytes(layout: Layout, num_tokens: int, num_rows: int, dtype_bytes: int) -> int:
    program, registers = layout.program, layout.program.registers
    kept = registers[registers[program.hidden].base].num_bytes(num_tokens, dtype_bytes)
    body = sum(layout.body_rooms.num_bytes(program, num_tokens, dtype_bytes))
    head = sum(layout.head_rooms.num_bytes(program, num_rows, dtype_bytes))
    head += registers[program.logits].num_bytes(num_rows, dtype_bytes)
    head += num_rows * (program.hidden_size * dtype_bytes + program.vocab_size * 4)
    return kept + max(body, head)


def table_bytes(program: Program, max_model_len: int) -> int:
    """Bytes of what follows from positions: the tables of turns in float32, and rows that are looked up."""
    layout = layout_of(program)
    program = layout.program
    turns = {
        tuple(step.args[place]["r"] for place in (1, 2)) for step in layout.body if is_turn(step)
    }
    total = 0
    for number in (*layout.edges, *(one for turn in turns for one in turn)):
        register = program.registers[number]
        if register.token_axis is not None:
            total += register.num_bytes(max_model_len, 4)
    return total


def num_calls(program: Program) -> tuple[int, int]:
    """Calls of a step that are ours, and those that are torch's."""
    ours = torchs = 0
    for step in layout_of(program).body:
        if not step.op.startswith("aten."):
            ours += 2 if step.op == "attention" else 1
        elif not is_view(step):
            torchs += 1
    return ours, torchs
