"""Apertus: an array of objects whose only key is the tool's name."""

from __future__ import annotations

from dataclasses import dataclass

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_text import copy_brackets, name
from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.source import Source, Step, Tags

_END = Tags(("<|tools_suffix|>",))


@dataclass(frozen=True)
class _Apertus:
    tags: tuple[str, ...] = ("<|tools_prefix|>",)
    openings: str = ""
    drops: tuple[str, ...] = ("<|inner_prefix|>", "<|inner_suffix|>")
    needs_special_tokens: bool = True
    make_id: MakeId = long_id

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads the array; see `ToolFormat`."""
        num_before = message.num_calls
        for sign in "[{":
            yield from source.space()
            if (yield from source.character()) != sign:
                return False
            source.take(source.at + 1)
        while (yield from self._call(source, message)):
            source.mark()
            yield from source.space()
            sign = yield from source.character()
            if sign == "]":
                source.take(source.at + 1)
                yield from source.space()
                break
            if sign == ",":
                source.take(source.at + 1)
                yield from source.space()
                sign = yield from source.character()
            if sign == "{":
                source.take(source.at + 1)
        if message.num_calls == num_before:
            return False
        return bool((yield from source.one_of(_END))) or not (yield from source.character())

    def _call(self, source: Source, message: Message) -> Step[bool]:
        """`"name": {...}}` behind the brace that opens it."""
        yield from source.space()
        if (yield from source.character()) != '"':
            return False
        source.take(source.at + 1)
        tool = yield from name(source)
        for sign in ":{":
            yield from source.space()
            if (yield from source.character()) != sign or not tool:
                return False
            source.take(source.at + 1)
        opening = "{" + (yield from source.space())
        if (yield from source.character()) not in ('"', "}"):
            return False
        message.call(str(tool))
        message.argue(opening)
        source.mark()
        whole = yield from copy_brackets(source, message.argue, 1)
        source.mark()
        yield from source.space()
        if not whole or (yield from source.character()) != "}":
            return False
        source.take(source.at + 1)
        return True


FORMATS: dict[str, ToolFormat] = {"apertus": _Apertus()}
