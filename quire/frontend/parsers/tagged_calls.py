"""Calls whose arguments stand between tags, each as plain text: XML and its like.

What the texts mean in JSON is `parsers.schemas`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.schemas import STRING, as_json, quoted
from quire.frontend.parsers.source import Source, Step, Tags

_MAX_NAME = 512
_NO_NAME = re.compile(r"[\s<>]")
_ANY = frozenset({"object", "array", "number", "integer", "boolean", "null"})


def unquoted(text: str) -> str:
    """A name without the quotes around it."""
    return text.strip().strip("\"'")


def unmarked(text: str) -> tuple[str, str]:
    """The name of an argument of which nothing else is said."""
    return unquoted(text), ""


def with_string_mark(text: str) -> tuple[str, str]:
    """A name that the attribute string="true" or "false" may follow."""
    name, _, rest = text.strip().lstrip('"').partition('"')
    mark = rest.partition('string="')[2].rstrip('"')
    return name, mark


@dataclass(frozen=True, kw_only=True)
class TaggedCalls:
    """A `ToolFormat` of tags.

    starts      what stands before a tool's name; () if that follows the format's tag at once.
    name_ends   what stands behind it.
    argument    before an argument's name, behind it, before its value if that is apart.
    value_ends  what ends a value.
    call_ends   what ends a call; `ends` a section of calls.
    fillers     what may stand between calls and says nothing.
    strips      a line break at either end of a value belongs to the format.
    read_name   the tool's name in the text between its tags.
    read_key    (name, "true" for a string, "false" for JSON, "" for what the schema says).
    """

    tags: tuple[str, ...]
    starts: tuple[str, ...]
    name_ends: tuple[str, ...]
    argument: tuple[str, str, str]
    value_ends: tuple[str, ...]
    call_ends: tuple[str, ...]
    ends: tuple[str, ...] = ()
    fillers: tuple[str, ...] = ()
    strips: bool = False
    read_name: Callable[[str], str] = unquoted
    read_key: Callable[[str], tuple[str, str]] = unmarked
    openings: str = ""
    drops: tuple[str, ...] = ()
    needs_special_tokens: bool = False
    make_id: MakeId = long_id

    @cached_property
    def _name_ends(self) -> Tags:
        found = (*self.name_ends, self.argument[0], *self.call_ends, *self.starts, *self.tags)
        return Tags(found)

    @cached_property
    def _between(self) -> Tags:
        return Tags((*self.starts, *self.ends, *self.fillers))

    @cached_property
    def _inside(self) -> Tags:
        return Tags((self.argument[0], *self.call_ends, *self.ends))

    @cached_property
    def _key_ends(self) -> Tags:
        return Tags((self.argument[1],))

    @cached_property
    def _value_starts(self) -> Tags:
        return Tags((self.argument[2],))

    @cached_property
    def _value_ends(self) -> Tags:
        return Tags(self.value_ends)

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads the calls of one section; see `ToolFormat`."""
        num_before = message.num_calls
        begun = tag in self.starts or not self.starts
        while True:
            while not begun:
                yield from source.space()
                found = yield from source.one_of(self._between)
                if found in self.starts:
                    break
                if found not in self.fillers:
                    done = message.num_calls > num_before
                    return done and (bool(found) or not (yield from source.character()))
            end = yield from self._call(source, message)
            if not end:
                return False
            source.mark()
            if end in self.ends or not self.starts:
                return True
            begun = False

    def _call(self, source: Source, message: Message) -> Step[str]:
        """One call. The tag that ended it, or "" if none did; what is left over is recorded."""
        name, tag = yield from source.short(self._name_ends, _MAX_NAME)
        if tag in self.starts or tag in self.tags:
            source.give_back(tag)
            return ""
        name = self.read_name(name)
        if not tag or not name or _NO_NAME.search(name):
            return ""
        count = 0
        while tag not in self.call_ends and tag not in self.ends:
            if tag != self.argument[0]:
                yield from source.space()
                tag = yield from source.one_of(self._inside)
                if tag != self.argument[0] and (tag or not count):
                    if tag:
                        continue
                    return ""
            if not tag:
                return (yield from self._broken(source, message))
            tag = yield from self._argument(source, message, name, count)
            if not tag:
                return ""
            count += 1
        if not count:
            message.call(name)
            message.argue("{")
        message.argue("}")
        return tag

    def _broken(self, source: Source, message: Message) -> Step[str]:
        """Something else than an argument follows one: the call ends here, unless the output does."""
        if (yield from source.character()):
            message.argue("}")
        return ""

    def _argument(self, source: Source, message: Message, tool: str, count: int) -> Step[str]:
        """One argument, the call begun with the first. The tag behind it; "" if it is none."""
        key, end = yield from source.short(self._key_ends, _MAX_NAME)
        name, mark = self.read_key(key)
        if end and self.argument[2]:
            yield from source.space()
            end = yield from source.one_of(self._value_starts)
        if not end or not name:
            if count:
                yield from self._broken(source, message)
            return ""
        if not count:
            message.call(tool)
            message.argue("{")
        message.argue((", " if count else "") + quoted(name) + ": ")
        kinds = {"true": STRING, "false": _ANY}.get(mark) or message.tools.kinds(tool, name)
        value = _Value(message, kinds, strips=self.strips)
        end = yield from source.until(self._value_ends, value.write)
        value.end(whole=bool(end))
        source.mark()
        return end.strip()


class _Value:
    """A value on its way into the arguments: a string at once, anything else when it is whole."""

    def __init__(self, message: Message, kinds: frozenset[str], *, strips: bool) -> None:
        self._message = message
        self._kinds = kinds
        self._streams = kinds == STRING
        self._strips = strips
        self._first = True
        self._held = ""
        self._pieces: list[str] = []
        if self._streams:
            message.argue('"')

    def write(self, text: str) -> None:
        """Takes a piece, without the line breaks around the value."""
        if self._strips:
            if self._first and text[0] == "\n":
                text = text[1:]
            self._first = False
            text = self._held + text
            self._held = "\n" if text.endswith("\n") else ""
            text = text[: len(text) - len(self._held)]
        if self._streams:
            self._message.argue(quoted(text)[1:-1])
        else:
            self._pieces.append(text)

    def end(self, *, whole: bool) -> None:
        """Nothing follows; a string is closed only if it is whole."""
        if self._streams:
            self._message.argue('"' if whole else "")
        else:
            self._message.argue(as_json("".join(self._pieces), self._kinds))
