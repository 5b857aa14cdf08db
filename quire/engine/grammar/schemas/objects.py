"""Objects of a case: members by name, by pattern, and all others; how many there are.

Names are told apart by their regexes; where one cannot be read, members keep to what it says, whatever their name.
"""

from __future__ import annotations

from collections.abc import Iterator

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.schemas.cases import Case, Layer
from quire.engine.grammar.schemas.context import Context
from quire.engine.grammar.schemas.expand import Expander
from quire.engine.grammar.schemas.languages import (
    EVERYTHING,
    NOTHING,
    Automaton,
    Term,
    complement,
    intersection,
    literal,
    union,
)
from quire.engine.grammar.schemas.parts import NEVER, Shape, Wanted, all_of
from quire.engine.grammar.schemas.patterns import language
from quire.engine.grammar.schemas.refute import members
from quire.engine.grammar.schemas.scalars import LOOKS, strings

_MAX_REGIONS = 16
_MAX_CHOICES = 12


class Objects:
    """Writes the objects of cases. The expander tells what names a schema of names allows."""

    def __init__(self, context: Context, expander: Expander) -> None:
        self._context = context
        self._expander = expander

    def shapes(self, case: Case) -> Iterator[Shape]:
        """The objects of a case; several shapes where their number of members leaves a choice."""
        layers = (*sorted(case.layers, key=lambda one: one.place), *_unevaluated(case))
        seen = Case(layers=layers)
        named: dict[str, Wanted] = {}
        allowed = self._names(case)
        for name in dict.fromkeys([*(n for one in layers for n in one.named), *case.required]):
            numbers = members(seen, name)
            if numbers is None:
                self._context.note("patternProperties", self._context.document.root)
            able = numbers is not None and self._is_name(case, name)
            named[name] = all_of(numbers) if numbers is not None and able else NEVER
        shape = Shape({"type": "object"}, named=named, required=case.required)
        patterns = list(dict.fromkeys(p for one in layers for p in one.patterns))
        others = all_of({one.other for one in layers if one.other is not None})
        if not patterns and allowed is EVERYTHING:
            shape.other = None if others == NEVER else others
        elif allowed is not NOTHING:
            self._patterned(shape, layers, patterns, allowed)
        yield from _counted(shape, case)

    def _is_name(self, case: Case, name: str) -> bool:
        schemas = [self._context.document.schema(one) for one in case.names]
        return all(self._context.checker.holds(one, name) is True for one in schemas)

    def _names(self, case: Case) -> Term:
        """The names that the schemas of names allow, or some of them."""
        if not case.names:
            return EVERYTHING
        found: list[Term] = []
        for one in self._expander.cases(frozenset(case.names)):
            if "string" not in one.types:
                continue
            try:
                if one.values is not None:
                    found += [literal(text) for text in one.values if isinstance(text, str)]
                else:
                    found.append(strings(one))
            except GrammarError:
                schema = self._context.document.schema(case.names[0])
                self._context.note("propertyNames", schema)
        return union(*found)

    def _patterned(
        self, shape: Shape, layers: tuple[Layer, ...], patterns: list[str], allowed: Term
    ) -> None:
        """Writes members by the pattern of their names, and all others."""
        if len(patterns) == 1 and allowed is EVERYTHING and not LOOKS.search(patterns[0]):
            shape.patterned.append((patterns[0], all_of(_numbers(layers, frozenset(patterns)))))
            others = all_of({one.other for one in layers if one.other is not None})
            shape.other = None if others == NEVER else others
            return
        regions: list[tuple[Term, frozenset[str]]] = [(allowed, frozenset())]
        unread: set[int] = set()
        for pattern in patterns:
            try:
                terms = language(pattern, wide=False), complement(language(pattern, wide=True))
                regions = self._split(regions, pattern, terms)
            except GrammarError:  # any name may be one that it means
                unread |= {one.patterns[pattern] for one in layers if pattern in one.patterns}
        for names, inside in regions:
            self._add(shape, names, _numbers(layers, inside) | unread)

    def _split(
        self, regions: list[tuple[Term, frozenset[str]]], pattern: str, terms: tuple[Term, Term]
    ) -> list[tuple[Term, frozenset[str]]]:
        """Regions of names split into those that a pattern means and those that it does not."""
        found = []
        for names, inside in regions:
            for term, more in ((terms[0], inside | {pattern}), (terms[1], inside)):
                part = intersection(names, term)
                if part is not NOTHING and not Automaton(part).is_empty():
                    found.append((part, more))
        if len(found) > _MAX_REGIONS:
            self._context.note("patternProperties", self._context.document.root)
        return found[:_MAX_REGIONS]

    def _add(self, shape: Shape, names: Term, numbers: set[int]) -> None:
        """Members whose names are in a language and in none of the shape's others."""
        if 1 in numbers:
            return
        try:
            automaton = Automaton(names)
            if not automaton.is_empty():
                shape.patterned.append((automaton.regex(), all_of(numbers)))
        except GrammarError:
            self._context.note("patternProperties", self._context.document.root)


def _numbers(layers: tuple[Layer, ...], inside: frozenset[str]) -> set[int]:
    """What members keep to whose names are meant by these patterns and by no name or other pattern."""
    found: set[int] = set()
    for one in layers:
        mine = {number for pattern, number in one.patterns.items() if pattern in inside}
        found |= mine if mine or one.other is None else {one.other}
    return found


def _unevaluated(case: Case) -> tuple[Layer, ...]:
    """Layers for the members that the layers of a scope do not speak of."""
    found = []
    for scope, key, number in case.unevaluated:
        inside = [one for one in case.layers if scope in one.scopes]
        if key == "unevaluatedProperties" and all(one.other is None for one in inside):
            named = {name: 0 for one in inside for name in one.named}
            patterns = {pattern: 0 for one in inside for pattern in one.patterns}
            found.append(Layer(named, patterns, number, ()))
    return tuple(found)


def _counted(shape: Shape, case: Case) -> Iterator[Shape]:
    """The shape with a number of members that keeps to the bounds: some made required, some left out."""
    least, most = case.members
    able = [name for name, one in shape.named.items() if one != NEVER]
    spare = [name for name in able if name not in shape.required]
    is_open = shape.other is not None or bool(shape.patterned)
    missing = least - len(shape.required)
    if missing > 0:
        for chosen in _windows(spare, missing):
            yield from _at_most(_with(shape, (*shape.required, *chosen)), most)
        if (
            is_open and missing == 1
        ):  # names of further ones may be the same, so one is all that is sure
            yield from _at_most(_only(shape, least), most, least)
        return
    yield from _at_most(shape, most)


def _at_most(shape: Shape, most: int | None, least: int = 0) -> Iterator[Shape]:
    spare = [n for n, one in shape.named.items() if one != NEVER and n not in shape.required]
    is_open = shape.other is not None or bool(shape.patterned)
    if most is None or (not is_open and len(shape.required) + len(spare) <= most):
        yield shape
        return
    room = most - len(shape.required)
    if room < 0:
        return
    if is_open and room:
        only = _only(shape, least)
        only.plain = only.plain | {"maxProperties": most}
        yield only
    if least > len(shape.required):
        return
    for chosen in _windows(spare, min(room, len(spare))) if spare and room else [()]:
        kept = {
            name: one if name in shape.required or name in chosen else NEVER
            for name, one in shape.named.items()
        }
        yield Shape(shape.plain, named=kept, required=shape.required)


def _only(shape: Shape, least: int) -> Shape:
    """The required members and those without a name: the others are left out, so that counting is plain."""
    kept = {name: one if name in shape.required else NEVER for name, one in shape.named.items()}
    plain = shape.plain | ({"minProperties": least} if least else {})
    return Shape(
        plain, named=kept, patterned=shape.patterned, required=shape.required, other=shape.other
    )


def _with(shape: Shape, required: tuple[str, ...]) -> Shape:
    return Shape(
        shape.plain,
        named=shape.named,
        patterned=shape.patterned,
        required=required,
        other=shape.other,
    )


def _windows(names: list[str], size: int) -> Iterator[tuple[str, ...]]:
    """Some choices of `size` names: those that stand together."""
    for place in range(min(_MAX_CHOICES, len(names) - size + 1)):
        yield tuple(names[place : place + size])
