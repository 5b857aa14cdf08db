"""Calls that are JSON objects, alone or in an array, behind a tag or at the beginning of the content.

Formats that name the tool outside the JSON are `parsers.headed_calls`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from quire.frontend.parsers.json_text import CallKeys, read_call
from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.source import Source, Step, Tags


@dataclass(frozen=True, kw_only=True)
class JsonCalls:
    """A `ToolFormat` of JSON objects.

    ends        what may stand behind the calls and belongs to them.
    separators  characters that may stand between objects outside an array.
    """

    tags: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    openings: str = ""
    separators: str = ""
    keys: CallKeys = field(default_factory=CallKeys)
    drops: tuple[str, ...] = ()
    needs_special_tokens: bool = False
    make_id: MakeId = long_id

    @cached_property
    def _ends(self) -> Tags:
        return Tags(self.ends)

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads an array of objects, or objects one after the other; see `ToolFormat`."""
        num_before = message.num_calls
        yield from source.space()
        sign = yield from source.character()
        if sign == "[":
            source.take(source.at + 1)
            whole = yield from self._array(source, message, num_before)
        elif sign == "{":
            whole = yield from self._objects(source, message)
        else:
            return False
        if message.num_calls == num_before:
            return False
        yield from source.space()
        ended = yield from source.one_of(self._ends)
        return bool(ended) or (whole and not (yield from source.character()))

    def _array(self, source: Source, message: Message, num_before: int) -> Step[bool]:
        while True:
            yield from source.space()
            sign = yield from source.character()
            if sign == "]":
                source.take(source.at + 1)
                if message.num_calls > num_before:
                    source.mark()
                return True
            if sign != "{":
                return False
            source.take(source.at + 1)
            if not (yield from read_call(source, message, self.keys)):
                return False
            source.mark()
            yield from source.space()
            if (yield from source.character()) == ",":
                source.take(source.at + 1)

    def _objects(self, source: Source, message: Message) -> Step[bool]:
        while True:
            source.take(source.at + 1)
            if not (yield from read_call(source, message, self.keys)):
                return False
            source.mark()
            yield from source.space()
            sign = yield from source.character()
            if sign and sign in self.separators:
                source.take(source.at + 1)
                yield from source.space()
                sign = yield from source.character()
            if sign != "{":
                return True
