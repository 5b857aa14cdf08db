"""What operations take while a profile runs: a span of the trace for every call, and sums by place.

Which place a bound operation has is told by `worker.places`; the sums become a table in
`engine.layer_table`. On a GPU a call's time is that of its launch. `torch.profiler.record_function` makes
the same spans at 16 us each instead of 0.7.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import Any, NamedTuple, TypeVar

from torch._C._profiler import _RecordFunctionFast as record_function

from quire.ops.registry import Bound, Call

STEP = "step"
"""The operation of whole steps, whose place is empty."""

T = TypeVar("T")


@dataclass(frozen=True)
class Places:
    """Where bound operations are in the model, as dotted paths, and the class at each path."""

    of: Mapping[Bound, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)


class Key(NamedTuple):
    """One line of the sums: `layers.3.mixer`, `paged_attention.write`, `cpu`."""

    place: str
    operation: str
    provider: str

    @property
    def label(self) -> str:
        """Its name in the trace."""
        return f"{self.place}: {self.operation}" if self.place else self.operation


@dataclass
class Time:
    """Sums of calls; self is without the calls inside them. Nanoseconds."""

    calls: int = 0
    total_ns: int = 0
    self_ns: int = 0


class Spans:
    """The watcher of a table while a profile runs. All but `times` is for the thread that computes.

    detailed  steps are named with their number, rows and tokens.
    """

    def __init__(self, *, detailed: bool = False) -> None:
        self.detailed = detailed
        self.places = Places()
        self._keys: dict[tuple[Bound, str], Key] = {}
        self._below_ns = 0
        self._open: dict[Key, Time] = {}
        self._times: dict[Key, Time] = {}
        self._lock = threading.Lock()

    def step(self, name: str, function: Callable[[], T]) -> T:
        """Runs a step; its operations count from its end on, those of a step that raises do not."""
        self._open, self._below_ns = {}, 0
        result = self._timed(Key("", STEP, ""), name, function)
        with self._lock:
            for key, time in self._open.items():
                total = self._times.setdefault(key, Time())
                total.calls += time.calls
                total.total_ns += time.total_ns
                total.self_ns += time.self_ns
        return result

    def run(
        self,
        bound: Bound,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """The value of function(*args, **kwargs), which is a call of the bound operation."""
        key = self._key(bound, function)
        return self._timed(key, key.label, partial(function, *args, **kwargs))

    def around(self, call: Call, part: Callable[[], object]) -> Callable[[], object]:
        """`part`, which carries out a recorded call, with its span."""
        key = self._key(call.bound, call.function)
        return partial(self._timed, key, key.label, part)

    def times(self) -> dict[Key, Time]:
        """The sums of the steps that have ended."""
        with self._lock:
            return {key: Time(**vars(time)) for key, time in self._times.items()}

    def _key(self, bound: Bound, function: Callable[..., Any]) -> Key:
        method = function.__name__
        key = self._keys.get((bound, method))
        if key is None:
            name = bound.op.name if method == "run" else f"{bound.op.name}.{method}"
            place = self.places.of.get(bound, "other")
            key = self._keys[bound, method] = Key(place, name, bound.provider.name)
        return key

    def _timed(self, key: Key, name: str, function: Callable[[], T]) -> T:
        outer, self._below_ns = self._below_ns, 0
        with record_function(name):
            start = perf_counter_ns()
            result = function()
            taken = perf_counter_ns() - start
        time = self._open.setdefault(key, Time())
        time.calls += 1
        time.total_ns += taken
        time.self_ns += taken - self._below_ns
        self._below_ns = outer + taken
        return result
