"""JSON as it arrives: strings, values and the object that describes a call.

Values are copied as the model wrote them, up to the bracket that closes them; what stands inside is not
judged, since arguments are passed on before their end is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from quire.frontend.parsers.message import Message
from quire.frontend.parsers.source import Source, Step, Write

_MAX_NAME = 256  # characters of a key or of a tool's name
_IN_STRING = re.compile(r'["\\]')
_STRING_END = re.compile(r'["\\\n]')
_OUTSIDE = re.compile(r'["{}\[\]<]')
_SCALAR_END = re.compile(r"[\s,\]}<]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_HEX = frozenset("0123456789abcdefABCDEF")


def name(source: Source) -> Step[str | None]:
    """The text of a short string behind its opening quote; None if it is none."""
    raw: list[str] = []
    left = _MAX_NAME
    while left > 0 and (yield from source.more()):
        found = _STRING_END.search(source.text, source.at, source.at + left)
        end = found.start() if found else min(len(source.text), source.at + left)
        raw.append(source.take(end))
        left -= len(raw[-1])
        if found is None:
            continue
        if found.group() == "\n":
            return None
        raw.append(source.take(end + 1))
        left -= 1
        if found.group() == '"':
            return _decoded('"' + "".join(raw))
        if (yield from source.more()):
            raw.append(source.take(source.at + 1))
            left -= 1
    return None


def _decoded(text: str) -> str | None:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return None


def copy_string(source: Source, write: Write) -> Step[bool]:
    """Copies a string behind its opening quote, closing quote included. Whether it was closed."""
    while (yield from source.more()):
        found = _IN_STRING.search(source.text, source.at)
        if found is None:
            write(source.take(len(source.text)))
            continue
        write(source.take(found.end()))
        if found.group() == '"':
            return True
        if (yield from source.more()):
            write(source.take(source.at + 1))
    return False


def copy_brackets(source: Source, write: Write, depth: int = 0) -> Step[bool]:
    """Copies an object or an array up to the bracket that closes it, or `depth` open ones.

    Stops before a "<" outside strings, which no JSON has and many end tags begin with. Whether the
    value was closed.
    """
    while (yield from source.more()):
        found = _OUTSIDE.search(source.text, source.at)
        if found is None:
            write(source.take(len(source.text)))
            continue
        sign = found.group()
        if sign == "<":
            write(source.take(found.start()))
            return False
        write(source.take(found.end()))
        if sign == '"':
            if not (yield from copy_string(source, write)):
                return False
            continue
        depth += 1 if sign in "{[" else -1
        if depth <= 0:
            return True
    return False


def copy_value(source: Source, write: Write) -> Step[bool]:
    """Copies any value. Whether it was whole."""
    first = yield from source.character()
    if first in ("{", "["):
        return (yield from copy_brackets(source, write))
    if first == '"':
        write(source.take(source.at + 1))
        return (yield from copy_string(source, write))
    wrote = False
    while (yield from source.more()):
        found = _SCALAR_END.search(source.text, source.at)
        end = found.start() if found else len(source.text)
        wrote |= end > source.at
        write(source.take(end))
        if found:
            return wrote
    return False


def unpack_string(source: Source, write: Write) -> Step[bool]:
    """Like `copy_string`, but writes the text that the string stands for."""
    high = ""  # the first half of a character in two escapes
    while (yield from source.more()):
        found = _IN_STRING.search(source.text, source.at)
        end = found.start() if found else len(source.text)
        if end > source.at:
            write(_lone(high) + source.take(end))
            high = ""
        if found is None:
            continue
        source.take(end + 1)
        if found.group() == '"':
            write(_lone(high))
            return True
        code = yield from _escape(source)
        if high and len(code) == 1 and "\udc00" <= code <= "\udfff":
            code = (high + code).encode("utf-16", "surrogatepass").decode("utf-16")
        elif high:
            write(_lone(high))
        high = code if len(code) == 1 and "\ud800" <= code <= "\udbff" else ""
        write("" if high else _lone(code))
    write(_lone(high))
    return False


def _lone(half: str) -> str:
    return "�" if half and "\ud800" <= half[0] <= "\udfff" else half


def _escape(source: Source) -> Step[str]:
    """The character that an escape stands for; a broken escape as it is."""
    if not (yield from source.more()):
        return "\\"
    sign = source.take(source.at + 1)
    if sign != "u":
        return _ESCAPES.get(sign, sign if sign in '"\\/' else "\\" + sign)
    digits = ""
    while len(digits) < 4:
        digit = yield from source.character()
        if digit not in _HEX:
            return "\\u" + digits
        digits += source.take(source.at + 1)
    return chr(int(digits, 16))


@dataclass(frozen=True)
class CallKeys:
    """How an object that describes a call names its parts.

    wrappers       keys of an inner object that has the parts.
    needs_arguments  an object without arguments is no call; for formats that mark calls by nothing else.
    id             key of the call's id, or "".
    """

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")
    wrappers: tuple[str, ...] = ("function",)
    needs_arguments: bool = False


def read_call(source: Source, message: Message, keys: CallKeys) -> Step[bool]:
    """Reads `{"name": ..., "arguments": {...}}` behind its opening brace, and makes it a call.

    False if it is none; what was read and is in no call is in the source's record then.
    """
    return (yield from _CallReader(source, message, keys).run())


class _CallReader:
    """One object of a call. The call begins once its name and the first of its arguments are seen."""

    def __init__(self, source: Source, message: Message, keys: CallKeys) -> None:
        self._source = source
        self._message = message
        self._keys = keys
        self._name: str | None = None
        self._held: list[str] | None = None  # arguments that came before the name
        self._began = False

    def run(self) -> Step[bool]:
        source, depth = self._source, 1
        yield from source.space()
        while depth:
            sign = yield from source.character()
            if sign == "}":
                source.take(source.at + 1)
                depth -= 1
            elif sign == '"':
                source.take(source.at + 1)
                key = yield from name(source)
                yield from source.space()
                if key is None or (yield from source.character()) != ":":
                    return False
                source.take(source.at + 1)
                yield from source.space()
                if key in self._keys.wrappers and (yield from source.character()) == "{":
                    source.take(source.at + 1)
                    yield from source.space()
                    depth += 1
                    continue
                if not (yield from self._value(key)):
                    return False
            else:
                return False
            if depth and not (yield from self._next()):
                return False
        return self._ended()

    def _next(self) -> Step[bool]:
        """Behind a value: on to the next key or to the closing brace."""
        source = self._source
        yield from source.space()
        sign = yield from source.character()
        if sign == ",":
            source.take(source.at + 1)
            yield from source.space()
        return sign in (",", "}")

    def _value(self, key: str) -> Step[bool]:
        source, keys = self._source, self._keys
        sign = yield from source.character()
        if key in keys.arguments and not self._began and self._held is None:
            return (yield from self._arguments(sign))
        if (key in keys.name or key in keys.wrappers) and sign == '"' and self._name is None:
            source.take(source.at + 1)
            self._name = yield from name(source)
            if self._name and self._held is not None:
                self._begin("".join(self._held))
            return bool(self._name)
        return (yield from copy_value(source, _nowhere))

    def _arguments(self, sign: str) -> Step[bool]:
        """The arguments: an object, a string with an object in it, or null."""
        source = self._source
        if sign == "{":
            source.take(source.at + 1)
            opening = "{" + (yield from source.space())
            if (yield from source.character()) not in ('"', "}"):
                return False
            write = self._begin(opening)
            return (yield from copy_brackets(source, self._unrecorded(write), 1))
        if sign == '"':
            source.take(source.at + 1)
            if not (yield from source.more()):
                return False
            write = self._begin("")
            return (yield from unpack_string(source, self._unrecorded(write)))
        text: list[str] = []
        whole = yield from copy_value(source, text.append)
        if whole and "".join(text) == "null":
            self._begin("{}")
            return True
        return False

    def _begin(self, text: str) -> Write:
        """Begins the call if its name is known, with the first of its arguments; where the rest goes."""
        if self._name is None:
            self._held = [text]
            return self._held.append
        self._began = True
        self._message.call(self._name)
        self._message.argue(text)
        self._source.mark()
        return self._message.argue

    def _unrecorded(self, write: Write) -> Callable[[str], None]:
        """Keeps what is written as arguments out of the record of what is not."""
        if write != self._message.argue:
            return write
        source = self._source

        def write_and_mark(text: str) -> None:
            write(text)
            source.mark()

        return write_and_mark

    def _ended(self) -> bool:
        if self._began:
            return True
        if self._name is None or self._keys.needs_arguments:
            return False
        self._begin("".join(self._held or ["{}"]))
        return True


def _nowhere(text: str) -> None:
    pass
