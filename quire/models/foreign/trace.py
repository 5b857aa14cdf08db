"""Follows a model of Transformers through one pass on tensors without numbers, and writes down what it does.

Runs in a process of its own, see `models.foreign.helper`. What is recognised as ours is in
`models.foreign.parts`; the list that comes out of two passes is made in `models.foreign.join`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

MODEL_DTYPE = torch.bfloat16
"""Of the pass: what is bfloat16 in it is the model's dtype, since no model's code names that type."""


class CannotRunError(Exception):
    """The model does something that cannot be carried out here; the text says what."""


@dataclass(frozen=True)
class Ref:
    """A tensor of the pass."""

    number: int


@dataclass(frozen=True)
class ParameterRef:
    """A parameter of the model."""

    name: str


@dataclass
class RawStep:
    """A step with the numbers of one pass."""

    op: str
    args: list[Any]
    kwargs: dict[str, Any]
    outs: list[int]


@dataclass
class Recording:
    """One pass: every tensor that it made, in order, and every step.

    parameters  names by identity of the tensor that stands for one.
    tensors     by register; kept alive, so that identities stay what they are.
    bases       by register: the first register in the same memory.
    constants   real numbers by register.
    attention   the numbers of each attention.
    """

    fake: FakeTensorMode
    parameters: dict[int, str]
    tensors: list[torch.Tensor] = field(default_factory=list)
    bases: list[int] = field(default_factory=list)
    steps: list[RawStep] = field(default_factory=list)
    constants: dict[int, torch.Tensor] = field(default_factory=dict)
    attention: list[dict[str, Any]] = field(default_factory=list)
    turned: set[str] = field(default_factory=set)
    _numbers: dict[int, int] = field(default_factory=dict)
    _storages: dict[int, int] = field(default_factory=dict)

    def new(self, tensor: torch.Tensor) -> int:
        """The register of a tensor, a new one if it has none."""
        if id(tensor) in self._numbers:
            return self._numbers[id(tensor)]
        number = len(self.tensors)
        self.tensors.append(tensor)
        self._numbers[id(tensor)] = number
        self.bases.append(self._storages.setdefault(tensor.untyped_storage()._cdata, number))
        return number

    def ref(self, value: Any) -> Any:
        """Arguments with tensors replaced by what they are.

        Raises CannotRunError for a tensor that is none of those that are known.
        """
        if isinstance(value, torch.Tensor):
            if id(value) in self._numbers:
                return Ref(self._numbers[id(value)])
            if id(value) in self.parameters:
                return ParameterRef(self.parameters[id(value)])
            if not isinstance(value, FakeTensor):  # computed when the model was made
                number = self.new(value)
                self.constants[number] = value
                return Ref(number)
            raise CannotRunError("its code uses a tensor that is no weight and made of no input")
        if isinstance(value, list | tuple):
            return [self.ref(item) for item in value]
        return value

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """A tensor without numbers, unseen by the modes."""
        with _disable_current_modes(), self.fake:
            return torch.empty(shape, dtype=dtype)

    def like(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor without numbers with the shape of x, and its order in memory where x is dense."""
        with _disable_current_modes(), self.fake:
            return torch.empty_like(x)

    def step(self, op: str, out: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Writes down a step that makes `out`, and gives that."""
        refs = [self.ref(arg) for arg in args]
        keys = {key: self.ref(value) for key, value in kwargs.items()}
        self.steps.append(RawStep(op, refs, keys, [self.new(out)]))
        return out

    def name_of(self, tensor: Any) -> str | None:
        """The name of a parameter; None for anything else."""
        return self.parameters.get(id(tensor))

    def act(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """An activation of `ops.elementwise`."""
        return self.step("act", self.like(x), x, name)


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what reaches torch itself."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recording = recording

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not str(func).startswith("aten."):
            return result
        recording = self._recording
        refs = [recording.ref(arg) for arg in args]
        keys = {
            key: recording.ref(value)
            for key, value in kwargs.items()
            if key not in ("device", "layout", "pin_memory", "memory_format", "non_blocking")
        }
        made = list(result) if isinstance(result, list | tuple) else [result]
        outs = [recording.new(one) for one in made if isinstance(one, torch.Tensor)]
        recording.steps.append(RawStep(str(func), refs, keys, outs))
        return result


class Functions(TorchFunctionMode):
    """Sees products, embeddings and activations while they are still whole."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording
        self._known: dict[Any, Callable[..., Any]] = {
            F.linear: self._linear,
            F.embedding: self._embedding,
            torch.addmm: self._addmm,
            F.silu: lambda x, inplace=False: recording.act("silu", x),
            F.relu: lambda x, inplace=False: recording.act("relu", x),
            F.gelu: lambda x, approximate="none": recording.act(
                "gelu" if approximate == "none" else "gelu_tanh", x
            ),
            F.scaled_dot_product_attention: self._no_attention,
            F.dropout: lambda x, *args, **kwargs: x,
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        known = self._known.get(func)
        if known is not None:
            result = known(*args, **(kwargs or {}))
            if result is not None:
                return result
        return func(*args, **(kwargs or {}))

    def _linear(self, x: torch.Tensor, weight: Any, bias: Any = None) -> torch.Tensor | None:
        recording, name = self._recording, self._recording.name_of(weight)
        if name is None or weight.dim() != 2 or (bias is not None and not recording.name_of(bias)):
            return None
        if x.dtype != weight.dtype:
            return None
        out = recording.empty(*x.shape[:-1], weight.shape[0], dtype=x.dtype)
        return recording.step("linear", out, x, name, recording.name_of(bias))

    def _addmm(self, bias: Any, x: torch.Tensor, weight: Any, **scales: Any) -> torch.Tensor | None:
        """A product whose weight is kept as [in, out]."""
        recording, name = self._recording, self._recording.name_of(weight)
        if name is None or scales or recording.name_of(bias) is None:
            return None
        recording.turned.add(name)
        out = recording.empty(x.shape[0], weight.shape[1], dtype=x.dtype)
        return recording.step("linear", out, x, name, recording.name_of(bias))

    def _embedding(
        self, ids: torch.Tensor, weight: Any, *args: Any, **kwargs: Any
    ) -> torch.Tensor | None:
        recording, name = self._recording, self._recording.name_of(weight)
        if name is None:
            return None
        out = recording.empty(*ids.shape, weight.shape[1], dtype=weight.dtype)
        return recording.step("embedding", out, ids, name)

    def _no_attention(self, *args: Any, **kwargs: Any) -> None:
        raise CannotRunError(
            "its attention does not go through the attention interface of Transformers"
        )


@contextmanager
def recorded(recording: Recording) -> Iterator[None]:
    """A block in which everything is written down."""
    with recording.fake, Functions(recording), Dispatch(recording), torch.no_grad():
        yield


@contextmanager
def for_real() -> Iterator[None]:
    """A block inside of such a one in which tensors have numbers and nothing is written down."""
    with _disable_current_modes():
        yield
