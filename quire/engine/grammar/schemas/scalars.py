"""Strings and numbers of a case, written as llguidance reads them."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import reduce
from math import ceil, floor, lcm
from typing import Any

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.schemas.cases import Case
from quire.engine.grammar.schemas.languages import (
    EVERYTHING,
    Automaton,
    Term,
    complement,
    intersection,
)
from quire.engine.grammar.schemas.parts import Shape
from quire.engine.grammar.schemas.patterns import language, lengths

_SAFE = 2**53 - 1
"""Beyond it, numbers that readers take for different ones may be the same to others."""
_SHORT = 16
"""Up to here, lengths are held against patterns to see whether a string is left."""
LOOKS = re.compile(r"\(\?[!=<]")


def string_shapes(case: Case, formats: frozenset[str]) -> Iterator[Shape]:
    """The strings of a case. Raises GrammarError for patterns that cannot be combined."""
    plain: dict[str, Any] = {"type": "string"}
    known = [one for one in case.formats if one in formats]
    patterns: list[dict[str, Any]] = [{"format": one} for one in known]
    least, most = case.lengths
    is_bounded = case.lengths != (0, None) and max(least, most or 0) <= _SHORT
    if is_bounded and (case.patterns or case.excluded) and _is_none(case):
        return
    if case.excluded or any(LOOKS.search(one) for one in case.patterns):
        joined = _joined(case.patterns, case.excluded)
        if joined is None:
            return
        patterns += [{"pattern": joined}] if joined else []
    else:
        patterns += [{"pattern": one} for one in case.patterns]
    plain |= {"minLength": least} if least else {}
    plain |= {} if most is None else {"maxLength": most}
    if len(patterns) == 1:
        plain |= patterns[0]
    elif patterns:
        plain["allOf"] = patterns
    yield Shape(plain)


def _is_none(case: Case) -> bool:
    """Whether no string is left, as far as that is found out."""
    try:
        return Automaton(strings(case)).is_empty()
    except GrammarError:
        return False


@functools.lru_cache(256)
def _joined(patterns: tuple[str, ...], excluded: tuple[str, ...]) -> str | None:
    """One regex; "" for every string, None for no string. Raises GrammarError."""
    term = _strings(patterns, excluded)
    if term is EVERYTHING:
        return ""
    automaton = Automaton(term)
    return None if automaton.is_empty() else automaton.regex()


def _strings(patterns: tuple[str, ...], excluded: tuple[str, ...]) -> Term:
    return intersection(
        *(language(one, wide=False) for one in patterns),
        *(complement(language(one, wide=True)) for one in excluded),
    )


def strings(case: Case) -> Term:
    """The strings that keep to the patterns and the lengths of a case. Raises GrammarError."""
    term = _strings(case.patterns, case.excluded)
    if case.lengths != (0, None):
        term = intersection(term, lengths(*case.lengths))
    return term


def number_shapes(case: Case) -> Iterator[Shape]:
    """The numbers of a case."""
    low, high = case.low, case.high
    plain: dict[str, Any] = {"type": "integer" if case.integer else "number"}
    if case.fraction:  # between two whole numbers that lie next to each other
        if case.multiples:
            return
        start = floor(low[0]) if low is not None else ceil(high[0]) - 1 if high is not None else 0
        low = (start, True) if low is None or low[0] <= start else low
        high = (start + 1, True) if high is None or high[0] >= start + 1 else high
        if low[0] >= high[0]:
            return
    for bound, key, opened, sign in (
        (low, "minimum", "exclusiveMinimum", 1),
        (high, "maximum", "exclusiveMaximum", -1),
    ):
        if bound is None:
            continue
        value, is_open = bound
        if abs(value) > _SAFE:
            if value * sign > 0:
                return
            value, is_open = -_SAFE * sign, False
        plain[opened if is_open else key] = value
    if case.multiples:
        step = reduce(_common, (Fraction(str(one)) for one in case.multiples))
        if step.denominator == 1:
            plain["multipleOf"] = int(step)
        else:
            plain["multipleOf"] = float(step)
    yield Shape(plain)


def _common(a: Fraction, b: Fraction) -> Fraction:
    """The least number that both divide."""
    return Fraction(
        lcm(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator
    )
