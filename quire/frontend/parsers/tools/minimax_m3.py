"""MiniMax M3: invocations whose parameters are elements, each tag behind a mark of its own.

An element with elements in it is an object, or an array where all of them are called `item`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.schemas import as_json, quoted
from quire.frontend.parsers.source import Source, Step, Tags

_MARK = "]<]minimax[>["
_CLOSE = Tags((">",))
_TAG = Tags((_MARK + "<",))
_INVOKE = Tags((_MARK + "<invoke name=",))
_INSIDE = Tags((_MARK + "</invoke>", _MARK + "<"))
_END = Tags((_MARK + "</tool_call>",))
_MAX_NAME, _MAX_DEPTH = 256, 64
_UNDECLARED = frozenset({"integer", "number", "boolean", "null", "object", "array"})


@dataclass
class _Element:
    name: str
    text: list[str] = field(default_factory=list)
    inside: list[tuple[str, str]] = field(default_factory=list)

    def json(self, kinds: frozenset[str]) -> str:
        """What it stands for; its own text counts only if there are no elements in it."""
        if not self.inside:
            return as_json("".join(self.text), kinds)
        if all(name == "item" for name, _ in self.inside):
            return "[" + ", ".join(value for _, value in self.inside) + "]"
        return "{" + ", ".join(f"{quoted(name)}: {value}" for name, value in self.inside) + "}"


@dataclass(frozen=True)
class _MiniMax:
    tags: tuple[str, ...] = (_MARK + "<tool_call>",)
    openings: str = ""
    drops: tuple[str, ...] = ()
    needs_special_tokens: bool = True
    make_id: MakeId = long_id

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads a section of calls; see `ToolFormat`."""
        num_before = message.num_calls
        while True:
            yield from source.space()
            if not (yield from source.one_of(_INVOKE)):
                break
            if not (yield from self._call(source, message)):
                return False
            source.mark()
        if message.num_calls == num_before:
            return False
        return bool((yield from source.one_of(_END))) or not (yield from source.character())

    def _call(self, source: Source, message: Message) -> Step[bool]:
        name, end = yield from source.short(_CLOSE, _MAX_NAME)
        name = name.strip().strip("\"'")
        if not end or not name:
            return False
        began = False
        while True:
            yield from source.space()
            tag = yield from source.one_of(_INSIDE)
            if tag.endswith("</invoke>"):
                if not began:
                    message.call(name)
                message.argue("}" if began else "{}")
                return True
            found = (yield from self._argument(source, message, name)) if tag else None
            if found is None:
                if began and (yield from source.character()):
                    message.argue("}")
                return False
            if not began:
                message.call(name)
            message.argue((", " if began else "{") + found)
            began = True
            source.mark()

    def _argument(self, source: Source, message: Message, tool: str) -> Step[str | None]:
        """`"name": value` of the element whose tag has just begun; None if it is broken."""
        open_elements: list[_Element] = []
        while True:
            name, end = yield from source.short(_CLOSE, _MAX_NAME)
            if not end or not name or len(open_elements) > _MAX_DEPTH:
                return None
            if not name.startswith("/"):
                open_elements.append(_Element(name))
            elif not open_elements or open_elements[-1].name != name[1:]:
                return None
            elif len(open_elements) == 1:
                value = open_elements[0].json(message.tools.kinds(tool, name[1:]))
                return f"{quoted(name[1:])}: {value}"
            else:
                done = open_elements.pop()
                open_elements[-1].inside.append((done.name, done.json(_UNDECLARED)))
            if not (yield from source.until(_TAG, open_elements[-1].text.append)):
                return None


FORMATS: dict[str, ToolFormat] = {"minimax_m3": _MiniMax()}
