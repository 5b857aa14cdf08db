"""Where each bound operation is in a loaded model: found by a walk through its objects, when somebody asks.

Layers know nothing of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from quire.ops.registry import Bound, Provider, Table
from quire.ops.spans import Places

ROOT = "model"
"""The place of what a decoder itself holds."""


def places_of(parts: dict[str, object]) -> Places:
    """The operations below `parts`, by the path of the object that holds them; the first path counts.

    parts  by path; what is in a part with the path "" has no prefix, and its own operations are ROOT's.
    """
    of: dict[Bound, str] = {}
    classes: dict[str, str] = {}
    seen: set[int] = set()

    def visit(value: object, path: str, owner: str) -> None:
        if isinstance(value, Bound):
            of.setdefault(value, owner)
            return
        if id(value) in seen:
            return
        seen.add(id(value))
        if _is_part(value):
            owner = path or ROOT
            classes[owner] = type(value).__name__
        for name, inner in _inside(value):
            if "." in name:  # of a parameter, which says where it is
                visit(inner, name.removesuffix(".weight"), owner)
            else:
                visit(inner, f"{path}.{name}".strip(".") if name else path, owner)

    for path, part in parts.items():
        visit(part, path, path)
    return Places(of, classes)


def _is_part(value: object) -> bool:
    """Whether an object is one of ours that computes, no description and no provider."""
    return (
        type(value).__module__.startswith("quire.")
        and hasattr(value, "__dict__")
        and not dataclasses.is_dataclass(value)
        and not isinstance(value, (type, Table, Provider))
    )


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, by name; an empty name for what has none of its own."""
    if _is_part(value):
        yield from ((name.strip("_"), inner) for name, inner in list(vars(value).items()))
    elif isinstance(value, dict):
        yield from ((str(name), inner) for name, inner in list(value.items()))
    elif isinstance(value, (list, tuple)):
        yield from ((str(number), inner) for number, inner in enumerate(value))
    elif isinstance(value, partial):
        yield from (("", inner) for inner in (value.func, *value.args, *value.keywords.values()))
    elif isinstance(value, MethodType):
        yield "", value.__self__
    elif isinstance(value, FunctionType) and value.__module__.startswith("quire."):
        yield from (("", cell.cell_contents) for cell in value.__closure__ or () if _is_full(cell))


def _is_full(cell: Any) -> bool:
    """Whether a name that a function closes over has a value; Python says no by ValueError."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
