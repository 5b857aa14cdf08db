"""A model of Transformers as a list of operations on registers, for any number of tokens; no torch.

How it is found out is `models.foreign.trace`, in a process of its own; carrying it out is
`models.foreign.decoder`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import msgspec

ALIGNMENT = 64  # bytes, as in `ops.arena`
ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Of the element types of torch, by name; "model" is that of the weights."""


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of a step.

    shape   each axis as (k, c), which is k * T + c.
    order   the axes from the outermost in memory to the innermost.
    dtype   a key of ITEM_BYTES, or "model".
    base    the register whose memory this one is a view of; itself for most.
    """

    shape: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    dtype: str
    base: int

    def sizes(self, num_tokens: int) -> tuple[int, ...]:
        """The shape for T = num_tokens."""
        return tuple(k * num_tokens + c for k, c in self.shape)

    def num_bytes(self, num_tokens: int, dtype_bytes: int) -> int:
        """Bytes in memory, rounded up as the arena does. dtype_bytes: of the model's numbers."""
        item = ITEM_BYTES.get(self.dtype, dtype_bytes)
        return -(-prod(self.sizes(num_tokens)) * item // ALIGNMENT) * ALIGNMENT

    @property
    def token_axis(self) -> int | None:
        """The axis that grows with T; None if none does."""
        return next((axis for axis, (k, _) in enumerate(self.shape) if k), None)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One operation.

    op       "linear", "embedding", "rms_norm", "layer_norm", "act", "rope", "attention", or
             "aten.<name>.<overload>" of torch.
    args, kwargs  numbers, names, lists of such; {"r": n} is a register, {"t": [k, c]} is k * T + c,
             {"p": name} a parameter, {"dtype": name} an element type.
    outs     the registers that it fills.
    """

    op: str
    args: list[Any]
    kwargs: dict[str, Any]
    outs: list[int]


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter.

    shape   as the operations take it; source its name in the checkpoint, None for ones.
    group   as in `models.parameters`. transpose: the checkpoint holds [in, out]; add_one: it is 1 + w.
    """

    shape: tuple[int, ...]
    source: str | None
    group: str
    transpose: bool = False
    add_one: bool = False


class AttentionLine(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one attention, in the order in which they are met. window counts the query itself.

    both_ways  a token sees those behind it too.
    """

    num_heads: int
    num_kv_heads: int
    head_size: int
    scale: float
    window: int | None
    softcap: float
    sinks: str | None
    both_ways: bool = False


class Constant(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that come with the code, not with the checkpoint. values: of the flattened tensor."""

    shape: tuple[int, ...]
    dtype: str
    values: list[float]


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The whole model. Registers 0 and 1 are the token ids and the positions, [1, T] int64.

    head     the step whose product makes logits: those before it make its input, register `hidden`. Of a
             program without logits the number of its steps.
    logits   the register that holds them in the end; without any `hidden`.
    constants  by register.
    prefix   start of names that some checkpoints leave out. ignored: patterns of names of the
             checkpoint that need not be read. head_source: the name of a weight that makes logits there.
    left     operations of torch whose rows may depend on their batch, with how often they occur.
    """

    registers: list[Register]
    steps: list[Step]
    head: int
    hidden: int
    logits: int
    constants: dict[int, Constant]
    weights: dict[str, Weight]
    attention: list[AttentionLine]
    prefix: str
    ignored: list[str]
    left: dict[str, int]
    architecture: str
    vocab_size: int
    hidden_size: int
    max_position_embeddings: int
    tied: bool
    head_source: str

    def __hash__(self) -> int:
        """For caches of what is made of a program."""
        return hash((self.architecture, len(self.registers), len(self.steps)))


def registers_of(value: Any) -> list[int]:
    """The registers that arguments name."""
    if isinstance(value, dict):
        if "r" in value:
            return [value["r"]]
        return [found for item in value.values() for found in registers_of(item)]
    if isinstance(value, list | tuple):
        return [found for item in value for found in registers_of(item)]
    return []


def inputs_of(step: Step) -> list[int]:
    """The registers that a step reads."""
    return registers_of(step.args) + registers_of(step.kwargs)
