"""What makes a schema fail: for each keyword, the ways in which a value can break it.

A way that cannot be said is left out, which makes the outcome narrower and never wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from quire.engine.grammar.schemas.cases import TYPES, Alternative, Case
from quire.engine.grammar.schemas.context import Context
from quire.engine.grammar.schemas.document import Schema, type_of
from quire.engine.grammar.schemas.holds import finds

_MAX_WAYS = 10
_MAX_KEYS = 6
_MAX_PAIRS = 3
Ways = Iterable[Alternative]


class Satisfied(Exception):
    """The case breaks the schema already."""


class Refuter:
    """Finds the ways to break schemas of one document."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._document = context.document

    def ways(self, schema: Schema, case: Case) -> tuple[Alternative, ...] | None:
        """What may be added to a case so that its values break the schema; None: they do already."""
        if isinstance(schema, bool):
            return () if schema else None
        if not self._context.types(self._document.number(schema)) & case.types:
            return None
        found: list[Alternative] = []
        try:
            for key, wanted in schema.items():
                if self._is_mute(schema, key):
                    continue
                rule = _RULES.get(key)
                if rule is None:
                    if key not in _NOTES:
                        self._context.note(f"not {key}", schema)
                    continue
                found += rule(self, schema, wanted, case)
        except Satisfied:
            return None
        except (TypeError, ValueError, AttributeError, KeyError):
            self._context.note("not", schema)
        able = [
            way for way in found if all(self._context.types(one) & case.types for one, _ in way)
        ]
        return tuple(able[:_MAX_WAYS])

    def _is_mute(self, schema: dict[str, Any], key: str) -> bool:
        """Whether a keyword says nothing to validators of this draft, or to some of them."""
        if not self._document.legacy:
            return key in ("dependencies", "additionalItems")
        return ("$ref" in schema and key != "$ref") or key in _LATER

    def _made(self, schema: dict[str, Any], near: Any, *parts: Schema) -> Alternative:
        return ((self._document.number(self._document.made(schema, near, *parts)), ()),)

    def _breaks(self, *schemas: Schema) -> Alternative:
        return tuple((self._document.number(self._document.negation(one)), ()) for one in schemas)

    def _holds(self, *schemas: Schema) -> Alternative:
        return tuple((self._document.number(one), ()) for one in schemas)

    def type(self, schema: Any, wanted: Any, case: Case) -> Ways:
        kinds = {wanted} if isinstance(wanted, str) else set(wanted)
        others = TYPES - kinds - ({"number"} if "integer" in kinds else set())
        if case.types <= others:
            raise Satisfied
        if others:
            yield self._made({"type": sorted(others)}, schema)
        if "integer" in kinds and "number" not in kinds:
            yield self._made({"type": "number", "\0fraction": True}, schema)

    def enum(self, schema: Any, wanted: Any, case: Case) -> Ways:
        values: dict[str, list[Any]] = {}
        for value in list(wanted):
            values.setdefault(type_of(value), []).append(value)
        others = TYPES - set(values)
        if case.types <= others:
            raise Satisfied
        if others:
            yield self._made({"type": sorted(others)}, schema)
        if len(values.get("boolean", ())) == 1:
            yield self._made({"const": not values["boolean"][0]}, schema)
        if "string" in values:
            listed = "|".join(re.sub(r"([^\w\s]|_)", r"\\\1", one) for one in values["string"])
            yield self._made({"type": "string", "\0excluded": f"^({listed})$"}, schema)
        if "number" in values:
            yield self._made({"type": "number", "exclusiveMinimum": max(values["number"])}, schema)
            yield self._made({"type": "number", "exclusiveMaximum": min(values["number"])}, schema)
        for kind, key in (("array", "minItems"), ("object", "minProperties")):
            if kind in values:
                yield self._made({"type": kind, key: max(map(len, values[kind])) + 1}, schema)

    def const(self, schema: Any, wanted: Any, case: Case) -> Ways:
        return self.enum(schema, [wanted], case)

    def reference(self, schema: Any, wanted: Any, case: Case) -> Ways:
        target = self._document.target(schema)
        if target is not None and not self._context.is_circular(schema):
            yield self._breaks(target)

    def all_of(self, schema: Any, wanted: Any, case: Case) -> Ways:
        for one in wanted:
            if not self._context.types(self._document.number(one)) & case.types:
                raise Satisfied
            yield self._breaks(one)

    def any_of(self, schema: Any, wanted: Any, case: Case) -> Ways:
        yield self._breaks(*wanted)

    def one_of(self, schema: Any, wanted: Any, case: Case) -> Ways:
        yield self._breaks(*wanted)
        pairs = [(a, b) for n, a in enumerate(wanted) for b in wanted[n + 1 :]]
        for a, b in pairs[:_MAX_PAIRS]:
            yield self._holds(a, b)

    def not_(self, schema: Any, wanted: Any, case: Case) -> Ways:
        yield self._holds(wanted)

    def if_(self, schema: Any, wanted: Any, case: Case) -> Ways:
        if "then" in schema:
            yield self._holds(wanted) + self._breaks(schema["then"])
        if "else" in schema:
            yield self._breaks(wanted, schema["else"])

    def required(self, schema: Any, wanted: Any, case: Case) -> Ways:
        if isinstance(wanted, bool):
            return
        for name in list(wanted):
            if name in case.forbidden or not may_have(case, name):
                if case.types == {"object"}:
                    raise Satisfied
                yield self._made({"type": "object"}, schema)
            elif name not in case.required:
                yield self._made({"type": "object", "properties": {name: False}}, schema)

    def properties(self, schema: Any, wanted: Any, case: Case) -> Ways:
        names = sorted(dict(wanted), key=lambda name: name not in case.required)
        for name in names:
            if not may_have(case, name):
                continue
            way = self._member(schema, name, wanted[name], case)
            if way is not None:
                yield way

    def _member(self, schema: Any, name: str, wanted: Schema, case: Case) -> Alternative | None:
        """A member that breaks its schema. None: it cannot. Raises Satisfied."""
        if wanted is True or name in case.forbidden:
            return None
        numbers = members(case, name)
        if numbers is not None:
            types = frozenset(TYPES).intersection(*(self._context.types(one) for one in numbers))
            is_apart = not types & self._context.types(self._document.number(wanted))
            values = self._context.values(numbers)
            verdicts = {self._context.checker.holds(wanted, one) for one in values or ()}
            if verdicts == {True}:
                return None
            if (
                name in case.required
                and case.types == {"object"}
                and (is_apart or verdicts == {False})
            ):
                raise Satisfied
        other = self._document.negation(wanted)
        made = {"type": "object", "required": [name], "properties": {name: other}}
        return self._made(made, schema, other)

    def additional(self, schema: Any, wanted: Any, case: Case) -> Ways:
        for name in _candidates(case):
            known = name in schema.get("properties", ())
            if not known and all(
                finds(p, name) is False for p in schema.get("patternProperties", ())
            ):
                if wanted is False and name in case.required and case.types == {"object"}:
                    raise Satisfied
                way = self._member(schema, name, wanted, case)
                if way is not None:
                    yield way

    def patterned(self, schema: Any, wanted: Any, case: Case) -> Ways:
        for pattern, one in wanted.items():
            for name in _candidates(case):
                if finds(pattern, name):
                    way = self._member(schema, name, one, case)
                    if way is not None:
                        yield way

    def names(self, schema: Any, wanted: Any, case: Case) -> Ways:
        if wanted is False:
            yield self._made({"type": "object", "minProperties": 1}, schema)
        for name in _candidates(case):
            if self._context.checker.holds(wanted, name) is False:
                yield self._made({"type": "object", "required": [name]}, schema)

    def dependent(self, schema: Any, wanted: Any, case: Case) -> Ways:
        for name, needs in wanted.items():
            needs = [needs] if isinstance(needs, str) else needs
            if isinstance(needs, list):
                for other in needs:
                    made = {"type": "object", "required": [name], "properties": {other: False}}
                    yield self._made(made, schema)
            else:
                yield self._made({"type": "object", "required": [name]}, schema) + self._breaks(
                    needs
                )

    def items(self, schema: Any, wanted: Any, case: Case) -> Ways:
        if isinstance(wanted, list):
            yield from self.prefix(schema, wanted, case)
            return
        head = [True] * len(schema.get("prefixItems", ()))
        other = self._document.negation(wanted)
        made = {"type": "array", "minItems": len(head) + 1, "prefixItems": [*head, other]}
        yield self._made(made, schema, other)

    def prefix(self, schema: Any, wanted: Any, case: Case) -> Ways:
        for place, one in enumerate(wanted):
            other = self._document.negation(one)
            made = {"type": "array", "minItems": place + 1, "prefixItems": [True] * place + [other]}
            yield self._made(made, schema, other)

    def contains(self, schema: Any, wanted: Any, case: Case) -> Ways:
        if self._document.legacy or schema.get("minContains", 1) >= 1:
            other = self._document.negation(wanted)
            yield self._made({"type": "array", "items": other}, schema, other)

    def unique(self, schema: Any, wanted: Any, case: Case) -> Ways:
        if wanted:
            twice = {"type": "array", "minItems": 2, "prefixItems": [{"const": None}] * 2}
            yield self._made(twice, schema)

    def multiple(self, schema: Any, wanted: Any, case: Case) -> Ways:
        if float(wanted).is_integer():
            yield self._made({"type": "number", "\0fraction": True}, schema)


def may_have(case: Case, name: str) -> bool:
    """Whether objects of the case may have a member of this name, as far as is seen at once."""
    for layer in case.layers:
        is_closed = layer.other == 1 and name not in layer.named
        if is_closed and all(finds(pattern, name) is False for pattern in layer.patterns):
            return False
    return 1 not in (members(case, name) or ())


def members(case: Case, name: str) -> frozenset[int] | None:
    """The schemas that a member of this name has to keep to; None where a regex cannot be tried."""
    found: set[int] = set()
    for layer in case.layers:
        mine = {layer.named[name]} if name in layer.named else set()
        for pattern, number in layer.patterns.items():
            verdict = finds(pattern, name)
            if verdict is None:
                return None
            mine |= {number} if verdict else set()
        if not mine and layer.other is not None:
            mine = {layer.other}
        found |= mine
    return frozenset(found)


def _candidates(case: Case) -> list[str]:
    """Names that objects of the case have, or that it speaks of."""
    spoken = [name for layer in case.layers for name in layer.named if name not in case.forbidden]
    return list(dict.fromkeys([*case.required, *spoken]))[:_MAX_KEYS]


def _over(kind: str, other: str, change: int) -> Callable[..., Ways]:
    """Breaks a bound of `kind` by its opposite, which lies `change` further."""

    def ways(self: Refuter, schema: Any, wanted: Any, case: Case) -> Ways:
        size = int(wanted) + change
        if size >= 0:
            yield self._made({"type": kind, other: size}, schema)

    return ways


def _beyond(other: str) -> Callable[..., Ways]:
    def ways(self: Refuter, schema: Any, wanted: Any, case: Case) -> Ways:
        if not isinstance(wanted, bool):
            yield self._made({"type": "number", other: wanted}, schema)

    return ways


def _excluded(self: Refuter, schema: Any, wanted: Any, case: Case) -> Ways:
    yield self._made({"type": "string", "\0excluded": wanted}, schema)


_LATER = frozenset(
    ("prefixItems", "dependentRequired", "dependentSchemas", "minContains", "$dynamicRef")
)
_NOTES = frozenset((
    "title", "description", "default", "examples", "$schema", "$id", "id", "$comment", "$defs", "definitions",
    "then", "else", "minContains", "maxContains", "$anchor", "$dynamicAnchor", "format", "additionalItems",
    "deprecated", "readOnly", "writeOnly", "markdownDescription",
))  # fmt: skip
_RULES: dict[str, Callable[..., Ways]] = {
    "type": Refuter.type, "enum": Refuter.enum, "const": Refuter.const, "$ref": Refuter.reference,
    "$dynamicRef": Refuter.reference, "allOf": Refuter.all_of, "anyOf": Refuter.any_of,
    "oneOf": Refuter.one_of, "not": Refuter.not_, "if": Refuter.if_, "required": Refuter.required,
    "properties": Refuter.properties, "additionalProperties": Refuter.additional,
    "patternProperties": Refuter.patterned, "propertyNames": Refuter.names,
    "dependencies": Refuter.dependent, "dependentRequired": Refuter.dependent, "dependentSchemas": Refuter.dependent,
    "items": Refuter.items, "prefixItems": Refuter.prefix, "contains": Refuter.contains,
    "uniqueItems": Refuter.unique, "multipleOf": Refuter.multiple, "pattern": _excluded,
    "minLength": _over("string", "maxLength", -1), "maxLength": _over("string", "minLength", 1),
    "minItems": _over("array", "maxItems", -1), "maxItems": _over("array", "minItems", 1),
    "minProperties": _over("object", "maxProperties", -1),
    "maxProperties": _over("object", "minProperties", 1),
    "minimum": _beyond("exclusiveMaximum"), "maximum": _beyond("exclusiveMinimum"),
    "exclusiveMinimum": _beyond("maximum"), "exclusiveMaximum": _beyond("minimum"),
}  # fmt: skip
