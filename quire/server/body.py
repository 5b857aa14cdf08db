"""A request's body: read within limits of size and time, decoded from JSON, faults named.

What the fields mean is `server.schema`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, get_type_hints

import msgspec
from starlette.requests import Request

from quire.config.server import ServerConfig
from quire.protocol.errors import InvalidRequestError
from quire.server.errors import ClientGone, HttpError

T = TypeVar("T", bound=msgspec.Struct)

_CLOSE = {"Connection": "close"}


async def read_json(
    request: Request, config: ServerConfig, check: Callable[[], None] | None = None
) -> dict[str, Any]:
    """The body as a JSON object. Raises HttpError (408, 413, 415), InvalidRequestError or ClientGone.

    check  is called when the body has come, before it is parsed; what it raises is raised.
    """
    check_media_type(request)
    raw = await read_body(request, config)
    if check is not None:
        check()
    return decode(raw)


def check_media_type(request: Request) -> None:
    """Refuses what is not UTF-8 JSON; a missing type is read as JSON."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise HttpError(
            415,
            f"Content-Encoding {encoding[:64]!r} is not read; send the body as it is",
            type="UnsupportedMediaType",
            headers=_CLOSE,
        )
    given = request.headers.get("content-type")
    if given is None:
        return
    media, *parameters = (part.strip().lower() for part in given.split(";"))
    charsets = [
        one.partition("=")[2].strip("\"' ") for one in parameters if one.startswith("charset")
    ]
    if media != "application/json" or any(one not in ("utf-8", "utf8") for one in charsets):
        raise HttpError(
            415,
            f"Content-Type {given[:64]!r} is not read; send application/json in UTF-8",
            type="UnsupportedMediaType",
        )


async def read_body(request: Request, config: ServerConfig) -> bytes:
    """All bytes of the body, up to `max_body_bytes`."""
    limit = config.max_body_bytes
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(config.body_timeout):
                message = await request.receive()
        except TimeoutError:
            raise HttpError(
                408,
                f"the body stood still for {config.body_timeout:g} s; send it in one go",
                type="RequestTimeout",
                headers=_CLOSE,
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> HttpError:
    return HttpError(
        413,
        f"the body is larger than {limit} bytes; send less, or start with a larger --max-body-bytes",
        type="RequestEntityTooLarge",
        headers=_CLOSE,
    )


def decode(raw: bytes) -> dict[str, Any]:
    """The JSON object in the bytes; a byte order mark in front is passed over. Raises InvalidRequestError."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidRequestError("the body is nested too deep; send a flatter object") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise _explain(raw, error) from None
    if not isinstance(value, dict):
        kind = {list: "an array", str: "a string", type(None): "null"}.get(type(value), "a number")
        raise InvalidRequestError(
            f"the body is {kind} at position 0; it must be a JSON object, as in "
            '{"prompt": "Hello"}'
        )
    return value


def _explain(raw: bytes, error: Exception) -> InvalidRequestError:
    """The fault with its position, or with its field where the text is JSON but for one value."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        return InvalidRequestError(f"the body is not UTF-8: a wrong byte at position {fault.start}")
    try:
        value = json.loads(text, parse_int=_bounded_int)
    except RecursionError:
        return InvalidRequestError("the body is nested too deep; send a flatter object")
    except json.JSONDecodeError as fault:
        return InvalidRequestError(
            f"the body is not valid JSON: {fault.msg} at position {fault.pos}"
        )
    if isinstance(value, dict):
        for name, inside in value.items():
            reason = _unusable(inside)
            if reason is not None:
                return InvalidRequestError(f"{_shown(name)} {reason}", param=_shown(name))
    return InvalidRequestError(f"the body cannot be read: {error}")


def _shown(name: str) -> str:
    return name[:64].encode("utf-8", "backslashreplace").decode()


def _bounded_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 400 else math.inf


def _unusable(value: Any) -> str | None:
    """Why a decoded value cannot be used: not a finite number, or half a character."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, float) and not math.isfinite(one):
            return "holds a number that is not finite, or too large; send a plain number"
        if isinstance(one, str) and any("\ud800" <= char <= "\udfff" for char in one):
            return "holds half of a surrogate pair; send whole characters"
        if isinstance(one, list):
            stack += one
        elif isinstance(one, dict):
            stack += [*one.keys(), *one.values()]
    return None


def convert(body: dict[str, Any], kind: type[T], *, strict: bool) -> tuple[T, list[str]]:
    """The body as a wire type, and the names of its fields that the type does not know.

    A field that is null counts as left out. Raises InvalidRequestError naming the field; with
    `strict` for unknown fields too.
    """
    given = {name: value for name, value in body.items() if value is not None}
    for name in whole_fields(kind):
        value = given.get(name)
        if isinstance(value, float) and value.is_integer():
            given[name] = int(value)
    unknown = unknown_fields(given, kind)
    if unknown and strict:
        raise InvalidRequestError(
            f"unknown field {_shown(unknown[0])!r}; leave it out", param=_shown(unknown[0])
        )
    try:
        return msgspec.convert(given, kind), unknown
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        path = place.rstrip("`").lstrip(".")
        name = path.split(".")[0].split("[")[0]
        message = message[0].lower() + message[1:].replace("`", "")
        raise InvalidRequestError(f"{path}: {message}", param=name or None) from None


@cache
def whole_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Fields that hold a whole number, which JSON may also write as 1.0."""
    hints = get_type_hints(kind)
    return tuple(name for name in kind.__struct_fields__ if hints[name] in (int, int | None))


def unknown_fields(given: dict[str, Any], kind: type[msgspec.Struct]) -> list[str]:
    """Names in the object that are no field of the type; of an inner object as `outer.inner`."""
    inner = getattr(kind, "INNER", {})
    known = set(kind.__struct_fields__)
    found = [name for name in given if name not in known]
    for name, inner_kind in inner.items():
        value = given.get(name)
        if isinstance(value, dict):
            found += [f"{name}.{one}" for one in value if one not in inner_kind.__struct_fields__]
    return found
