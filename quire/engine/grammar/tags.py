"""Structural tags as a Lark grammar: free text in which marked parts follow a schema, regex or grammar.

Reads the tree form (`format`) and the older one (`structures` and `triggers`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llguidance import regex_to_lark

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.syntax import quoted

_TEXT = r"/(.|\n)*/"
_MAX_PARTS = 2_000
_MAX_REPEATS = 1_000


@dataclass(frozen=True, kw_only=True)
class Lark:
    """What a tag grammar is made with.

    marks    texts such as <tool_call> that are one token of the vocabulary, with what a grammar calls it.
    schema   a schema's checked text; regex and grammar: the same for those. They raise GrammarError.
    """

    marks: dict[str, str]
    schema: Callable[[Any], str]
    regex: Callable[[str], str]
    grammar: Callable[[str], str]


def tag_grammar(text: str, lark: Lark) -> str:
    """The grammar of a structural tag, as llguidance takes it. Raises GrammarError."""
    try:
        tag = json.loads(text)
    except ValueError as error:
        raise GrammarError(f"the structural tag is not valid JSON: {error}") from None
    if not isinstance(tag, dict):
        raise GrammarError("the structural tag must be a JSON object")
    return _Writer(lark).whole(tag["format"] if "format" in tag else _from_structures(tag))


def _from_structures(tag: dict[str, Any]) -> dict[str, Any]:
    """The older form in the words of the newer."""
    structures, triggers = tag.get("structures"), tag.get("triggers")
    if not isinstance(structures, list) or not isinstance(triggers, list):
        raise GrammarError("the structural tag has neither format nor structures with triggers")
    tags = []
    for one in structures:
        if not isinstance(one, dict):
            raise GrammarError("a structure of the structural tag must be an object")
        content = {"type": "json_schema", "json_schema": one.get("schema", {})}
        tags.append(one | {"type": "tag", "content": content})
    return {"type": "triggered_tags", "triggers": triggers, "tags": tags}


class _Writer:
    """Collects the rules of one grammar. Each method returns an expression for its format."""

    def __init__(self, lark: Lark) -> None:
        self._lark = lark
        self._rules: list[str] = []
        self._others: list[dict[str, str]] = []
        self._writers: dict[str, Callable[[dict[str, Any]], str]] = {
            "const_string": lambda one: self._literal(_text(one, "value")),
            "json_schema": self._schema,
            "regex": self._regex,
            "grammar": self._grammar,
            "any_text": self._any_text,
            "sequence": self._sequence,
            "or": lambda one: self._either([self.write(e) for e in _list(one, "elements")]),
            "tag": self._tag,
            "triggered_tags": self._triggered,
            "tags_with_separator": self._separated,
            "optional": lambda one: f"({self.write(one.get('content'))})?",
            "star": lambda one: f"({self.write(one.get('content'))})*",
            "plus": lambda one: f"({self.write(one.get('content'))})+",
            "repeat": self._repeat,
        }

    def whole(self, tree: Any) -> str:
        start = self.write(tree)
        rules = [f"start: {start}", *self._rules]
        main = {"name": "tags", "lark_grammar": "%llguidance {}\n" + "\n".join(rules) + "\n"}
        return json.dumps({"grammars": [main, *self._others]})

    def write(self, tree: Any) -> str:
        if not isinstance(tree, dict) or tree.get("type") not in self._writers:
            kind = tree.get("type") if isinstance(tree, dict) else tree
            raise GrammarError(
                f"the structural tag has the format {str(kind)[:40]!r}; known are "
                + ", ".join(self._writers)
            )
        if len(self._rules) > _MAX_PARTS:
            raise GrammarError(f"the structural tag has more than {_MAX_PARTS} parts")
        return self._rule(self._writers[tree["type"]](tree))

    def _rule(self, expression: str, attributes: str = "") -> str:
        name = f"part{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {expression}")
        return name

    def _literal(self, text: str) -> str:
        """A text whose marks are single tokens."""
        return " ".join(mark or quoted(plain) for plain, mark in self._pieces(text)) or '""'

    def _pieces(self, text: str) -> list[tuple[str, str]]:
        """(text, "") and ("", mark) in order."""
        pieces: list[tuple[str, str]] = []
        while text:
            found = [
                (text.find(mark), -len(mark), mark) for mark in self._lark.marks if mark in text
            ]
            if not found:
                return [*pieces, (text, "")]
            at, _, mark = min(found)
            if at:
                pieces.append((text[:at], ""))
            pieces.append(("", self._lark.marks[mark]))
            text = text[at + len(mark) :]
        return pieces

    def _until(self, ends: list[str]) -> str:
        """Free text up to and with one of several literals."""
        ways = []
        for end in ends:
            pieces = self._pieces(end)
            at = next((place for place, piece in enumerate(pieces) if piece[1]), None)
            if at is None:
                ways.append(self._rule(f"{_TEXT} {quoted(end)}", "[lazy]") if end else self._free())
            else:  # text before a mark is part of the free text
                rest = " ".join(mark or quoted(plain) for plain, mark in pieces[at:])
                ways.append(f"{self._free()} {rest}")
        return self._either(ways)

    def _free(self) -> str:
        return f"({self._rule(_TEXT)})?"

    def _either(self, ways: list[str]) -> str:
        if not ways:
            raise GrammarError("the structural tag has a list without an entry")
        return "(" + " | ".join(ways) + ")"

    def _schema(self, tree: dict[str, Any]) -> str:
        if tree.get("style", "json") != "json":
            raise GrammarError("the structural tag has a json_schema of a style that is not served")
        return "%json " + self._lark.schema(tree.get("json_schema", {}))

    def _regex(self, tree: dict[str, Any]) -> str:
        pattern = regex_to_lark(self._lark.regex(_text(tree, "pattern")), "")
        return "/" + pattern.replace("\n", "\\n") + "/"

    def _grammar(self, tree: dict[str, Any]) -> str:
        name = f"other{len(self._others)}"
        self._others.append(
            {"name": name, "lark_grammar": self._lark.grammar(_text(tree, "grammar"))}
        )
        return "@" + name

    def _any_text(self, tree: dict[str, Any]) -> str:
        if tree.get("excludes"):
            raise GrammarError("any_text with excludes is not served; leave excludes out")
        return self._free()

    def _sequence(self, tree: dict[str, Any]) -> str:
        parts: list[str] = []
        elements = _list(tree, "elements")
        place = 0
        while place < len(elements):
            one = elements[place]
            last = place + 1 == len(elements)
            place += 1
            if not isinstance(one, dict) or one.get("type") != "any_text" or last:
                parts.append(self.write(one))
                continue
            after = elements[place]
            if not isinstance(after, dict) or after.get("type") != "const_string":
                raise GrammarError(
                    "any_text must be the last of a sequence or stand before a const_string"
                )
            parts.append(self._until([_text(after, "value")]))
            place += 1
        return " ".join(parts) or '""'

    def _tag(self, tree: dict[str, Any], skipped: str = "") -> str:
        """begin, content, end; `skipped` is what of begin stands already."""
        begin = _text(tree, "begin")[len(skipped) :]
        ends = tree.get("end", "")
        ends = ends if isinstance(ends, list) else [ends]
        if not all(isinstance(end, str) for end in ends):
            raise GrammarError("the end of a tag must be a string or a list of strings")
        content = tree.get("content")
        if isinstance(content, dict) and content.get("type") == "any_text":
            self._any_text(content)
            return f"{self._literal(begin)} {self._until(ends)}"
        closing = self._either([self._literal(end) for end in ends])
        return f"{self._literal(begin)} {self.write(content)} {closing}"

    def _triggered(self, tree: dict[str, Any]) -> str:
        triggers = _strings(tree, "triggers")
        left = _list(tree, "tags")
        groups: list[str] = []
        begins: list[str] = []
        for trigger in triggers:
            mine = [one for one in left if _text(one, "begin").startswith(trigger)]
            if mine:
                rests = [self._rule(self._tag(one, trigger)) for one in mine]
                groups.append(self._rule(f"{self._until([trigger])} {self._either(rests)}"))
                begins += [self._rule(self._tag(one)) for one in mine]
            left = [one for one in left if one not in mine]
        if left:
            raise GrammarError(f"no trigger begins the tag {_text(left[0], 'begin')[:40]!r}")
        first = self._either(begins) if tree.get("at_least_one") else None  # a tag at once
        some = self._either(groups)
        if tree.get("stop_after_first"):
            return first or f"({some} | {self._free()})"
        return f"{first or ''} {some}* {self._free()}"

    def _separated(self, tree: dict[str, Any]) -> str:
        tag = self._either([self.write(one) for one in _list(tree, "tags")])
        more = (
            ""
            if tree.get("stop_after_first")
            else (f"({self._literal(_text(tree, 'separator'))} {tag})*")
        )
        return f"({tag} {more}){'' if tree.get('at_least_one') else '?'}"

    def _repeat(self, tree: dict[str, Any]) -> str:
        least, most = tree.get("min", 0), tree.get("max", -1)
        most = -1 if most is None else most
        if not isinstance(least, int) or not isinstance(most, int) or least < 0:
            raise GrammarError("min and max of a repeat must be numbers of at least 0")
        if max(least, most) > _MAX_REPEATS:
            raise GrammarError(
                f"a repeat of {max(least, most)} is too complex; the limit is {_MAX_REPEATS}"
            )
        bounds = f"{{{least},{most if most >= 0 else ''}}}"
        return f"({self.write(tree.get('content'))}){bounds}"


def _text(tree: Any, name: str) -> str:
    value = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(value, str):
        raise GrammarError(f"the structural tag has a part whose {name} is not a string")
    return value


def _list(tree: dict[str, Any], name: str) -> list[Any]:
    value = tree.get(name)
    if not isinstance(value, list):
        raise GrammarError(f"the structural tag has a part whose {name} is not a list")
    return value


def _strings(tree: dict[str, Any], name: str) -> list[str]:
    values = _list(tree, name)
    if not values or not all(isinstance(one, str) and one for one in values):
        raise GrammarError(f"the structural tag's {name} must be strings that are not empty")
    return values
