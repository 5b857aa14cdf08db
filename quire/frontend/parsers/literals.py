"""Literals of Python and of notations like it, made JSON as they arrive.

Only what is a literal is read; names, calls and operators are none. Nothing is evaluated.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property

from quire.frontend.parsers.source import Source, Step, Tags

_MAX_DEPTH = 64
_MAX_WORD = 4096
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_WORDS = {
    "True": "true", "False": "false", "None": "null",
    "true": "true", "false": "false", "null": "null",
}  # fmt: skip
_WORD_END = re.compile(r"[^0-9A-Za-z_.+\-]")
_BARE_END = re.compile(r"[,{}\[\]]")
_KEY_END = re.compile(r"[^0-9A-Za-z_.\-$]")
_INTEGER = re.compile(r"[+-]?[0-9][0-9_]{0,4000}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,4})?")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a",
    "\\": "\\", "'": "'", '"': '"', "\n": "",
}  # fmt: skip
_CODE_LENGTHS = {"x": 2, "u": 4, "U": 8}


@dataclass(frozen=True)
class Notation:
    """How a notation differs from Python's.

    quote      stands around strings in place of quotation marks and escapes; "" for Python's way.
    bare_keys  keys stand without quotes, and so do words that are strings.
    """

    quote: str = ""
    bare_keys: bool = False

    @cached_property
    def quotes(self) -> Tags:
        """The mark around strings, to look for."""
        return Tags((self.quote,))


PYTHON = Notation()


def read_whole(text: str) -> str | None:
    """The JSON of a text that is one literal of Python, or None if it is none."""
    source = Source()
    source.put(text)
    source.ended = True
    steps = read_literal(source, PYTHON)
    try:
        next(steps)
    except StopIteration as stop:
        found: str | None = stop.value
        return found if not text[source.at :].strip() else None
    return None


def read_literal(source: Source, notation: Notation) -> Step[str | None]:
    """Reads one literal. Its JSON, or None if what comes is none."""
    out: list[str] = []
    closing: list[str] = []
    while True:
        yield from source.space()
        sign = yield from source.character()
        if sign in _CLOSING:
            source.take(source.at + 1)
            closing.append(_CLOSING[sign])
            out.append("{" if sign == "{" else "[")
            if len(closing) > _MAX_DEPTH:
                return None
        else:
            value = yield from _scalar(source, notation, sign)
            if value is None:
                return None
            out.append(value)
        if not (yield from _close(source, out, closing)):
            return None
        if not closing:
            return "".join(out)
        if closing[-1] == "}" and not (yield from _key(source, notation, out)):
            return None


def _close(source: Source, out: list[str], closing: list[str]) -> Step[bool]:
    """Behind a value or an opening bracket: takes commas and closing brackets up to the next value."""
    while closing:
        yield from source.space()
        sign = yield from source.character()
        follows = out[-1] not in ("[", "{")
        if sign == closing[-1]:
            source.take(source.at + 1)
            out.append("}" if sign == "}" else "]")
            closing.pop()
        elif sign == "," and follows:
            source.take(source.at + 1)
            yield from source.space()
            if (yield from source.character()) != closing[-1]:
                out.append(", ")
                return True
        else:
            return not follows and sign != ","
    return True


def _key(source: Source, notation: Notation, out: list[str]) -> Step[bool]:
    """Reads a key and the colon behind it."""
    yield from source.space()
    sign = yield from source.character()
    if notation.bare_keys and sign not in ('"', "<"):
        word = yield from read_word(source, _KEY_END)
        key = json.dumps(word, ensure_ascii=False) if word else None
    else:
        key = yield from _scalar(source, notation, sign)
        if key is not None and not key.startswith('"'):
            key = f'"{key}"'
    yield from source.space()
    if key is None or (yield from source.character()) != ":":
        return False
    source.take(source.at + 1)
    out.append(key + ": ")
    return True


def read_word(source: Source, end: re.Pattern[str] = _KEY_END) -> Step[str]:
    """Reads characters up to `end`, at most a few thousand."""
    pieces: list[str] = []
    left = _MAX_WORD
    while left > 0 and (yield from source.more()):
        found = end.search(source.text, source.at, source.at + left)
        place = found.start() if found else min(len(source.text), source.at + left)
        pieces.append(source.take(place))
        left -= len(pieces[-1])
        if found:
            break
    return "".join(pieces)


def _scalar(source: Source, notation: Notation, sign: str) -> Step[str | None]:
    if notation.quote:
        if (yield from source.one_of(notation.quotes)):
            pieces: list[str] = []
            if not (yield from source.until(notation.quotes, pieces.append)):
                return None
            return json.dumps("".join(pieces), ensure_ascii=False)
    elif sign in ("'", '"'):
        source.take(source.at + 1)
        return (yield from _python_string(source, sign))
    if notation.bare_keys:
        bare = (yield from read_word(source, _BARE_END)).strip()
        return (_plain(bare) or json.dumps(bare, ensure_ascii=False)) if bare else None
    word = yield from read_word(source, _WORD_END)
    if word in ("r", "R", "u", "U") and (yield from source.character()) in ("'", '"'):
        quote = source.take(source.at + 1)
        return (yield from _python_string(source, quote, raw=word in "rR"))
    return _plain(word)


def _plain(word: str) -> str | None:
    """The JSON of a number or a constant, else None."""
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word):
        word = word.replace("_", "")
        return word if _JSON_NUMBER.fullmatch(word) else str(int(word))
    if _NUMBER.fullmatch(word):
        if _JSON_NUMBER.fullmatch(word):
            return word
        value = float(word)
        return repr(value) if abs(value) != float("inf") else None
    return None


def _python_string(source: Source, quote: str, *, raw: bool = False) -> Step[str | None]:
    """The JSON of a string behind its opening quote."""
    tags = _QUOTES[quote]
    triple = yield from source.one_of(tags.doubled)
    ends = tags.single
    if triple:
        if (yield from source.character()) != quote:
            return '""'
        source.take(source.at + 1)
        ends = tags.tripled
    pieces: list[str] = []
    while True:
        tag = yield from source.until(ends, pieces.append)
        if not tag:
            return None
        if tag != "\\":
            return json.dumps("".join(pieces), ensure_ascii=False)
        if not (yield from source.more()):
            return None
        sign = source.take(source.at + 1)
        pieces.append("\\" + sign if raw else (yield from _escape(source, sign)))


def _escape(source: Source, sign: str) -> Step[str]:
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    digits = ""
    if sign in "01234567":
        digits = sign
        while len(digits) < 3 and (yield from source.character()) in tuple("01234567"):
            digits += source.take(source.at + 1)
        return chr(int(digits, 8))
    length = _CODE_LENGTHS.get(sign, 0)
    while len(digits) < length and (yield from source.character()) in _HEX:
        digits += source.take(source.at + 1)
    if not length or len(digits) < length or int(digits, 16) > 0x10FFFF:
        return "\\" + sign + digits
    code = chr(int(digits, 16))
    return "\N{REPLACEMENT CHARACTER}" if "\ud800" <= code <= "\udfff" else code


_HEX = frozenset("0123456789abcdefABCDEF")


class _Quote:
    """What ends a string, by how it was opened."""

    def __init__(self, quote: str) -> None:
        self.doubled = Tags((quote,))
        self.single = Tags((quote, "\\"))
        self.tripled = Tags((quote * 3, "\\"))


_QUOTES = {"'": _Quote("'"), '"': _Quote('"')}
