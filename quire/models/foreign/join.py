"""Makes one program of two passes of different lengths: what differs between them follows the tokens.

The passes are `models.foreign.trace`'s.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from quire.models.foreign.program import (
    Constant,
    Register,
    Step,
    inputs_of,
)
from quire.models.foreign.rooms import settled
from quire.models.foreign.rows import complaint, is_uneven
from quire.models.foreign.trace import MODEL_DTYPE, CannotRunError, ParameterRef, Recording, Ref

_MAX_CONSTANT = 1 << 20  # numbers


class Join:
    """Two passes of `lengths` tokens. names: of parameters, by those that the model has for them."""

    def __init__(
        self, first: Recording, second: Recording, lengths: tuple[int, int], names: dict[str, str]
    ) -> None:
        self._first, self._second = first, second
        self._lengths = lengths
        self._names = names
        if len(first.steps) != len(second.steps) or len(first.tensors) != len(second.tensors):
            raise CannotRunError("its code does something else for another number of tokens")
        self.registers = [self._register(number) for number in range(len(first.tensors))]
        self.steps = [
            Step(
                op=one.op,
                args=self._value(one.args, other.args),
                kwargs=self._value(one.kwargs, other.kwargs),
                outs=one.outs,
            )
            for one, other in zip(first.steps, second.steps, strict=True)
        ]

    def constants(self, used: set[int]) -> dict[int, Constant]:
        """The constants among registers. Raises CannotRunError for a large one."""
        found = {}
        for number, tensor in self._first.constants.items():
            if number not in used:
                continue
            if tensor.numel() > _MAX_CONSTANT:
                raise CannotRunError(f"its code keeps a table of {tensor.numel():,} numbers")
            found[number] = Constant(
                shape=tuple(tensor.shape),
                dtype=_dtype_name(tensor.dtype),
                values=tensor.detach().double().flatten().tolist(),
            )
        return found

    def needed(self, wanted: int) -> list[Step]:
        """The steps that a register is made of, in order."""
        bases = {self.registers[wanted].base}
        kept: list[Step] = []
        for step in reversed(self.steps):
            if any(self.registers[out].base in bases for out in step.outs):
                kept.append(step)
                bases |= {self.registers[number].base for number in inputs_of(step)}
        return kept[::-1]

    def left(self, steps: list[Step]) -> dict[str, int]:
        """Operations that may round by their neighbours, with how often they occur.

        Raises CannotRunError for a step that mixes tokens.
        """
        counts: Counter[str] = Counter()
        fixed = settled(steps, self._first.constants)
        for step in steps:
            if not step.op.startswith("aten."):
                continue
            why = complaint(step, self.registers)
            if why is not None:
                raise CannotRunError(why)
            if not set(step.outs) <= fixed and is_uneven(step, self.registers):
                counts[step.op.split(".")[1]] += 1
        return dict(counts)

    def _register(self, number: int) -> Register:
        one, other = self._first.tensors[number], self._second.tensors[number]
        shape = tuple(self._affine(a, b) for a, b in zip(one.shape, other.shape, strict=True))
        strides = one.stride()
        order = sorted(
            range(one.dim()), key=lambda axis: -strides[axis] if one.shape[axis] > 1 else 0
        )
        if one.is_contiguous():
            order = list(range(one.dim()))
        return Register(
            shape=shape,
            order=tuple(order),
            dtype=_dtype_name(one.dtype),
            base=self._first.bases[number],
        )

    def _affine(self, one: int, other: int) -> tuple[int, int]:
        """(k, c) with k * T + c for both lengths."""
        step = self._lengths[1] - self._lengths[0]
        if (other - one) % step:
            raise CannotRunError("a size of its tensors does not follow the number of tokens")
        k = (other - one) // step
        return k, one - k * self._lengths[0]

    def _value(self, one: Any, other: Any) -> Any:
        if isinstance(one, Ref):
            if one != other:
                raise CannotRunError("its code does something else for another number of tokens")
            return {"r": one.number}
        if isinstance(one, ParameterRef):
            return {"p": self._names.get(one.name, one.name)}
        if isinstance(one, dict):
            return {key: self._value(one[key], other[key]) for key in one}
        if isinstance(one, list | tuple):
            return [self._value(a, b) for a, b in zip(one, other, strict=True)]
        if isinstance(one, torch.dtype):
            return {"dtype": _dtype_name(one)}
        if isinstance(one, bool) or one is None:
            return one
        if isinstance(one, str):
            return self._names.get(one, one)
        if isinstance(one, int):
            k, c = self._affine(one, other)
            return {"t": [k, c]} if k else one
        if isinstance(one, float) and one == other:
            return one
        if isinstance(one, torch.device | torch.layout | torch.memory_format):
            return None
        raise CannotRunError(f"its code gives torch {one!r}, which cannot be written down")


def _dtype_name(dtype: torch.dtype) -> str:
    return "model" if dtype == MODEL_DTYPE else str(dtype).removeprefix("torch.")
