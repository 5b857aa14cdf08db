"""Errors as HTTP answers: status, type, body.

Which mistakes there are is said where they are found; this file knows only classes.
"""

from __future__ import annotations

import http
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from quire.protocol.errors import (
    EngineDeadError,
    InvalidRequestError,
    OutOfCapacityError,
    QuireError,
    RequestFailedError,
    ShuttingDownError,
)

logger = logging.getLogger(__name__)

JSON = "application/json"
_MAX_MESSAGE = 2000
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")
_PATH = re.compile(r"(?<![\w<:/])/(?:[\w.@+-]+/)+[\w.@+-]*")


class HttpError(QuireError):
    """An answer that only HTTP knows: a status and a type of its own, and headers with it.

    details  what programs read of the error; in the form of Anthropic's API only.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.headers = dict(headers or {})
        self.details = dict(details or {})


class ClientGone(Exception):
    """The client closed the connection: there is nobody to answer."""


def not_found(name: str) -> HttpError:
    """A model that is not served; its name is cut to 64 characters."""
    return HttpError(
        404,
        f"the model {name[:64]!r} is not served; see /v1/models",
        type="NotFoundError",
        param="model",
    )


def unavailable(message: str, *, retry_after_s: int = 1) -> HttpError:
    """Cannot serve now, may serve soon."""
    return HttpError(
        503, message, type="ServiceUnavailable", headers={"Retry-After": str(retry_after_s)}
    )


@dataclass(frozen=True)
class Problem:
    """An error as it goes over the wire."""

    status: int
    type: str
    message: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)

    def body(self, extra: Mapping[str, object] | None = None) -> bytes:
        """The JSON error object."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.status,
        }
        return msgspec.json.encode({"error": {**error, **(extra or {})}})

    def response(self, scope: Scope, extra: Mapping[str, object] | None = None) -> Response:
        """The whole answer to a request, in the form that its client reads."""
        body = anthropic_body(self) if is_anthropic(scope) else self.body(extra)
        return Response(body, self.status, self.headers, media_type=JSON)


_ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error",
    500: "internal_error", 503: "overloaded_error",
}  # fmt: skip


def is_anthropic(scope: Scope) -> bool:
    """Whether a request is one of Anthropic's API: by its path, or by the header that its clients send."""
    path = scope["path"]
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return True
    return any(name == b"anthropic-version" for name, _ in scope["headers"])


def anthropic_body(problem: Problem) -> bytes:
    """The JSON error object of Anthropic's API."""
    kind = _ANTHROPIC_TYPES.get(problem.status, "invalid_request_error")
    error: dict[str, object] = {"type": kind, "message": problem.message}
    if problem.details:
        error["details"] = problem.details
    return msgspec.json.encode({"type": "error", "error": error})


def problem_of(error: BaseException) -> Problem:
    """What a client is told of an error. One that nobody raised on purpose is logged and not shown."""
    message = clean(str(error))
    if isinstance(error, HttpError):
        return Problem(error.status, error.type, message, error.param, error.headers, error.details)
    if isinstance(error, InvalidRequestError):
        return Problem(400, "BadRequestError", message, error.param)
    if isinstance(error, OutOfCapacityError):
        wait = {
            "Retry-After": str(max(1, math.ceil(error.retry_after_s))),
            "Retry-After-Ms": str(math.ceil(error.retry_after_s * 1000)),  # the clients' own
        }
        return Problem(429, "RateLimitError", message, headers=wait)
    if isinstance(error, ShuttingDownError):
        return Problem(503, "ServiceUnavailable", message, headers={"Retry-After": "1"})
    if isinstance(error, (EngineDeadError, RequestFailedError)):
        return Problem(500, "InternalServerError", without_places(message))
    if isinstance(error, HTTPException):
        return _of_http(error)
    logger.error("an answer failed", exc_info=error)
    return Problem(500, "InternalServerError", "the server failed; the reason is in its log")


def _of_http(error: HTTPException) -> Problem:
    reason = http.HTTPStatus(error.status_code).phrase
    message = {
        404: "there is no such path; the API is described at /docs",
        405: "this path does not take this method; the Allow header has those it takes",
    }.get(error.status_code, clean(str(error.detail)))
    return Problem(error.status_code, reason, message, headers=dict(error.headers or {}))


def clean(message: str) -> str:
    """A message that always encodes: lone surrogates escaped, memory addresses out, a bounded length."""
    text = message.encode("utf-8", "backslashreplace").decode()
    return _ADDRESS.sub("0x…", text[:_MAX_MESSAGE])


def without_places(message: str) -> str:
    """The message without file-system paths."""
    return _PATH.sub("<path>", message)
