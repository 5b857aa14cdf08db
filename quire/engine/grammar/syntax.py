"""Bounds on the text of regexes and grammars, before a grammar engine reads it.

What the text means is the engine's matter.
"""

from __future__ import annotations

import json
import re

from quire.engine.grammar.backend import GrammarError

MAX_REPEATS = 10_000
MAX_NESTING = 200

_ENDLESS = r"(?:[*+]|\{[0-9]+,\})"
# (a+)+ with any one thing for a; (a|a)* with any letters for a. Nothing in them repeats in the regex's own search.
_NESTED = re.compile(
    rf"\((?:\?:)?(?:[^()*+?{{}}|]|\((?:\?:)?[^()]{{1,200}}\)){_ENDLESS}\??\){_ENDLESS}"
    rf"|\((?:\?:)?([^()|*+?]{{1,200}})\|\1\){_ENDLESS}"
)
_REPEATS = re.compile(r"\{([0-9]{1,10})(?:,([0-9]{0,10}))?\}")


def check_regex(text: str) -> str:
    """The regex itself.

    Raises GrammarError for counts and nesting beyond the limits, and for a group that is repeated
    without end though it is nothing but such a repeat, as in (a+)+: readers that backtrack never come
    to an end with it.
    """
    for match in _REPEATS.finditer(text):
        for digits in match.groups():
            if digits and int(digits) > MAX_REPEATS:
                raise GrammarError(
                    f"the regex is too complex: it repeats something {digits} times; the limit is "
                    f"{MAX_REPEATS}"
                )
    check_nesting(text, "regex")
    nested = _NESTED.search(_without_classes(text))
    if nested is not None:
        raise GrammarError(
            f"the regex is too complex: {nested.group()[:40]!r} repeats without end what repeats without "
            "end; the limit is one such repeat of the same thing: write a+ for (a+)+"
        )
    return text


def _without_classes(text: str) -> str:
    """A regex with a plain letter for each escape and each class of letters; once through the text."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "\\":
            pieces.append("e")
            at += 2
        elif text[at] == "[":
            end = _end_of_class(text, at)
            pieces.append("e" if end <= len(text) else text[at:])
            at = end
        else:
            pieces.append(text[at])
            at += 1
    return "".join(pieces)


def _end_of_class(text: str, start: int) -> int:
    """Where the text goes on behind the class of letters at `start`; beyond its end if it is not closed."""
    at = start + 1
    at += text.startswith("^", at)
    at += text.startswith("]", at)
    while at < len(text) and text[at] != "]":
        at += 2 if text[at] == "\\" else 1
    return at + 1


def check_nesting(text: str, kind: str) -> None:
    """Raises GrammarError for brackets that nest deeper than MAX_NESTING."""
    depth = deepest = 0
    for letter in text:
        if letter in "([":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in ")]":
            depth = max(0, depth - 1)
    if deepest > MAX_NESTING:
        raise GrammarError(
            f"the {kind} is too complex: it nests {deepest} levels; the limit is {MAX_NESTING}"
        )


def quoted(text: str) -> str:
    """A text as a string of Lark or EBNF."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")
