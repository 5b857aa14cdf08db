"""JSON schemas before a grammar engine sees them: bounds, dead ends, and the options of a request.

What a keyword means, and which are supported, is the engine's matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.syntax import check_regex

MAX_DEPTH = 64
MAX_COUNT = 1_000_000
"""Most that a bound of length or of number may say, least or most; no context holds more."""
MAX_VALUES = 10_000
"""Values in one enum; a mask would go through all of them."""

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_DATA = ("enum", "const", "default", "examples", "required", "type")
_COUNTS = (
    "minLength", "minItems", "minProperties", "maxLength", "maxItems", "maxProperties", "minContains",
    "maxContains",
)  # fmt: skip
_CONTROL = re.compile(r"\\u00[01][0-9a-f]|\\u007f")


def read_schema(text: str) -> Any:
    """The schema, an object or a truth value.

    Raises GrammarError for text that is none, is beyond MAX_DEPTH, MAX_COUNT or MAX_VALUES, has a regex
    that is too complex, or describes only documents that never end.
    """
    try:
        schema = json.loads(text)
    except RecursionError:
        raise GrammarError(f"the schema nests deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise GrammarError(f"the schema is not valid JSON: {error}") from None
    if not isinstance(schema, (dict, bool)):
        raise GrammarError("the schema must be a JSON object")
    _check_values(schema, 0)
    if not _Ends(schema).can_end(schema):
        raise GrammarError(
            "the schema allows only documents that never end; give its recursion a way out"
        )
    return schema


def has_controls(schema: Any) -> bool:
    """Whether a string of the schema holds a control character, which JSON spells only as an escape."""
    return _CONTROL.search(json.dumps(schema)) is not None


def closed(schema: Any) -> Any:
    """The schema with additionalProperties false in every object schema that lists properties."""

    def close(one: dict[str, Any]) -> dict[str, Any]:
        if isinstance(one.get("properties"), dict) and "additionalProperties" not in one:
            return one | {"additionalProperties": False}
        return one

    return _changed(schema, close)


def counts_members(schema: Any) -> bool:
    """Whether a schema in it asks for more than one member of an object, so that names must differ."""
    found = False

    def look(one: dict[str, Any]) -> dict[str, Any]:
        nonlocal found
        least = one.get("minProperties", 0)
        found = found or (isinstance(least, (int, float)) and least > 1)
        return one

    _changed(schema, look)
    return found


def without_idle_keywords(schema: Any, formats: frozenset[str]) -> Any:
    """The schema without what asks for nothing: formats not in `formats`, which are then mere notes as
    JSON schema says, and uniqueItems false. Counts like 2.0 become whole numbers."""

    def strip(one: dict[str, Any]) -> dict[str, Any]:
        idle = {"uniqueItems"} if one.get("uniqueItems") is False else set()
        name = one.get("format")
        if isinstance(name, str) and name not in formats:
            idle.add("format")
        return {key: _whole(key, value) for key, value in one.items() if key not in idle}

    return _changed(schema, strip)


def _whole(key: str, value: Any) -> Any:
    return (
        int(value) if key in _COUNTS and isinstance(value, float) and value.is_integer() else value
    )


def _changed(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The schema with each schema in it, itself too, changed."""
    if isinstance(schema, list):
        return [_changed(one, change) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in change(schema).items():
        if key in _MAPS and isinstance(value, dict):
            made[key] = {name: _changed(one, change) for name, one in value.items()}
        else:
            made[key] = value if key in _DATA else _changed(value, change)
    return made


def _check_values(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise GrammarError(f"the schema nests deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key in _COUNTS:
            count = value.get(key)
            if isinstance(count, (int, float)) and count > MAX_COUNT:
                raise GrammarError(f"{key} is {count}; the limit is {MAX_COUNT}; leave it out")
        values = value.get("enum")
        if isinstance(values, list) and len(values) > MAX_VALUES:
            raise GrammarError(
                f"the schema is too complex: enum has {len(values)} values; the limit is {MAX_VALUES}"
            )
        if isinstance(value.get("pattern"), str):
            check_regex(value["pattern"])
        for one in value.values():
            _check_values(one, depth + 1)
    elif isinstance(value, list):
        for one in value:
            _check_values(one, depth + 1)


class _Ends:
    """Finds out whether a schema has a finite document, following only what a document must have.

    A schema that is being looked at further up has none by that way. Unknown keywords are passed
    over, so the answer errs on the side of True.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._open: set[int] = set()
        self._ended: set[int] = set()
        self._steps = 0

    def can_end(self, schema: Any) -> bool:
        if not isinstance(schema, dict) or id(schema) in self._ended:
            return True
        if id(schema) in self._open:
            return False
        self._steps += 1
        if self._steps > 20_000:
            return True
        self._open.add(id(schema))
        ends = self._all_ends(schema)
        self._open.discard(id(schema))
        if ends:
            self._ended.add(id(schema))
        return ends

    def _all_ends(self, schema: dict[str, Any]) -> bool:
        if "const" in schema or "enum" in schema:
            return True
        reference = schema.get("$ref")
        if isinstance(reference, str) and not self.can_end(self._target(reference)):
            return False
        for key in ("anyOf", "oneOf"):
            some = schema.get(key)
            if isinstance(some, list) and some and not any(self.can_end(one) for one in some):
                return False
        every = schema.get("allOf")
        if isinstance(every, list) and not all(self.can_end(one) for one in every):
            return False
        kinds = schema.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else None
        if kinds is not None and any(kind not in ("object", "array") for kind in kinds):
            return True
        if kinds == ["object"]:
            return self._object_ends(schema)
        return self._array_ends(schema) if kinds == ["array"] else True

    def _object_ends(self, schema: dict[str, Any]) -> bool:
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(properties, dict) or not isinstance(required, list):
            return True
        return all(self.can_end(properties.get(name)) for name in required if isinstance(name, str))

    def _array_ends(self, schema: dict[str, Any]) -> bool:
        least = schema.get("minItems")
        if not isinstance(least, (int, float)) or least < 1 or "prefixItems" in schema:
            return True
        return self.can_end(schema.get("items"))

    def _target(self, reference: str) -> Any:
        """What a reference into the document itself means; None for any other."""
        if not reference.startswith("#") or reference[1:2] not in ("", "/"):
            return None
        found = self._root
        for part in reference[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or part not in found:
                return None
            found = found[part]
        return found
