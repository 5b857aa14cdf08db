"""Calls written as Python calls its functions, or as a name with an object of unquoted keys.

A call is passed on when all of it was read, since a literal shows only at its end that it is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from quire.frontend.parsers.literals import PYTHON, Notation, read_literal, read_word
from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.schemas import quoted
from quire.frontend.parsers.source import Source, Step, Tags


@dataclass(frozen=True, kw_only=True)
class PythonCalls:
    """A `ToolFormat` of Python calls with keyword arguments, in a list or one after the other.

    bare  calls may stand without brackets around them.
    """

    tags: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    openings: str = ""
    bare: bool = False
    drops: tuple[str, ...] = ()
    needs_special_tokens: bool = False
    make_id: MakeId = long_id

    @cached_property
    def _ends(self) -> Tags:
        return Tags(self.ends)

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads a list of calls; see `ToolFormat`."""
        num_before = message.num_calls
        yield from source.space()
        listed = (yield from source.character()) == "["
        if listed:
            source.take(source.at + 1)
        elif not self.bare:
            return False
        while True:
            yield from source.space()
            sign = yield from source.character()
            if listed and sign == "]":
                source.take(source.at + 1)
                break
            if not listed and (not sign or sign == "<"):
                break
            if not (yield from self._call(source, message)):
                return False
            source.mark()
            yield from source.space()
            if (yield from source.character()) == ",":
                source.take(source.at + 1)
        if message.num_calls == num_before:
            return False
        source.mark()
        yield from source.space()
        return bool((yield from source.one_of(self._ends))) or not (yield from source.character())

    def _call(self, source: Source, message: Message) -> Step[bool]:
        """One call. What was read of none is recorded."""
        name = yield from read_word(source)
        if not name or name[0].isdigit() or (yield from source.character()) != "(":
            return False
        source.take(source.at + 1)
        arguments: list[str] = []
        while True:
            yield from source.space()
            if (yield from source.character()) == ")":
                source.take(source.at + 1)
                break
            key = yield from read_word(source)
            yield from source.space()
            if not key or (yield from source.character()) != "=":
                return False
            source.take(source.at + 1)
            value = yield from read_literal(source, PYTHON)
            if value is None:
                return False
            arguments.append(f"{quoted(key)}: {value}")
            yield from source.space()
            sign = yield from source.character()
            if sign == ",":
                source.take(source.at + 1)
            elif sign != ")":
                return False
        message.call_whole(name, "{" + ", ".join(arguments) + "}")
        return True


@dataclass(frozen=True, kw_only=True)
class ObjectCalls:
    """A `ToolFormat` of `call:name{key:value}`, each between tags.

    quote  stands around the strings.
    """

    tags: tuple[str, ...]
    ends: tuple[str, ...]
    quote: str
    openings: str = ""
    drops: tuple[str, ...] = ()
    needs_special_tokens: bool = True
    make_id: MakeId = long_id
    prefix: Tags = field(default=Tags(("call:",)))

    @cached_property
    def _ends(self) -> Tags:
        return Tags(self.ends)

    @cached_property
    def _notation(self) -> Notation:
        return Notation(quote=self.quote, bare_keys=True)

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads one call, or several without tags between them; see `ToolFormat`."""
        num_before = message.num_calls
        while True:
            yield from source.space()
            if not (yield from source.one_of(self.prefix)):
                break
            name = yield from read_word(source)
            if not name or (yield from source.character()) != "{":
                return False
            arguments = yield from read_literal(source, self._notation)
            if arguments is None:
                return False
            message.call_whole(name, arguments)
            source.mark()
        if message.num_calls == num_before:
            return False
        return bool((yield from source.one_of(self._ends))) or not (yield from source.character())
