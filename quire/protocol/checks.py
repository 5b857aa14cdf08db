"""Small checks of a user's values that name the field, the value, the limit and what to do.

What each field allows stands with the field, in `protocol.params`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import index
from typing import Any, NoReturn, TypeVar

from quire.protocol.errors import InvalidRequestError

N = TypeVar("N", int, float)

_SHOWN = 80  # characters of a user's value that an error repeats


def refuse(param: str, message: str) -> NoReturn:
    """Raises InvalidRequestError for the field `param`, less any index or subfield."""
    raise InvalidRequestError(message, param=param.partition("[")[0].partition(".")[0])


def shown(value: Any) -> str:
    """The value as an error message repeats it: its repr, cut after 80 characters."""
    if isinstance(value, (str, bytes)):
        value = value[:_SHOWN]
    elif isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    elif not isinstance(value, (int, float, type(None))):
        return f"of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def integer(name: str, value: Any) -> int:
    """The value as an int of 64 bits, signed or not; floats, strings and booleans are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = index(value)
    except TypeError:
        refuse(name, f"{name} is {shown(value)}; it must be an integer.")
    if not -(2**63) <= found < 2**64:
        refuse(name, f"{name} is {shown(value)}; it must be an integer of 64 bits.")
    return found


def number(name: str, value: Any) -> float:
    """The value as a finite float; strings and booleans are refused."""
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        refuse(name, f"{name} is {shown(value)}; it must be a number.")
    try:
        result = float(value)
    except (OverflowError, TypeError, ValueError):
        refuse(name, f"{name} is {shown(value)}; it must be a finite number.")
    if not math.isfinite(result):
        refuse(name, f"{name} is {result}; it must be a finite number.")
    return result


def limits(
    name: str,
    value: N,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> N:
    """The value, if above < value, low <= value and value <= high, where given."""
    too_low = (low is not None and value < low) or (above is not None and value <= above)
    if not too_low and (high is None or value <= high):
        return value
    bound = (
        f"greater than {above:g}"
        if above is not None
        else f"at least {_plain(low)}"
        if low is not None
        else ""
    )
    top = f"at most {_plain(high)}" if high is not None else ""
    allowed = " and ".join(part for part in (bound, top) if part)
    refuse(name, f"{name} is {shown(value)}; it must be {allowed}.")


def integers(name: str, values: Any) -> list[int]:
    """A new list of token ids, each at least 0; None gives an empty list."""
    if values is None:
        return []
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        refuse(name, f"{name} is {shown(values)}; it must be a list of token ids.")
    if isinstance(values, list) and all(type(one) is int and one >= 0 for one in values):
        return values.copy()  # a million ids in 30 ms, where the sentences below take seconds
    return [
        limits(f"{name}[{place}]", integer(f"{name}[{place}]", v), low=0)
        for place, v in enumerate(values)
    ]


def strings(name: str, values: Any) -> list[str]:
    """A new list of strings, none of them empty; None gives an empty list."""
    if values is None:
        return []
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        refuse(name, f"{name} is {shown(values)}; it must be a list of strings.")
    result = list(values)
    for place, value in enumerate(result):
        if not isinstance(value, str) or not value:
            refuse(name, f"{name}[{place}] is {shown(value)}; it must be a non-empty string.")
    return result


def truth(name: str, value: Any) -> bool:
    """The value, if it is True or False."""
    if not isinstance(value, bool):
        refuse(name, f"{name} is {shown(value)}; it must be True or False.")
    return value


def _plain(value: float | None) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
