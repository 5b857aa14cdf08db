"""What each keyword of a schema that must hold adds to a case, or leaves to be chosen.

Unknown keywords are notes, as JSON schema says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.schemas.cases import TYPES, Case, Dead, Item, Layer, Row, Scopes, Work
from quire.engine.grammar.schemas.context import Context
from quire.engine.grammar.schemas.document import Schema

Taker = Callable[[Context, Work, dict[str, Any], Any, Scopes], None]
_WRONG = (TypeError, ValueError, AttributeError, KeyError, OverflowError)


def take_in(context: Context, work: Work, schema: dict[str, Any], scopes: Scopes) -> None:
    """Adds a schema to a case on its way. Raises Dead, or GrammarError for a keyword's wrong value."""
    document = context.document
    if document.legacy and "$ref" in schema:
        _reference(context, work, schema, schema["$ref"], scopes)
        return
    if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
        scopes = (*scopes, document.number(schema))
    for key, wanted in schema.items():
        taker = _TAKERS.get(key)
        if taker is None:
            continue
        try:
            taker(context, work, schema, wanted, scopes)
        except GrammarError:
            raise
        except _WRONG:
            raise GrammarError(
                f"{key} at {document.path(schema)} has a value that it cannot have"
            ) from None
    _check(work.case)


def _check(case: Case) -> None:
    """Takes away the types of which no value is left. Raises Dead."""
    gone = set()
    if not case.forbidden.isdisjoint(case.required) or _crossed(
        (max(case.members[0], len(case.required)), case.members[1])
    ):
        gone.add("object")
    if _crossed(case.items):
        gone.add("array")
    if _crossed(case.lengths):
        gone.add("string")
    if case.low is not None and case.high is not None:
        open_ = case.low[1] or case.high[1]
        if case.low[0] > case.high[0] or (open_ and case.low[0] == case.high[0]):
            gone.add("number")
    if case.integer and case.fraction:
        gone.add("number")
    case.types -= gone
    if not case.types:
        raise Dead


def _crossed(bounds: tuple[int, int | None]) -> bool:
    return bounds[1] is not None and bounds[0] > bounds[1]


def _type(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    kinds = {wanted} if isinstance(wanted, str) else set(wanted)
    unknown = sorted(kinds - TYPES - {"integer"})
    if unknown:
        raise GrammarError(
            f"type at {context.document.path(schema)} is {unknown[0][:40]!r}, which is no type"
        )
    if "integer" in kinds and "number" not in kinds:
        work.case.integer = True
        kinds.add("number")
    work.case.types &= kinds


def _listed(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    if work.case.values is None:
        work.case.values = (
            tuple(wanted) if "enum" in schema and schema["enum"] is wanted else (wanted,)
        )


def _reference(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    target = context.document.target(schema)
    if target is None or context.is_circular(schema):
        context.note("$ref" if "$ref" in schema else "$dynamicRef", schema)
        raise Dead
    work.pending.append((context.document.number(target), scopes))


def _recursive(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    context.note("$recursiveRef", schema)
    raise Dead


def _all_of(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    work.pending += [(context.document.number(one), scopes) for one in list(wanted)]


def _any_of(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    work.choices += (tuple(((context.document.number(one), scopes),) for one in list(wanted)),)


def _one_of(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    document = context.document
    numbers = [document.number(one) for one in list(wanted)]
    against = [document.number(document.negation(one)) for one in wanted]
    work.choices += (
        tuple(
            ((number, scopes), *((one, ()) for n, one in enumerate(against) if n != place))
            for place, number in enumerate(numbers)
        ),
    )


def _not(context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes) -> None:
    work.refuted += (context.document.number(wanted),)


def _if(context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes) -> None:
    document = context.document
    then, other = schema.get("then", True), schema.get("else", True)
    work.choices += ((
        ((document.number(wanted), scopes), (document.number(then), scopes)),
        ((document.number(document.negation(wanted)), ()), (document.number(other), scopes)),
    ),)  # fmt: skip


def _dependent(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    document, case = context.document, work.case

    def made(one: dict[str, Any]) -> Item:
        return document.number(document.made(one, schema)), ()

    for name, needs in dict(wanted).items():
        needs = [needs] if isinstance(needs, str) else needs
        if isinstance(needs, list):
            if all(other in case.required for other in needs):
                continue
            there: tuple[Item, ...] = (made({"type": "object", "required": [name, *needs]}),)
        else:
            there = (
                made({"type": "object", "required": [name]}),
                (document.number(needs), scopes),
            )
        others = sorted(TYPES - {"object"})
        work.choices += ((
            there,
            (made({"type": "object", "properties": {name: False}}),),
            (made({"type": others}),),
        ),)  # fmt: skip


def _layer(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    document, case = context.document, work.case
    keys = ("properties", "patternProperties", "additionalProperties")
    if wanted is not next(schema[key] for key in keys if key in schema):
        return  # the first of them has taken in all
    named = {str(k): document.number(v) for k, v in schema.get("properties", {}).items()}
    patterns = {str(k): document.number(v) for k, v in schema.get("patternProperties", {}).items()}
    other = schema.get("additionalProperties")
    number = None if other is None else document.number(other)
    case.layers += (Layer(named, patterns, number, scopes, document.place(schema)),)
    case.forbidden |= {name for name, one in named.items() if one == 1}


def _required(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    if isinstance(wanted, bool):
        return  # draft 3
    more = [str(name) for name in list(wanted) if name not in work.case.required]
    work.case.required += tuple(dict.fromkeys(more))


def _names(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    work.case.names += (context.document.number(wanted),)


def _row(context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes) -> None:
    document, case = context.document, work.case
    items = schema.get("items")
    if wanted is not (schema.get("prefixItems", items)):
        return
    first: list[Schema] = list(schema.get("prefixItems", ()))
    if isinstance(items, list):
        first, items = items, schema.get("additionalItems")
    numbers = tuple(document.number(one) for one in first)
    case.rows += (Row(numbers, None if items is None else document.number(items), scopes),)


def _contains(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    least, most = schema.get("minContains", 1), schema.get("maxContains")
    found = (context.document.number(wanted), int(least), None if most is None else int(most))
    work.case.contains += (found,)


def _unevaluated(key: str) -> Taker:
    def take(
        context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
    ) -> None:
        document = context.document
        work.case.unevaluated += ((document.number(schema), key, document.number(wanted)),)

    return take


def _bound(field: str, *, is_least: bool) -> Taker:
    def take(
        context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
    ) -> None:
        least, most = getattr(work.case, field)
        size = int(wanted)
        if is_least:
            least = max(least, size if size == wanted else size + 1)
        else:
            most = size if most is None else min(most, size)
        setattr(work.case, field, (least, most))

    return take


def _limit(field: str, key: str, *, is_open: bool) -> Taker:
    sign = 1 if field == "low" else -1

    def take(
        context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
    ) -> None:
        if isinstance(wanted, bool):
            return  # draft 4: it says how to read the other
        opened = is_open or schema.get("exclusive" + key) is True
        before, now = getattr(work.case, field), (wanted + 0, opened)
        if before is None or (sign * now[0], now[1]) > (sign * before[0], before[1]):
            setattr(work.case, field, now)

    return take


def _one(field: str) -> Taker:
    def take(
        context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
    ) -> None:
        before: tuple[Any, ...] = getattr(work.case, field)
        if field != "multiples" and not isinstance(wanted, str):
            raise TypeError
        if wanted not in before:
            setattr(work.case, field, (*before, wanted))

    return take


def _unique(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    work.case.unique |= bool(wanted)


def _fraction(
    context: Context, work: Work, schema: dict[str, Any], wanted: Any, scopes: Scopes
) -> None:
    work.case.fraction = True


_TAKERS: dict[str, Taker] = {
    "type": _type, "enum": _listed, "const": _listed,
    "$ref": _reference, "$dynamicRef": _reference, "$recursiveRef": _recursive,
    "allOf": _all_of, "anyOf": _any_of, "oneOf": _one_of, "not": _not, "if": _if,
    "dependentRequired": _dependent, "dependentSchemas": _dependent, "dependencies": _dependent,
    "properties": _layer, "patternProperties": _layer, "additionalProperties": _layer,
    "required": _required, "propertyNames": _names,
    "items": _row, "prefixItems": _row, "contains": _contains, "uniqueItems": _unique,
    "unevaluatedProperties": _unevaluated("unevaluatedProperties"),
    "unevaluatedItems": _unevaluated("unevaluatedItems"),
    "minItems": _bound("items", is_least=True), "maxItems": _bound("items", is_least=False),
    "minLength": _bound("lengths", is_least=True), "maxLength": _bound("lengths", is_least=False),
    "minProperties": _bound("members", is_least=True),
    "maxProperties": _bound("members", is_least=False),
    "minimum": _limit("low", "Minimum", is_open=False),
    "maximum": _limit("high", "Maximum", is_open=False),
    "exclusiveMinimum": _limit("low", "Minimum", is_open=True),
    "exclusiveMaximum": _limit("high", "Maximum", is_open=True),
    "multipleOf": _one("multiples"), "pattern": _one("patterns"), "format": _one("formats"),
    "\0excluded": _one("excluded"), "\0fraction": _fraction,
}  # fmt: skip
