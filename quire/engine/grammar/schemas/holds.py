"""Whether one value keeps to a schema: yes, no, or not known here (None).

Formats are notes, as JSON schema says. Not known are references out of the document, regexes that Python
cannot read, and what was evaluated (unevaluatedProperties, unevaluatedItems).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any

from quire.engine.grammar.schemas.document import Document, Schema, key_of, type_of

_MAX_STEPS = 5_000
Verdict = bool | None


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """No if one says no, yes if all say yes."""
    known: Verdict = True
    for one in verdicts:
        if one is False:
            return False
        known = known if one else None
    return known


def inverse(verdict: Verdict) -> Verdict:
    """The opposite; what is not known stays so."""
    return None if verdict is None else not verdict


def count(verdicts: Iterable[Verdict], least: float, most: float) -> Verdict:
    """Whether the number of those that say yes lies within bounds."""
    found = list(verdicts)
    sure = sum(one is True for one in found)
    perhaps = sure + sum(one is None for one in found)
    if perhaps < least or sure > most:
        return False
    return True if sure >= least and perhaps <= most else None


@functools.lru_cache(4096)
def finds(pattern: str, text: str) -> Verdict:
    """Whether a regex finds something in a text."""
    if len(pattern) > 2000 or len(text) > 2000 or re.search(r"[+*}][)][+*{]", pattern):
        return None  # what may take for ever is not tried
    try:
        return re.search(re.sub(r"(?<!\\)((?:\\\\)*)\$$", r"\1\\Z", pattern), text) is not None
    except (re.error, RecursionError, OverflowError):
        return None


class Checker:
    """Checks values against the schemas of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._steps = 0
        self._listed: dict[int, frozenset[str]] = {}

    def holds(self, schema: Schema, value: Any) -> Verdict:
        """The verdict; None also where it takes too long."""
        self._steps = 0
        try:
            return self._holds(schema, value)
        except (RecursionError, TypeError, ValueError, OverflowError, AttributeError):
            return None  # a keyword whose value is not what it must be

    def _holds(self, schema: Schema, value: Any) -> Verdict:
        if isinstance(schema, bool):
            return schema
        self._steps += 1
        if self._steps > _MAX_STEPS:
            return None
        if "$ref" in schema and self._document.legacy:
            return self._followed(schema, value)
        return every(self._verdicts(schema, value))

    def _followed(self, schema: dict[str, Any], value: Any) -> Verdict:
        target = self._document.target(schema)
        return None if target is None else self._holds(target, value)

    def _verdicts(self, schema: dict[str, Any], value: Any) -> Iterable[Verdict]:
        for key, wanted in schema.items():
            rule = _RULES.get(key)
            if rule is not None:
                kind, check = rule
                if kind is None or type_of(value) == kind:
                    yield check(self, schema, wanted, value)
            elif key in ("$ref", "$dynamicRef"):
                yield self._followed(schema, value)
            elif key in ("unevaluatedProperties", "unevaluatedItems", "$recursiveRef"):
                yield None

    def type(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        kinds = [wanted] if isinstance(wanted, str) else wanted
        kind = type_of(value)
        return kind in kinds or (
            "integer" in kinds and kind == "number" and float(value).is_integer()
        )

    def enum(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        if id(wanted) not in self._listed:
            self._document.number(schema)  # kept alive, so that its id stays its own
            self._listed[id(wanted)] = frozenset(map(key_of, wanted))
        return key_of(value) in self._listed[id(wanted)]

    def combined(self, schema: dict[str, Any], wanted: Any, value: Any, most: float) -> Verdict:
        return count((self._holds(one, value) for one in wanted), 1, most)

    def conditional(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        met = self._holds(wanted, value)
        ways = [self._holds(schema.get(key, True), value) for key in ("then", "else")]
        if met is None:
            return ways[0] if ways[0] == ways[1] else None
        return ways[0] if met else ways[1]

    def properties(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        return every(self._holds(one, value[key]) for key, one in wanted.items() if key in value)

    def patterned(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        return every(
            True if (found := finds(pattern, key)) is False else self._if(found, one, value[key])
            for pattern, one in wanted.items()
            for key in value
        )

    def _if(self, found: Verdict, schema: Schema, value: Any) -> Verdict:
        held = self._holds(schema, value)
        return held if found or held else None

    def additional(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        verdicts = []
        for key, one in value.items():
            if key in schema.get("properties", ()):
                continue
            found = [finds(pattern, key) for pattern in schema.get("patternProperties", ())]
            if True in found:
                continue
            held = self._holds(wanted, one)
            verdicts.append(held if None not in found or held else None)
        return every(verdicts)

    def names(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        return every(self._holds(wanted, key) for key in value)

    def dependencies(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        return every(
            all(other in value for other in one) if isinstance(one, list) else self._holds(one, value)
            for key, one in wanted.items()
            if key in value
        )  # fmt: skip

    def items(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        if isinstance(wanted, list):
            head = [self._holds(one, item) for one, item in zip(wanted, value, strict=False)]
            rest = schema.get("additionalItems", True)
            return every([*head, *(self._holds(rest, item) for item in value[len(wanted) :])])
        start = len(schema.get("prefixItems", ()))
        return every(self._holds(wanted, item) for item in value[start:])

    def prefix(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        return every(self._holds(one, item) for one, item in zip(wanted, value, strict=False))

    def contains(self, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
        least, most = schema.get("minContains", 1), schema.get("maxContains", float("inf"))
        return count((self._holds(wanted, item) for item in value), least, most)


def _multiple(self: Checker, schema: dict[str, Any], wanted: Any, value: Any) -> Verdict:
    return (Fraction(str(value)) / Fraction(str(wanted))).denominator == 1


def _above(schema: dict[str, Any], wanted: Any, value: Any) -> bool:
    strict = schema.get("exclusiveMinimum") is True
    return bool(value > wanted if strict else value >= wanted)


def _below(schema: dict[str, Any], wanted: Any, value: Any) -> bool:
    strict = schema.get("exclusiveMaximum") is True
    return bool(value < wanted if strict else value <= wanted)


_Rule = tuple[str | None, Callable[[Checker, dict[str, Any], Any, Any], Verdict]]
_INF = float("inf")
_RULES: dict[str, _Rule] = {
    "type": (None, Checker.type),
    "enum": (None, Checker.enum),
    "const": (None, lambda c, s, w, v: key_of(v) == key_of(w)),
    "allOf": (None, lambda c, s, w, v: every(c._holds(one, v) for one in w)),
    "anyOf": (None, lambda c, s, w, v: c.combined(s, w, v, _INF)),
    "oneOf": (None, lambda c, s, w, v: c.combined(s, w, v, 1)),
    "not": (None, lambda c, s, w, v: inverse(c._holds(w, v))),
    "if": (None, Checker.conditional),
    "minimum": ("number", lambda c, s, w, v: _above(s, w, v)),
    "maximum": ("number", lambda c, s, w, v: _below(s, w, v)),
    "exclusiveMinimum": ("number", lambda c, s, w, v: isinstance(w, bool) or v > w),
    "exclusiveMaximum": ("number", lambda c, s, w, v: isinstance(w, bool) or v < w),
    "multipleOf": ("number", _multiple),
    "minLength": ("string", lambda c, s, w, v: len(v) >= w),
    "maxLength": ("string", lambda c, s, w, v: len(v) <= w),
    "pattern": ("string", lambda c, s, w, v: finds(w, v)),
    "minItems": ("array", lambda c, s, w, v: len(v) >= w),
    "maxItems": ("array", lambda c, s, w, v: len(v) <= w),
    "uniqueItems": ("array", lambda c, s, w, v: not w or len({key_of(one) for one in v}) == len(v)),
    "items": ("array", Checker.items),
    "prefixItems": ("array", Checker.prefix),
    "contains": ("array", Checker.contains),
    "minProperties": ("object", lambda c, s, w, v: len(v) >= w),
    "maxProperties": ("object", lambda c, s, w, v: len(v) <= w),
    "required": ("object", lambda c, s, w, v: all(key in v for key in w)),
    "properties": ("object", Checker.properties),
    "patternProperties": ("object", Checker.patterned),
    "additionalProperties": ("object", Checker.additional),
    "propertyNames": ("object", Checker.names),
    "dependentRequired": ("object", Checker.dependencies),
    "dependentSchemas": ("object", Checker.dependencies),
    "dependencies": ("object", lambda c, s, w, v: c.dependencies(
        s, {key: [one] if isinstance(one, str) else one for key, one in w.items()}, v)),
}  # fmt: skip
