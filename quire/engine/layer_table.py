"""The layer table of a profile: what each module took, layers of one kind in one line, as text and as JSON.

What was measured comes from `ops.spans`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from quire.ops.spans import STEP, Key, Time

_NS = 1e6  # nanoseconds of a millisecond
_HEADINGS = ("module", "class", "calls", "self ms", "total ms", "share")


@dataclass
class OperationLine:
    """An operation of a module. Milliseconds; self is without operations inside it."""

    operation: str
    provider: str
    calls: int = 0
    self_ms: float = 0.0
    total_ms: float = 0.0


@dataclass
class ModuleLine:
    """A module, or those of all layers that have its path but for numbers and its class.

    module     dotted path with * for numbers; empty for the whole step.
    calls      of its own operations; of steps for the whole step.
    self_ms    its own operations; for the whole step what is between operations.
    total_ms   with the modules below it.
    share      of `total_ms` in the time of steps, 0 to 1.
    """

    module: str
    cls: str
    calls: int = 0
    self_ms: float = 0.0
    total_ms: float = 0.0
    share: float = 0.0
    operations: list[OperationLine] = field(default_factory=list)


@dataclass
class LayerTable:
    """`modules` in the order of the model, the step first; `layers`: milliseconds by number of the layer,
    of the operations whose place begins with it."""

    steps: int
    step_ms: float
    modules: list[ModuleLine]
    layers: dict[str, float]

    def as_json(self) -> str:
        """All of it, with `class` for the class of a module."""
        modules = [
            {("class" if name == "cls" else name): value for name, value in asdict(line).items()}
            for line in self.modules
        ]
        whole = {"steps": self.steps, "step_ms": self.step_ms, "modules": modules}
        return json.dumps({**whole, "layers": self.layers}, indent=1) + "\n"

    def as_text(self) -> str:
        """A line for each module, and indented below it one for each of its operations."""
        rows = [_HEADINGS]
        above: list[str] = []  # the modules that the line is in
        for line in self.modules:
            while above and not line.module.startswith(f"{above[-1]}."):
                above.pop()
            name = line.module.removeprefix(f"{above[-1]}." if above else "") or STEP
            depth = len(above) + bool(line.module)
            calls = str(line.calls) if line.calls else ""
            numbers = (f"{line.self_ms:.2f}", f"{line.total_ms:.2f}", f"{line.share:.1%}")
            rows.append(("  " * depth + name, line.cls, calls, *numbers))
            for one in line.operations:
                name = "  " * (depth + 1) + f": {one.operation} ({one.provider})"
                rows.append((name, "", str(one.calls), f"{one.self_ms:.2f}", "", ""))
            if line.module:
                above.append(line.module)
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines) + "\n"


def read_table(text: str) -> LayerTable:
    """The table of `LayerTable.as_json`."""
    whole = json.loads(text)
    modules = [
        ModuleLine(
            **{("cls" if name == "class" else name): value for name, value in line.items()}
            | {"operations": [OperationLine(**one) for one in line["operations"]]}
        )
        for line in whole.pop("modules")
    ]
    return LayerTable(modules=modules, **whole)


def layer_table(times: Mapping[Key, Time], classes: Mapping[str, str]) -> LayerTable:
    """The table of what was measured, in the order of the calls; `classes` by path."""
    whole = times.get(Key("", STEP, ""), Time())
    step_ms = whole.total_ns / _NS
    step = _Node(ModuleLine("", "", whole.calls, whole.self_ns / _NS, step_ms))
    layers: dict[str, float] = {}
    for key, time in times.items():
        node = step
        for path in _up(key.place):
            if path in classes or path == key.place:
                node = node.below(_folded(path), classes.get(path, ""))
                node.line.total_ms += time.self_ns / _NS
        if node is not step:
            _add(node.line, key, time)
        kind, _, rest = key.place.partition(".")
        if kind == "layers":
            number = rest.partition(".")[0]
            layers[number] = layers.get(number, 0.0) + time.self_ns / _NS
    modules = list(step.lines())
    for line in modules:
        line.share = line.total_ms / step_ms if step_ms else 0.0
    return LayerTable(whole.calls, step_ms, modules, layers)


class _Node:
    """A line with those of the modules below it."""

    def __init__(self, line: ModuleLine) -> None:
        self.line = line
        self._below: dict[tuple[str, str], _Node] = {}

    def below(self, module: str, cls: str) -> _Node:
        """The node of a module, made if it is new."""
        return self._below.setdefault((module, cls), _Node(ModuleLine(module, cls)))

    def lines(self) -> Iterator[ModuleLine]:
        """Its line, then those below."""
        yield self.line
        for node in self._below.values():
            yield from node.lines()


def _add(line: ModuleLine, key: Key, time: Time) -> None:
    """Counts an operation of the module's own."""
    known = (one for one in line.operations if one.operation == key.operation)
    own = next((one for one in known if one.provider == key.provider), None)
    if own is None:
        own = OperationLine(key.operation, key.provider)
        line.operations.append(own)
    for counted in (line, own):
        counted.calls += time.calls
        counted.self_ms += time.self_ns / _NS
    own.total_ms += time.total_ns / _NS


def _up(place: str) -> list[str]:
    """A path and those above it, without the empty one."""
    parts = place.split(".") if place else []
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _folded(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))
