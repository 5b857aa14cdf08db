"""The table of operations: what each one is, who can carry it out, and which choice was made.

Declarations and reference bodies are in `ops/<family>.py`, providers in `ops/vendor` (through torch),
`ops/cpu` and `ops/triton`; `load_all` imports them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from quire.hardware.pulse import beat

PROVIDER_ORDER = ("cpu", "triton", "torch", "reference")
"""Fastest first; the reference accepts everything and is always last."""


@dataclass(frozen=True)
class Signature:
    """What a choice may depend on: no tensors, no batch sizes.

    dtype   of the activations, "float32" or "bfloat16" or "float16".
    sizes   static sizes by name, in the letters of the shape legend: {"C": 1024}.
    format  of stored weights or cache, "plain" when stored in `dtype`.
    device  "cpu" or "cuda".
    """

    dtype: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    format: str = "plain"
    device: str = "cpu"

    def __str__(self) -> str:
        sizes = " ".join(f"{name}={size}" for name, size in self.sizes.items())
        return f"{self.dtype} {self.format} {self.device} {sizes}".strip()


class Provider:
    """One implementation of one operation. Subclasses set the names and give `run`.

    A packed operation also has `pack`, called once per weight; a planned one has the methods that
    its declaration names. `row_invariant` says that a row of the result depends on its own inputs,
    `copies_weights` that `pack` keeps nothing of what it is given.
    """

    op: str = ""
    name: str = ""
    row_invariant: bool = True
    copies_weights: bool = False

    def accepts(self, signature: Signature) -> str | None:
        """None to accept, or the sentence that says why not."""
        return None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"provider {self.name} of {self.op} has no run method")


@dataclass(frozen=True)
class Op:
    """One operation. `kind` is pure, packed or planned; `summary` is a line for `quire ops`."""

    name: str
    kind: str
    summary: str


_PACKAGES = ("quire.ops", "quire.ops.vendor", "quire.ops.cpu")
_OPS: dict[str, Op] = {}
_PROVIDERS: dict[str, dict[str, Provider]] = {}


def declare(name: str, kind: str, summary: str) -> Op:
    """Adds an operation to the table; its name must be new."""
    if name in _OPS:
        raise ValueError(f"operation {name!r} is declared twice")
    op = Op(name, kind, summary)
    _OPS[name] = op
    _PROVIDERS[name] = {}
    return op


P = TypeVar("P", bound=type[Provider])


def register(cls: P) -> P:
    """Class decorator: makes a provider known under its op and name."""
    instance = cls()
    known = _PROVIDERS.get(instance.op)
    if known is None:
        raise ValueError(f"provider {instance.name!r} names the unknown operation {instance.op!r}")
    if instance.name in known:
        raise ValueError(f"operation {instance.op!r} has two providers named {instance.name!r}")
    known[instance.name] = instance
    return cls


def load_all() -> None:
    """Imports every file of declarations and providers, so that the table is complete."""
    for package_name in _PACKAGES:
        package = importlib.import_module(package_name)
        for module in pkgutil.iter_modules(package.__path__, f"{package_name}."):
            if not module.ispkg:
                importlib.import_module(module.name)


class Watcher(Protocol):
    """Sees every call of a bound operation of one table, and makes it: a tape, or spans of a profile."""

    def run(
        self,
        bound: Bound,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The value of function(*args, **kwargs)."""


class Bound:
    """A choice made: calling it runs the provider, `provider` leads to its other methods.

    Calls, and other methods through `call`, go through the table's watcher while it has one.
    """

    __slots__ = ("op", "provider", "signature", "_table", "_run")

    def __init__(self, op: Op, provider: Provider, signature: Signature, table: Table) -> None:
        self.op = op
        self.provider: Any = provider  # its other methods are named by the operation's declaration
        self.signature = signature
        self._table = table
        self._run = provider.run

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        beat()
        watcher = self._table.watcher
        if watcher is None:
            return self._run(*args, **kwargs)
        return watcher.run(self, self._run, args, kwargs)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Runs a second method of a planned operation (`write`, say), watched like `run`."""
        function = getattr(self.provider, method)
        watcher = self._table.watcher
        if watcher is None:
            return function(*args, **kwargs)
        return watcher.run(self, function, args, kwargs)


@dataclass(frozen=True)
class Call:
    """One entry of a tape: an operation and the very arguments it got, tensors by identity."""

    bound: Bound
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Tape:
    """A step as a list of calls. Every call writes into tensors it was given.

    So running the list again on refilled inputs gives the bits of the eager run.
    """

    def __init__(self, watcher: Watcher | None = None) -> None:
        """`watcher` makes the calls, where there is one already."""
        self.calls: list[Call] = []
        self._watcher = watcher

    def run(
        self,
        bound: Bound,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Makes a call and keeps it; the call's value."""
        if self._watcher is None:
            result = function(*args, **kwargs)
        else:
            result = self._watcher.run(bound, function, args, kwargs)
        self.calls.append(Call(bound, function, args, kwargs))
        return result

    def replay(self) -> None:
        for call in self.calls:
            call.function(*call.args, **call.kwargs)


@dataclass(frozen=True)
class Binding:
    """One line of `quire ops`: what was asked, who was taken, who refused and why."""

    op: Op
    signature: Signature
    provider: str
    refusals: tuple[tuple[str, str], ...]


class Table:
    """The choices of one worker.

    `overrides` maps an op name, or "all", to a provider name; "all" holds for the operations that
    have such a provider.

    Raises ValueError if an override names an unknown op or provider, or one that refuses.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        overrides: Mapping[str, str] | None = None,
        fast_math: bool = False,
    ) -> None:
        self.device = device
        self.fast_math = fast_math
        self.overrides = dict(overrides or {})
        self.bindings: list[Binding] = []
        self.watcher: Watcher | None = None
        load_all()
        for name, provider in self.overrides.items():
            if name == "all" and provider not in PROVIDER_ORDER:
                raise ValueError(
                    f"kernel_overrides names the unknown provider {provider!r}; "
                    f"known: {PROVIDER_ORDER}"
                )
            if name != "all" and name not in _OPS:
                raise ValueError(
                    f"kernel_overrides names the unknown operation {name!r}; known: {sorted(_OPS)}"
                )

    def bind(self, op: Op, dtype: str, *, format: str = "plain", **sizes: int) -> Bound:
        """The provider for this signature, chosen now and kept by the caller."""
        signature = Signature(dtype, sizes, format, self.device)
        wanted = self.overrides.get(op.name)
        if wanted is None and self.overrides.get("all") in _PROVIDERS[op.name]:
            wanted = self.overrides["all"]
        provider, refusals = choose(op, signature, wanted=wanted, fast_math=self.fast_math)
        binding = Binding(op, signature, provider.name, refusals)
        if binding not in self.bindings:
            self.bindings.append(binding)
        return Bound(op, provider, signature, self)

    @contextmanager
    def record(self) -> Iterator[Tape]:
        """Collects every bound call made inside the block into the tape it yields."""
        before = self.watcher
        if isinstance(before, Tape):
            raise RuntimeError("a tape is already recording")
        tape = self.watcher = Tape(before)
        try:
            yield tape
        finally:
            self.watcher = before


def choose(
    op: Op, signature: Signature, *, wanted: str | None, fast_math: bool
) -> tuple[Provider, tuple[tuple[str, str], ...]]:
    """The first provider in order that accepts, with the refusals of those asked before it."""
    known = _PROVIDERS[op.name]
    if wanted is not None:
        if wanted not in known:
            raise ValueError(
                f"operation {op.name!r} has no provider {wanted!r}; it has {sorted(known)}"
            )
        refusal = known[wanted].accepts(signature)
        if refusal is not None:
            raise ValueError(f"provider {wanted!r} of {op.name!r} refuses {signature}: {refusal}")
        return known[wanted], ()
    refusals: list[tuple[str, str]] = []
    for name in PROVIDER_ORDER:
        provider = known.get(name)
        if provider is None:
            continue
        refusal = provider.accepts(signature)
        if refusal is None and not provider.row_invariant and not fast_math:
            refusal = "its rows depend on their batch; --fast-math admits it"
        if refusal is None:
            return provider, tuple(refusals)
        refusals.append((name, refusal))
    raise ValueError(f"no provider of {op.name!r} accepts {signature}: {refusals}")


def operations() -> list[Op]:
    """Every declared operation, in order of declaration."""
    return list(_OPS.values())


def providers(op: Op) -> dict[str, Provider]:
    """The providers of an operation by name."""
    return dict(_PROVIDERS[op.name])
