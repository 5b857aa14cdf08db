"""What may be asked of the schemas of one document without taking them apart."""

from __future__ import annotations

from typing import Any

from quire.engine.grammar.schemas.cases import TYPES
from quire.engine.grammar.schemas.document import Document, Schema, type_of
from quire.engine.grammar.schemas.holds import Checker, every


class Context:
    """A document with what was found out about it.

    notes  (keyword, path) of what could not be said and was left out, in the order it was met.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.checker = Checker(document)
        self.notes: list[tuple[str, str]] = []
        self._circular: dict[int, bool] = {}
        self._types: dict[int, frozenset[str]] = {}
        self._values: dict[frozenset[int], tuple[Any, ...] | None] = {}

    def note(self, keyword: str, schema: Any) -> None:
        """Remembers what had to be left out."""
        self.notes.append((keyword, self.document.path(schema)))

    def is_circular(self, schema: dict[str, Any]) -> bool:
        """Whether the reference of a schema leads back to itself without going into a value."""
        number = self.document.number(schema)
        if number not in self._circular:
            self._circular[number] = False
            target = self.document.target(schema)
            waiting: list[Any] = [target]
            seen = {id(target)}
            for one in waiting:
                if one is schema:
                    self._circular[number] = True
                    break
                more = [inner for inner in self._beside(one) if id(inner) not in seen]
                seen.update(map(id, more))
                waiting += more
        return self._circular[number]

    def _beside(self, schema: Any) -> list[Any]:
        """The schemas in a schema that speak of the same value."""
        if not isinstance(schema, dict):
            return []
        found = (
            [self.document.target(schema)] if "$ref" in schema or "$dynamicRef" in schema else []
        )
        for key in ("allOf", "anyOf", "oneOf"):
            found += schema[key] if isinstance(schema.get(key), list) else []
        found += [schema[key] for key in ("not", "if", "then", "else") if key in schema]
        for key in ("dependentSchemas", "dependencies"):
            found += schema[key].values() if isinstance(schema.get(key), dict) else []
        return found

    def types(self, number: int, depth: int = 0) -> frozenset[str]:
        """The types that values of a schema may have; all where that takes a closer look."""
        found = self._types.get(number)
        if found is None:
            schema = self.document.schema(number)
            if isinstance(schema, bool):
                return TYPES if schema else frozenset()
            if depth > 12:
                return TYPES
            found = self._types_of(schema, depth)
            if depth == 0:
                self._types[number] = found
        return found

    def _types_of(self, schema: dict[str, Any], depth: int) -> frozenset[str]:
        found = TYPES
        target = self.document.target(schema) if "$ref" in schema else None
        if target is not None:
            found = self.types(self.document.number(target), depth + 1)
            if self.document.legacy:
                return found
        kinds = schema.get("type")
        if kinds is not None:
            listed = [kinds] if isinstance(kinds, str) else kinds
            found &= {"number" if kind == "integer" else str(kind) for kind in listed}
        if "const" in schema:
            found &= {type_of(schema["const"])}
        if isinstance(schema.get("enum"), list):
            found &= {type_of(value) for value in schema["enum"]}
        for key in ("allOf", "anyOf", "oneOf"):
            some = schema.get(key)
            if isinstance(some, list):
                ours = [self.types(self.document.number(one), depth + 1) for one in some]
                for kinds in ours if key == "allOf" else [frozenset().union(*ours)]:
                    found &= kinds
        return found

    def values(self, wanted: frozenset[int]) -> tuple[Any, ...] | None:
        """The values that keep to every schema, where one of them lists them; None where none does."""
        if wanted not in self._values:
            self._values[wanted] = None
            schemas = [self.document.schema(one) for one in wanted]
            for schema in schemas:
                listed = self._listed(schema, 0)
                if listed is not None:
                    self._values[wanted] = tuple(
                        v for v in listed if every(self.checker.holds(s, v) for s in schemas)
                    )
                    break
        return self._values[wanted]

    def _listed(self, schema: Schema, depth: int) -> list[Any] | None:
        if isinstance(schema, bool) or depth > 8:
            return None
        target = self.document.target(schema) if "$ref" in schema else None
        if target is not None and (found := self._listed(target, depth + 1)) is not None:
            return found
        if "const" in schema:
            return [schema["const"]]
        if isinstance(schema.get("enum"), list):
            return list(schema["enum"])
        for one in schema.get("allOf") or ():
            if (found := self._listed(one, depth + 1)) is not None:
                return found
        return None
