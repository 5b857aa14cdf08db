"""The errors that Quire raises for its users; each names the thing, the value, the limit and what to do.

Leaves the mapping to HTTP bodies to `server.errors`.
"""

from __future__ import annotations


class QuireError(Exception):
    """Base of every error that Quire raises on purpose."""


class InvalidRequestError(QuireError, ValueError):
    """A request that can never be served as it is; HTTP 400.

    `param` is the field's name as the user knows it (`temperature`, `prompt`), or None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotServedError(InvalidRequestError):
    """A known field whose feature this build does not serve yet; HTTP 400 with the reason."""


class SettingsError(QuireError, ValueError):
    """A start-up setting that cannot work; the command line prints it and exits with 2."""


class ModelLoadError(QuireError, ValueError):
    """A checkpoint that cannot be read or is not one that Quire knows; exits with 2."""


class OutOfCapacityError(QuireError):
    """The queue is full for now; HTTP 429. `retry_after_s` is in seconds."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RequestFailedError(QuireError):
    """One request could not be carried out, through no fault of its mates; HTTP 500."""


class EngineDeadError(QuireError):
    """The engine process is gone; HTTP 500, and `/health` answers 503."""


class ShuttingDownError(QuireError):
    """The server drains and takes no new request; HTTP 503."""
