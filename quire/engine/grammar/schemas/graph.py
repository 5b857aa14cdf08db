"""A schema narrowed to what llguidance can follow: written anew as plain alternatives that refer to each other.

Every document that the new schema allows is allowed by the old one. What cannot be kept at all is refused, with
the keyword and its place.
"""

from __future__ import annotations

from typing import Any

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.schemas.arrays import array_shapes
from quire.engine.grammar.schemas.cases import Case
from quire.engine.grammar.schemas.context import Context
from quire.engine.grammar.schemas.document import Document, Schema
from quire.engine.grammar.schemas.expand import Expander
from quire.engine.grammar.schemas.objects import Objects
from quire.engine.grammar.schemas.parts import NEVER, Shape, Wanted, all_of
from quire.engine.grammar.schemas.scalars import number_shapes, string_shapes

MAX_NODES = 6_000
"""Sets of schemas that stand for values somewhere in a document."""
_SIMPLE = ("null", "boolean")


def narrowed(schema: Schema, formats: frozenset[str]) -> Schema:
    """The schema written anew. formats: those that are followed; others are notes.

    Raises GrammarError where nothing is left, or it is too complex.
    """
    return _Graph(schema, formats).written()


class _Graph:
    def __init__(self, root: Schema, formats: frozenset[str]) -> None:
        self._context = Context(Document(root))
        self._expander = Expander(self._context)
        self._objects = Objects(self._context, self._expander)
        self._formats = formats
        self._root = all_of({self._context.document.number(root)})
        self._nodes: dict[Wanted, list[Shape]] = {}

    def written(self) -> Schema:
        waiting = [self._root]
        for wanted in waiting:
            if wanted in self._nodes or wanted == NEVER:
                continue
            if len(self._nodes) >= MAX_NODES:
                raise GrammarError(
                    f"the schema is too complex: it describes more than {MAX_NODES} kinds of values; "
                    "simplify it"
                )
            self._nodes[wanted] = shapes = self._shapes(wanted)
            waiting += [hole for shape in shapes for hole in shape.holes]
        alive = self._alive()
        if self._root not in alive:
            raise GrammarError(self._reason())
        return _Writer(self._nodes, alive).whole(self._root)

    def _reason(self) -> str:
        """Why nothing is left."""
        notes = self._context.notes
        if not notes:
            return "the schema allows no document at all"
        keyword, path = notes[0]
        return (
            f"the keyword {keyword} at {path} is not supported there, and without it the schema allows no "
            "document; leave it out or say it in another way"
        )

    def _shapes(self, wanted: Wanted) -> list[Shape]:
        if not wanted:
            return [Shape({})]
        found: list[Shape] = []
        seen: set[str] = set()
        for case in self._expander.cases(wanted):
            for shape in self._of(case):
                key = repr(shape)
                if key not in seen:
                    seen.add(key)
                    found.append(shape)
        return found

    def _of(self, case: Case) -> list[Shape]:
        """The shapes of a case."""
        if case.values is not None:
            return [Shape({"enum": list(case.values)})]
        kinds = [kind for kind in _SIMPLE if kind in case.types]
        found = [Shape({"type": kinds})] if kinds else []
        if "number" in case.types:
            found += number_shapes(case)
        if "string" in case.types:
            try:
                found += string_shapes(case, self._formats)
            except GrammarError:
                self._context.note("pattern", self._context.document.root)
        if "array" in case.types:
            found += array_shapes(self._context, case)
        if "object" in case.types:
            found += self._objects.shapes(case)
        return found

    def _alive(self) -> set[Wanted]:
        """The nodes that have a value of finite size. Drops shapes that have none."""
        alive: set[Wanted] = set()
        while True:
            more = {
                wanted
                for wanted, shapes in self._nodes.items()
                if wanted not in alive
                and any(all(one in alive for one in shape.needed) for shape in shapes)
            }
            if not more:
                break
            alive |= more
        for wanted in alive:
            shapes = self._nodes[wanted]
            self._nodes[wanted] = [s for s in shapes if all(one in alive for one in s.needed)]
        return alive


class _Writer:
    """Writes nodes as definitions."""

    def __init__(self, nodes: dict[Wanted, list[Shape]], alive: set[Wanted]) -> None:
        self._nodes = nodes
        self._alive = alive
        self._names: dict[Wanted, str] = {}

    def whole(self, root: Wanted) -> dict[str, Any]:
        definitions: dict[str, Any] = {}
        made = self._value(root)
        assert isinstance(made, dict)
        while len(definitions) < len(self._names):
            for wanted, name in list(self._names.items()):
                if name not in definitions:
                    definitions[name] = self._body(wanted)
        return {**made, "$defs": definitions} if definitions else made

    def _value(self, wanted: Wanted) -> Schema:
        if wanted not in self._alive:
            return False
        if not wanted:
            return {}
        shapes = self._nodes[wanted]
        if len(shapes) == 1 and not shapes[0].holes:
            return self._shape(shapes[0])
        name = self._names.setdefault(wanted, f"v{len(self._names)}")
        return {"$ref": f"#/$defs/{name}"}

    def _body(self, wanted: Wanted) -> dict[str, Any]:
        ways = [self._shape(shape) for shape in self._nodes[wanted]]
        return ways[0] if len(ways) == 1 else {"anyOf": ways}

    def _shape(self, shape: Shape) -> dict[str, Any]:
        made = dict(shape.plain)
        kind = made.get("type")
        if kind == "object":
            other = False if shape.other is None else self._value(shape.other)
            patterned = {regex: self._value(one) for regex, one in shape.patterned}
            named = {name: self._value(one) for name, one in shape.named.items()}
            if other is False and not patterned:
                named = {name: one for name, one in named.items() if one is not False}
            made |= {"properties": named} if named else {}
            made |= {"patternProperties": patterned} if patterned else {}
            made |= {"required": list(shape.required)} if shape.required else {}
            made |= {} if other == {} else {"additionalProperties": other}
        elif kind == "array" and "prefixItems" not in made:
            first = [self._value(one) for one in shape.first]
            other = False if shape.other is None else self._value(shape.other)
            made |= {"prefixItems": first} if first else {}
            made |= {} if other == {} else {"items": other}
        return made
