"""Arrays of a case: by place, with `contains` put first and `uniqueItems` where items are sure to differ."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations
from math import perm
from typing import Any

from quire.engine.grammar.schemas.cases import TYPES, Case
from quire.engine.grammar.schemas.context import Context
from quire.engine.grammar.schemas.document import key_of
from quire.engine.grammar.schemas.parts import NEVER, Shape, all_of

_MAX_PLACES = 64
_MAX_ORDERS = 48
_MAX_UNIQUE = 8


class _Places:
    """What stands at each place of an array."""

    def __init__(
        self, first: list[set[int]], other: set[int], least: int, most: int | None
    ) -> None:
        self.first = first
        self.other = other
        self.least = least
        self.most = most

    def at(self, place: int) -> set[int]:
        """The schemas of one place, which may be changed."""
        while len(self.first) <= place:
            self.first.append(set(self.other))
        return self.first[place]

    def copy(self) -> _Places:
        return _Places([set(one) for one in self.first], set(self.other), self.least, self.most)

    def shape(self) -> Shape:
        first = [all_of(one) for one in self.first]
        if self.most is not None:
            first = first[: self.most]
        plain: dict[str, Any] = {"type": "array"}
        plain |= {"minItems": self.least} if self.least else {}
        plain |= {} if self.most is None else {"maxItems": self.most}
        other = all_of(self.other)
        return Shape(
            plain, first=tuple(first), other=None if other == NEVER else other, least=self.least
        )


def array_shapes(context: Context, case: Case) -> Iterator[Shape]:
    """The arrays of a case; several shapes where there are several ways."""
    places = _Places([], set(), *case.items)
    rows = [(row.first, row.other) for row in case.rows] + _unevaluated(case)
    num_first = max((len(first) for first, _ in rows), default=0)
    if num_first > _MAX_PLACES:
        context.note("prefixItems", context.document.root)
        return
    for place in range(num_first):
        there = [first[place] if place < len(first) else other for first, other in rows]
        places.first.append({one for one in there if one is not None})
    places.other = {other for _, other in rows if other is not None}
    ways = [places]
    for wanted, least, most in case.contains:
        ways = [way for one in ways for way in _with(context, one, wanted, (least, most))]
    for way in ways:
        if way.most is not None and way.least > way.most:
            continue
        if case.unique and (way.most is None or way.most > 1):
            yield from _distinct(context, way)
        else:
            yield way.shape()


_RowOf = tuple[tuple[int, ...], int | None]


def _unevaluated(case: Case) -> list[_RowOf]:
    """Rows for the items that the rows of a scope do not speak of."""
    found: list[_RowOf] = []
    for scope, key, number in case.unevaluated:
        inside = [row for row in case.rows if scope in row.scopes]
        if key == "unevaluatedItems" and all(row.other is None for row in inside):
            known = max((len(row.first) for row in inside), default=0)
            found.append(((0,) * known, number))
    return found


def _with(
    context: Context, places: _Places, wanted: int, bounds: tuple[int, int | None]
) -> Iterator[_Places]:
    """Ways to have so many items that keep to a schema: in a row, from some place near the beginning."""
    least, most = bounds
    if least > _MAX_PLACES:
        context.note("minContains", context.document.schema(wanted))
        return
    against = context.document.number(context.document.negation(context.document.schema(wanted)))
    for start in range(min(len(places.first), 4) + 1 if least else 1):
        way = places.copy()
        for place in range(start, start + least):
            way.at(place).add(wanted)
        way.least = max(way.least, start + least if least else 0)
        if most is not None:
            if least > most:
                return
            for place, one in enumerate(way.first):
                if not start <= place < start + least:
                    one.add(against)
            way.other.add(against)
        yield way


def _distinct(context: Context, places: _Places) -> Iterator[Shape]:
    """Ways whose items are sure to differ: none or one; of different types; values of a list."""
    apart = _num_apart(context, places)
    if apart > 1:
        way = places.copy()
        way.most = apart if way.most is None else min(way.most, apart)
        yield way.shape()
    elif places.least <= 1:
        way = places.copy()
        way.most = 1
        yield way.shape()
    same = not places.first
    values = context.values(all_of(places.at(0))) if same or len(places.first) == 1 else None
    if same:
        places.first.clear()
    if values is None:
        if apart < 2:
            context.note("uniqueItems", context.document.schema(min(places.other, default=0)))
        return
    listed = list({key_of(one): one for one in values}.values())
    top = min(len(listed), _MAX_UNIQUE if places.most is None else places.most)
    for size in range(max(2, places.least), max(top, min(places.least, len(listed))) + 1):
        for order in _orders(listed, size):
            yield Shape({"type": "array", "prefixItems": order, "items": False, "minItems": size})


def _orders(values: list[Any], size: int) -> Iterator[list[Any]]:
    """Arrays of `size` different values: all of them, or those in the order of the list where they are many."""
    if perm(len(values), size - 1) <= _MAX_ORDERS:
        for head in permutations(range(len(values)), size - 1):
            left = [one for place, one in enumerate(values) if place not in head]
            yield [*({"const": values[place]} for place in head), {"enum": left}]
        return
    cuts = [len(values) * place // size for place in range(size + 1)]
    yield [{"enum": values[a:b]} for a, b in pairwise(cuts)]


def _num_apart(context: Context, places: _Places) -> int:
    """How many of the first items have types that no two of them share."""
    seen: set[str] = set()
    count = 0
    for one in places.first:
        types = set(TYPES).intersection(*(context.types(number) for number in one))
        if types & seen:
            break
        seen |= types
        count += 1
    else:
        types = set(TYPES).intersection(*(context.types(number) for number in places.other))
        count += not types & seen
    return count
