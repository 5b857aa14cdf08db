"""The outputs of one request on their way to one reader, bounded however slow the reader is.

Making the outputs is `frontend.outputs`; who puts them here is `quire.async_llm`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

from quire.protocol.errors import QuireError


class Mergeable(Protocol):
    """An output that takes later ones of its request in."""

    finished: bool
    error: str | None

    def failure(self) -> QuireError:
        """The error as an exception."""
        ...

    def add(self, next_output: Self, aggregate: bool) -> None:
        """Takes one in."""


T = TypeVar("T", bound=Mergeable)


class RequestStream(Generic[T]):
    """The outputs of one live request, for one reader; made by `AsyncLLM.add_request`.

    Holds at most one output: while the reader is away, later ones are merged into it.
    """

    def __init__(self, request_id: str, *, joins: bool, on_close: Callable[[str], None]) -> None:
        self.request_id = request_id
        self._joins = joins
        self._on_close = on_close
        self._waiting: T | None = None
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._ended = False

    def put(self, output: T) -> None:
        """Takes an output in."""
        if self._waiting is None:
            self._waiting = output
        else:
            self._waiting.add(output, aggregate=self._joins)
        self._wake()

    def fail(self, error: Exception) -> None:
        """Ends the stream with this error, after the output that waits."""
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> RequestStream[T]:
        return self

    async def __anext__(self) -> T:
        if self._ended:
            raise StopAsyncIteration
        while self._waiting is None:
            if self._error is not None:
                self._ended = True
                raise self._error
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        output, self._waiting = self._waiting, None
        if output.error is not None:
            self._ended = True
            raise output.failure()
        self._ended = output.finished
        return output

    def close(self) -> None:
        """Ends the request if it still runs; may be called twice."""
        self._ended = True
        self._on_close(self.request_id)
