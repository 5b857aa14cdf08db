"""The schemas of one document: a number for each, its place, and what a reference in it means.

What keywords ask for is `holds` (of a value) and `cases` (of all values).
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

_DATA = frozenset(("enum", "const", "default", "examples"))
_MAPS = frozenset((
    "properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies",
))  # fmt: skip
_SCHEMAS = frozenset((
    "additionalProperties", "unevaluatedProperties", "propertyNames", "items", "prefixItems", "additionalItems",
    "unevaluatedItems", "contains", "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
))  # fmt: skip
_LEGACY = ("draft-03", "draft-04", "draft-06", "draft-07")

Schema = dict[str, Any] | bool


class Document:
    """Numbers are stable: what is made of the same schemas in the same order is the same.

    legacy  it is of draft 7 or before, where $ref stands alone and items may be a list.
    """

    def __init__(self, root: Schema) -> None:
        self.root = root
        kind = root.get("$schema") if isinstance(root, dict) else None
        self.legacy = isinstance(kind, str) and any(draft in kind for draft in _LEGACY)
        self._schemas: list[Schema] = [True, False]
        self._numbers: dict[int, int] = {}
        self._paths: dict[int, str] = {}
        self._bases: dict[int, str] = {}
        self._places: dict[int, int] = {}
        self._resources: dict[str, Any] = {"": root}
        self._anchors: dict[tuple[str, str], Any] = {}
        self._dynamic: dict[str, int] = {}
        self._made: dict[str, Schema] = {}
        self._targets: dict[int, Schema | None] = {}
        self._visit(root, "#", "")

    def number(self, schema: Schema) -> int:
        """What stands for a schema in sets: 0 is true, 1 is false."""
        if isinstance(schema, bool):
            return 0 if schema else 1
        found = self._numbers.get(id(schema))
        if found is None:
            found = self._numbers[id(schema)] = len(self._schemas)
            self._schemas.append(schema)
        return found

    def schema(self, number: int) -> Schema:
        """The schema of a number."""
        return self._schemas[number]

    def path(self, schema: Any) -> str:
        """Where a schema stands, as a JSON pointer; that of the nearest one for what was made."""
        return self._paths.get(id(schema), "#")

    def place(self, schema: Any) -> int:
        """How many schemas stand before it in the document."""
        return self._places.get(id(schema), 0)

    def made(self, schema: dict[str, Any], near: Any, *parts: Schema) -> dict[str, Any]:
        """A schema that is not in the document; the same one each time it is asked for.

        near   the schema of the document that it was made for.
        parts  the schemas inside it that are told apart by their place, not by their text.
        """
        key = json.dumps(self._signed(schema, parts), sort_keys=True)
        found = self._made.setdefault(key, schema)
        assert isinstance(found, dict)
        self._paths.setdefault(id(found), self.path(near))
        self._places.setdefault(id(found), self.place(near))
        self._bases.setdefault(id(found), self._bases.get(id(near), ""))
        return found

    def _signed(self, value: Any, parts: tuple[Schema, ...]) -> Any:
        """A value in which the parts are only named."""
        if isinstance(value, dict):
            if any(value is one for one in parts):
                return f"@{self.number(value)}"
            return {key: self._signed(one, parts) for key, one in value.items()}
        return [self._signed(one, parts) for one in value] if isinstance(value, list) else value

    def negation(self, schema: Schema) -> Schema:
        """The schema of all other values."""
        if isinstance(schema, bool):
            return not schema
        if set(schema) == {"not"} and isinstance(schema["not"], (dict, bool)):
            inner: Schema = schema["not"]
            return inner
        key = f"not {self.number(schema)}"
        found = self._made.setdefault(key, {"not": schema})
        self._paths.setdefault(id(found), self.path(schema))
        return found

    def target(self, schema: dict[str, Any]) -> Schema | None:
        """What the $ref or $dynamicRef of a schema means; None if it is not in the document."""
        if id(schema) not in self._targets:
            self._targets[id(schema)] = self._find(schema)
            self.number(schema)  # kept alive, so that its id stays its own
        return self._targets[id(schema)]

    def _find(self, schema: dict[str, Any]) -> Schema | None:
        key = "$ref" if "$ref" in schema else "$dynamicRef"
        text = schema[key]
        if not isinstance(text, str):
            return None
        base, fragment = urldefrag(urljoin(self._bases.get(id(schema), ""), text))
        if text.startswith("#"):
            base = self._bases.get(id(schema), "")
        if key == "$dynamicRef" and self._dynamic.get(fragment, 0) > 1:
            return None  # it depends on the way that led here
        root = self._resources.get(base)
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            root = self._anchors.get((base, fragment))
        elif fragment:
            root = _pointed(root, fragment)
        return root if isinstance(root, (dict, bool)) else None

    def _visit(self, value: Any, path: str, base: str, *, is_schema: bool = True) -> None:
        """Notes the place of all that may be pointed at; names count in schemas only."""
        if isinstance(value, list):
            for number, one in enumerate(value):
                self._visit(one, f"{path}/{number}", base, is_schema=is_schema)
        if not isinstance(value, dict):
            return
        if is_schema:
            base = self._named(value, base)
        self._paths[id(value)] = path
        self._places[id(value)] = len(self._places)
        self._bases[id(value)] = base
        for key, one in value.items():
            place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if is_schema and key in _MAPS and isinstance(one, dict):
                self._paths[id(one)] = place
                for name, inner in one.items():
                    self._visit(
                        inner, f"{place}/{name.replace('~', '~0').replace('/', '~1')}", base
                    )
            elif not is_schema or key not in _DATA:
                self._visit(one, place, base, is_schema=is_schema and key in _SCHEMAS)

    def _named(self, schema: dict[str, Any], base: str) -> str:
        """Notes the names of a schema; the base of what is in it."""
        name = schema.get("$id", schema.get("id"))
        if isinstance(name, str) and not (self.legacy and "$ref" in schema):
            base, anchor = urldefrag(urljoin(base, name))
            if anchor:
                self._anchors.setdefault((base, anchor), schema)
            if not name.startswith("#"):
                self._resources.setdefault(base, schema)
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(key), str):
                self._anchors.setdefault((base, schema[key]), schema)
        dynamic = schema.get("$dynamicAnchor")
        if isinstance(dynamic, str):
            self._dynamic[dynamic] = self._dynamic.get(dynamic, 0) + 1
        return base


def _pointed(found: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and part in found:
            found = found[part]
        elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return None
    return found


def key_of(value: Any) -> str:
    """A text that two JSON values share exactly if JSON schema takes them for equal."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value


def type_of(value: Any) -> str:
    """The JSON type of a value: null, boolean, number, string, array or object."""
    if value is None:
        return "null"
    for kind, name in (
        (bool, "boolean"),
        ((int, float), "number"),
        (str, "string"),
        (list, "array"),
    ):
        if isinstance(value, kind):
            return name
    return "object"
