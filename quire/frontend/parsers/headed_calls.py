"""Calls whose tool is named in a header, with a JSON object of arguments behind it.

Calls that are JSON altogether are `parsers.json_calls`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from quire.frontend.parsers.json_text import copy_brackets
from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.source import Source, Step, Tags

_MAX_HEADER = 512


@dataclass(frozen=True, kw_only=True)
class HeadedCalls:
    """A `ToolFormat` of headers with arguments.

    starts      what stands before each header.
    read_header  (name, id or "") in the text between that and the arguments; an empty name is no call.
    call_ends   what may stand behind the arguments.
    ends        what may stand behind the last call.
    """

    tags: tuple[str, ...]
    starts: tuple[str, ...]
    read_header: Callable[[str], tuple[str, str]]
    call_ends: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    openings: str = ""
    drops: tuple[str, ...] = ()
    needs_special_tokens: bool = True
    make_id: MakeId = long_id

    @cached_property
    def _starts(self) -> Tags:
        return Tags(self.starts)

    @cached_property
    def _header_ends(self) -> Tags:
        return Tags(("{", *self.call_ends, *self.starts, *self.tags))

    @cached_property
    def _call_ends(self) -> Tags:
        return Tags(self.call_ends)

    @cached_property
    def _ends(self) -> Tags:
        return Tags(self.ends)

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads the calls of one section; see `ToolFormat`."""
        num_before = message.num_calls
        begun = tag in self.starts
        while True:
            if not begun:
                yield from source.space()
                begun = bool((yield from source.one_of(self._starts)))
            if not begun:
                break
            if not (yield from self._call(source, message)):
                return False
            source.mark()
            begun = False
        if message.num_calls == num_before:
            return False
        return bool((yield from source.one_of(self._ends))) or not (yield from source.character())

    def _call(self, source: Source, message: Message) -> Step[bool]:
        """One call behind its start. Whether it is whole; what is left over is recorded."""
        header, end = yield from source.short(self._header_ends, _MAX_HEADER)
        if end in self.tags or end in self.starts:
            source.give_back(end)
            return False
        name, call_id = self.read_header(header) if end else ("", "")
        if not name:
            return False
        if end != "{":
            message.call_whole(name, "{}", call_id)
            return True
        opening = "{" + (yield from source.space())
        if (yield from source.character()) not in ('"', "}"):
            return False
        message.call(name, call_id)
        message.argue(opening)
        source.mark()
        whole = yield from copy_brackets(source, message.argue, 1)
        source.mark()
        if self.call_ends:
            yield from source.space()
            ended = yield from source.one_of(self._call_ends)
            return bool(ended) or (whole and not (yield from source.character()))
        return whole
