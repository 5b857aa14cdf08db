"""What the text routes read beside the body: request id, priority; and what they say of a body's fields.

The body itself is read by `server.body`.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import msgspec
from starlette.requests import Request

from quire.protocol.errors import InvalidRequestError
from quire.server.errors import JSON
from quire.server.schema.sampling import SamplingFields

_PLAIN = re.compile(r"[\w.-]{1,64}", re.ASCII)


def openapi_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The request body for /openapi.json."""
    _, parts = msgspec.json.schema_components([kind])
    schema = {**parts[kind.__name__]}
    for name, inner in getattr(kind, "INNER", {}).items():
        schema["properties"][name] = parts[inner.__name__]
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def ignored_fields(unknown: list[str]) -> dict[str, str]:
    """The header that names fields nobody read."""
    names = [name for name in unknown if _PLAIN.fullmatch(name)][:20]
    return {"X-Ignored-Fields": ", ".join(names)} if names else {}


def request_id(http: Request, request: SamplingFields) -> str:
    """The header's id, else the body's, else the one that the server made."""
    if http.state.request_id_given:
        return str(http.state.request_id)
    return request.request_id or str(http.state.request_id)


class HasPriority(Protocol):
    """A body with a priority of its own."""

    priority: int


def priority(http: Request, request: HasPriority) -> int:
    """The header's priority, else the body's. Raises InvalidRequestError."""
    return priority_of(http, request.priority)


def priority_of(http: Request, in_body: int) -> int:
    """The header's priority, else `in_body`. Raises InvalidRequestError."""
    given = http.headers.get("x-vllm-priority")
    if given is None:
        return in_body
    try:
        return int(given[:20])
    except ValueError:
        raise InvalidRequestError(
            f"X-Vllm-Priority is {given[:20]!r}; it must be an integer", param="priority"
        ) from None
