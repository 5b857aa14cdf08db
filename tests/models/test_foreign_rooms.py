"""Memory of programs: nothing is overwritten before its last reader has run, joined steps or not."""

from __future__ import annotations

import pytest

from quire.models.foreign.program import (
    AttentionLine,
    Program,
    Register,
    Step,
    Weight,
    inputs_of,
)
from quire.models.foreign.rooms import Layout, layout_of, num_calls, program_bytes

C, HEADS = 64, 4


class Writer:
    """A program of a few layers like Llama's, written by hand."""

    def __init__(self) -> None:
        self.registers: list[Register] = []
        self.steps: list[Step] = []
        self.weights: dict[str, Weight] = {}

    def new(self, *sizes: int, base: int | None = None) -> int:
        number = len(self.registers)
        shape = ((0, 1), (1, 0), *((0, size) for size in sizes))
        self.registers.append(
            Register(
                shape=shape,
                order=tuple(range(len(shape))),
                dtype="model",
                base=number if base is None else base,
            )
        )
        return number

    def step(self, op: str, out: int, *args: object) -> int:
        self.steps.append(Step(op=op, args=list(args), kwargs={}, outs=[out]))
        return out

    def linear(self, x: int, name: str, size: int) -> int:
        self.weights[name] = Weight(shape=(size, C), source=name, group="feed_forward")
        return self.step("linear", self.new(size), {"r": x}, name, None)

    def layer(self, x: int, name: str) -> int:
        q, k, v = (self.linear(x, f"{name}.{one}", C) for one in "qkv")
        turned = [self.step("rope", self.new(C), {"r": one}, {"r": 1}, {"r": 1}) for one in (q, k)]
        heads = [{"r": one} for one in (*turned, v)]
        mixed = self.step("attention", self.new(C), *heads, 0)
        x = self.step("aten.add.Tensor", self.new(C), {"r": x}, {"r": mixed})
        gate, up = (self.linear(x, f"{name}.{one}", 96) for one in ("gate", "up"))
        act = self.step("act", self.new(96), {"r": gate}, "silu")
        made = self.step("aten.mul.Tensor", self.new(96), {"r": act}, {"r": up})
        down = self.linear(made, f"{name}.down", C)
        return self.step("aten.add.Tensor", self.new(C), {"r": x}, {"r": down})


def program(num_layers: int = 3) -> Program:
    to = Writer()
    to.new()
    to.new()
    to.weights["embedding.weight"] = Weight(shape=(90, C), source="e", group="embedding")
    x = to.step("embedding", to.new(C), {"r": 0}, "embedding.weight")
    for index in range(num_layers):
        x = to.layer(x, f"layers.{index}")
    head = len(to.steps)
    logits = to.linear(x, "head.weight", 90)
    line = AttentionLine(
        num_heads=HEADS,
        num_kv_heads=HEADS,
        head_size=16,
        scale=0.25,
        window=None,
        softcap=0.0,
        sinks=None,
    )
    return Program(
        registers=to.registers,
        steps=to.steps,
        head=head,
        hidden=x,
        logits=logits,
        constants={},
        weights=to.weights,
        attention=[line] * num_layers,
        prefix="",
        ignored=[],
        left={},
        architecture="Written",
        vocab_size=90,
        hidden_size=C,
        max_position_embeddings=128,
        tied=False,
        head_source="head.weight",
    )


def _owners(layout: Layout) -> None:
    """Walks the steps as they run: a register that is read must still be in its piece of memory."""
    registers, rooms = layout.program.registers, layout.body_rooms
    holds: dict[int, set[int]] = {}  # by piece: the registers' own memory that is alive there
    for step in layout.body:
        for number in inputs_of(step):
            base = registers[number].base
            if base in rooms.slot_of:
                assert base in holds[rooms.slot_of[base]], f"{step.op} reads {number} too late"
        for out in step.outs:
            base = registers[out].base
            if base not in rooms.slot_of:
                continue
            kept = holds.setdefault(rooms.slot_of[base], set())
            if base in rooms.in_place:
                kept.add(base)
            elif base not in kept:
                holds[rooms.slot_of[base]] = {base}


@pytest.mark.parametrize("joined", [True, False])
def test_nothing_is_overwritten_that_is_still_read(joined: bool) -> None:
    layout = layout_of(program(), joined=joined)
    _owners(layout)
    assert layout.body_rooms.in_place


def test_products_of_one_input_are_one_and_gates_too() -> None:
    ops = [step.op for step in layout_of(program(1)).body]
    assert ops == ["embedding", "linears", "rope", "rope", "attention", "aten.add.Tensor", "linears",
                   "act_mul", "linear", "aten.add.Tensor"]  # fmt: skip
    assert len(layout_of(program(1), joined=False).body) == 14


def test_memory_does_not_grow_with_layers() -> None:
    sizes = [program_bytes(program(layers), 64, 4, 4) for layers in (2, 8)]
    assert sizes[0] == sizes[1]
    assert num_calls(program(2)) == (17, 4)
