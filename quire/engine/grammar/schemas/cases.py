"""Cases: plain descriptions of values, as `expand` makes them of schemas, and what one is on its way.

What keywords add to a case is `keywords`; how one is written down is `shapes`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

TYPES = frozenset(("null", "boolean", "number", "string", "array", "object"))
Scopes = tuple[int, ...]
Item = tuple[int, Scopes]
Alternative = tuple[Item, ...]


@dataclass(frozen=True)
class Layer:
    """What one schema says of the members of an object; numbers of schemas.

    scopes  see `Case`. place: how many schemas stand before it.
    """

    named: dict[str, int]
    patterns: dict[str, int]
    other: int | None
    scopes: Scopes
    place: int = 0


@dataclass(frozen=True)
class Row:
    """What one schema says of the items of an array."""

    first: tuple[int, ...]
    other: int | None
    scopes: Scopes


@dataclass
class Case:
    """Values that keep to every field. Containers are replaced, never changed, so that a copy is shallow.

    values       the values themselves, where they are listed; nothing else counts then.
    fraction     a number that is not whole.
    unevaluated  (scope, keyword, schema): what holds for members or items that no layer or row of this
                 scope speaks of; a scope is the schema that says so, with all that it takes in.
    """

    types: frozenset[str] = TYPES
    values: tuple[Any, ...] | None = None
    low: tuple[float, bool] | None = None  # and whether it is excluded itself
    high: tuple[float, bool] | None = None
    integer: bool = False
    fraction: bool = False
    multiples: tuple[Any, ...] = ()
    lengths: tuple[int, int | None] = (0, None)
    patterns: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    items: tuple[int, int | None] = (0, None)
    unique: bool = False
    contains: tuple[tuple[int, int, int | None], ...] = ()
    layers: tuple[Layer, ...] = ()
    members: tuple[int, int | None] = (0, None)
    required: tuple[str, ...] = ()
    forbidden: frozenset[str] = frozenset()
    names: tuple[int, ...] = ()
    unevaluated: tuple[tuple[int, str, int], ...] = ()


class Work:
    """A case on its way: what is not looked at yet, and the choices that are open."""

    def __init__(self, pending: list[Item]) -> None:
        self.case = Case()
        self.pending = pending
        self.seen: frozenset[Item] = frozenset()
        self.choices: tuple[tuple[Alternative, ...], ...] = ()
        self.refuted: tuple[int, ...] = ()

    def fork(self, alternative: Alternative) -> Work:
        other = copy.copy(self)
        other.case = copy.copy(self.case)
        other.pending = list(alternative)
        return other


class Dead(Exception):
    """No value is left."""
