"""Command-line words in their plain form: one spelling of each name, dotted keys gathered into JSON.

Which flags exist and what their values are is `config.cli`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from quire.config import values
from quire.config.known_flags import KNOWN_FLAGS, SHORT_NAMES
from quire.config.options import options
from quire.protocol.errors import SettingsError


@cache
def json_flags() -> frozenset[str]:
    """Every long flag whose value is a JSON object."""
    ours = [option.flag for option in options(server=True).values() if option.is_json]
    known = ["--" + n.replace("_", "-") for n, flag in KNOWN_FLAGS.items() if flag.kind == "json"]
    return frozenset(ours + known)


def normalise(argv: Sequence[str], json_flags: frozenset[str]) -> list[str]:
    """Words with `_` in long names made `-`, `-O2` split, and dotted keys gathered into JSON values.

    Raises SettingsError for a dotted key of a flag that takes no JSON, or without its value.
    """
    plain: list[str] = []
    gathered: dict[str, dict[str, Any]] = {}
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*plain, *_gathered(gathered), word, *words]
        name, equals, value = word.partition("=")
        head, dot, tail = name.partition(".")
        head = _long(head)
        if not name.startswith("-") or (word.startswith("-") and _is_number(word)):
            plain.append(word)
        elif dot and tail:
            head = "--compilation-config" if head == "-O" else head
            if head not in json_flags:
                raise SettingsError(f"{name}: {head} takes no dotted keys")
            try:
                text = value if equals else next(words)
            except StopIteration:
                raise SettingsError(f"{name} needs a value") from None
            try:
                values.put(gathered.setdefault(head, {}), tail.split("."), values.loose(text))
            except ValueError as error:
                raise SettingsError(str(error)) from None
        elif head in json_flags:
            try:
                text = value if equals else next(words)
            except StopIteration:
                raise SettingsError(f"{head} needs a value") from None
            if text.lstrip().startswith("{"):
                _merge(gathered.setdefault(head, {}), _object(head, text))
            else:
                plain += [head, text]
        else:
            if len(head) == 3 and head.startswith("-O") and head[2].isdigit():
                head, equals, value = "-O", "=", head[2]
            plain += [head, value] if equals and head == "-O" else [head + equals + value]
    return plain + _gathered(gathered)


def _long(head: str) -> str:
    full = SHORT_NAMES.get(head)
    if full is not None:
        return head if head == "-O" else "--" + full.replace("_", "-")
    return head.replace("_", "-") if head.startswith("--") else head


def _is_number(word: str) -> bool:
    return word[1:2].isdigit()


def _object(flag: str, text: str) -> dict[str, Any]:
    try:
        return values.json_object(text)
    except ValueError as error:
        raise SettingsError(f"{flag}: {error}") from None


def _merge(target: dict[str, Any], extra: dict[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _gathered(gathered: dict[str, dict[str, Any]]) -> list[str]:
    return [word for flag, value in gathered.items() for word in (flag, json.dumps(value))]
