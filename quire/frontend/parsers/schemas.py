"""Arguments that a model writes as plain text, made JSON by the types that the tool declares.

Nothing is evaluated: a text that does not fit its type becomes a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from quire.frontend.parsers.literals import read_whole

STRING = frozenset({"string"})

_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,3})?")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MAX_DEPTH = 8
_KINDS = {
    "str": "string", "text": "string", "varchar": "string", "char": "string", "enum": "string",
    "int": "integer", "long": "integer", "float": "number", "double": "number", "bool": "boolean",
    "dict": "object", "list": "array", "arr": "array", "none": "null",
}  # fmt: skip


class ToolSchemas:
    """The declared types of every argument of every tool of a request."""

    def __init__(self, tools: Iterable[Mapping[str, Any]] | None) -> None:
        self._properties: dict[str, Mapping[str, Any]] = {}
        for tool in tools or ():
            function = tool.get("function", tool)
            if not isinstance(function, Mapping):
                continue
            schema = function.get("parameters")
            properties = schema.get("properties") if isinstance(schema, Mapping) else None
            name = function.get("name")
            if isinstance(name, str) and isinstance(properties, Mapping):
                self._properties[name] = properties

    def kinds(self, tool: str, argument: str) -> frozenset[str]:
        """The JSON types that an argument may have; string if nothing is declared."""
        schema = self._properties.get(tool, {}).get(argument)
        return frozenset(_kinds_of(schema, 0)) or STRING


def _kinds_of(schema: Any, depth: int) -> Iterable[str]:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return
    declared = schema.get("type")
    listed = declared if isinstance(declared, list) else [declared]
    for kind in listed:
        if isinstance(kind, str):
            yield _KINDS.get(kind.lower(), kind.lower())
    for part in ("anyOf", "oneOf", "allOf"):
        inner = schema.get(part)
        for one in inner if isinstance(inner, list) else ():
            yield from _kinds_of(one, depth + 1)
    if declared is None:
        values = schema.get("enum")
        values = values if isinstance(values, list) else []
        for value in [*values, *([schema["const"]] if "const" in schema else [])]:
            yield _kind_of_value(value)


def _kind_of_value(value: Any) -> str:
    if value is None:
        return "null"
    for kind, type_ in (("boolean", bool), ("integer", int), ("number", float), ("array", list)):
        if isinstance(value, type_):
            return kind
    return "object" if isinstance(value, dict) else "string"


def as_json(text: str, kinds: frozenset[str]) -> str:
    """The JSON text of an argument that a model wrote as `text`."""
    plain = text.strip()
    if "null" in kinds and plain in ("null", "None"):
        return "null"
    if "boolean" in kinds and plain.lower() in ("true", "false"):
        return plain.lower()
    number = _number(plain, kinds)
    if number is not None:
        return number
    if ("object" in kinds and plain[:1] == "{") or ("array" in kinds and plain[:1] == "["):
        found = _structure(plain)
        if found is not None:
            return found
    return quoted(text)


def quoted(text: str) -> str:
    """A JSON string; text that is not ASCII stays as it is."""
    return json.dumps(text, ensure_ascii=False)


def _number(plain: str, kinds: frozenset[str]) -> str | None:
    if kinds.isdisjoint(("integer", "number")):
        return None
    if _INTEGER.fullmatch(plain):
        return plain if _JSON_NUMBER.fullmatch(plain) else str(int(plain))
    if "number" in kinds and _NUMBER.fullmatch(plain):
        if _JSON_NUMBER.fullmatch(plain):
            return plain
        value = float(plain)
        return None if value in (float("inf"), float("-inf")) else repr(value)
    return None


def _structure(plain: str) -> str | None:
    """The text itself if it is JSON, JSON made of it if it is a literal of Python, else None."""
    try:
        json.loads(plain, parse_constant=_refused, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return read_whole(plain)
    return plain


def _refused(name: str) -> None:
    raise ValueError(name)
