"""Text from a command line, a file or the environment, turned into the value a field holds.

Which fields exist and where their text comes from is `config.cli`.
"""

from __future__ import annotations

import json
import re
import types
from typing import Any, Literal, Union, get_args, get_origin

_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_HUMAN = re.compile(r"([+-]?\d+(?:\.\d+)?)([kmgtKMGT])")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


def human_int(text: str) -> int:
    """An integer as people write it: `4096`, `25.6k` (decimal), `4G` (binary, whole numbers only).

    Raises ValueError with the reason.
    """
    text = text.strip()
    match = _HUMAN.fullmatch(text)
    if match is None:
        return int(text.replace("_", ""))
    digits, unit = match.groups()
    if unit in _BINARY:
        if "." in digits:
            raise ValueError(
                f"{text!r}: {unit} is binary and takes no fraction; write {unit.lower()}"
            )
        return int(digits) * _BINARY[unit]
    whole, _, fraction = digits.partition(".")
    scaled = int(whole + fraction) * _UNITS[unit]
    value, rest = divmod(scaled, int(10 ** len(fraction)))
    if rest:
        raise ValueError(f"{text!r} is not a whole number")
    return value


def optional_part(kind: Any) -> tuple[Any, bool]:
    """The type without None, and whether None was allowed."""
    if get_origin(kind) in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not type(None)]
        if len(parts) < len(get_args(kind)):
            return (parts[0] if len(parts) == 1 else Union[tuple(parts)]), True  # noqa: UP007
    return kind, False


def choices_of(kind: Any) -> tuple[str, ...] | None:
    """The words of a Literal type, else None."""
    kind, _ = optional_part(kind)
    return tuple(get_args(kind)) if get_origin(kind) is Literal else None


def parse(kind: Any, text: str) -> Any:
    """The value of a field of type `kind` from its text. Raises ValueError with the reason.

    `None` and the empty text are None where None is allowed.
    """
    kind, may_be_none = optional_part(kind)
    if may_be_none and text in ("", "None", "null"):
        return None
    origin = get_origin(kind)
    if kind is bool:
        return truth(text)
    if kind is int:
        try:
            return human_int(text)
        except ValueError as error:
            reason = str(error)
            raise ValueError(
                reason if reason.startswith("'") else f"{text!r} is not a whole number"
            ) from None
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a number") from None
    if origin is dict:
        return json_object(text)
    if origin is list:
        return text_list(text)
    return text


_WANTED = {
    bool: "it must be true or false",
    int: "it must be a whole number, such as 4096 or '4k'",
    float: "it must be a number",
    str: "it must be a text",
}


def fitting(kind: Any, value: Any) -> Any:
    """A value that a program gives to a field of type `kind`: numbers also as text, or as NumPy has them.

    Types beside truth values, numbers and texts are passed on. Raises ValueError saying what is wanted.
    """
    kind, may_be_none = optional_part(kind)
    if kind not in _WANTED or (value is None and may_be_none) or type(value) is kind:
        return value
    if isinstance(value, str) and kind is not str:
        try:
            return parse(kind, value)
        except ValueError:
            raise ValueError(_WANTED[kind]) from None
    is_truth = isinstance(value, bool)
    if kind is bool and value in (0, 1):
        return bool(value)
    if kind is int and hasattr(value, "__index__") and not is_truth:
        return int(value)
    if kind is float and hasattr(value, "__float__") and not is_truth:
        return float(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is str and hasattr(value, "__fspath__"):
        return str(value.__fspath__())
    raise ValueError(_WANTED[kind])


def truth(text: str) -> bool:
    """A truth value from a word. Raises ValueError."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{text!r} is not true or false")


def text_list(text: str) -> list[str]:
    """One JSON list of strings, or a single item."""
    if text.startswith("["):
        try:
            items = json.loads(text)
        except ValueError as error:
            raise ValueError(f"not a JSON list: {error}") from None
        if not all(isinstance(item, str) for item in items):
            raise ValueError("a list must hold strings only")
        return list(items)
    return [text]


def json_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError with the place of the fault."""
    if text in ("", "None", "null"):
        return {}
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object, not {type(value).__name__}")
    return value


def loose(text: str) -> Any:
    """A value behind a dotted key: JSON if it reads as such, a human integer, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if text in ("None", ""):
        return None
    if _HUMAN.fullmatch(text):
        return human_int(text)
    return text


def put(target: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets a nested key in place; a last key ending in `+` appends to a list.

    Raises ValueError where a part of the path already holds something else.
    """
    *parents, last = path
    for key in parents:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{'.'.join(path)}: {key} already holds {inner!r}")
        target = inner
    if last.endswith("+"):
        items = target.setdefault(last[:-1], [])
        if not isinstance(items, list):
            raise ValueError(f"{'.'.join(path)}: {last[:-1]} is not a list")
        items.extend(value if isinstance(value, list) else [value])
    else:
        target[last] = value
