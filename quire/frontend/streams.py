"""The outputs of one request on their way to one reader, bounded however slow the reader is.

Making the outputs is `frontend.outputs`; who puts them here is `quire.async_llm`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, Self, TypeVar

from quire.protocol.errors import QuireError

_TURN = 2  # outputs that are put into streams in a short turn of the loop


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


class Deliveries:
    """Outputs on their way into their streams, all at once or a few in each turn of an event loop.

    What a step of hundreds of sequences gives keeps the loop, for as long as all of it takes to write,
    from what has come on its sockets meanwhile.

    short_turns  whether a few at a time, which costs a tenth more for a token.
    """

    def __init__(self) -> None:
        self.short_turns = False
        self._waiting: deque[tuple[RequestStream[Any], Any]] = deque()
        self._goes_on = False

    def add(self, stream: RequestStream[Any], output: Any) -> None:
        """To be put; `begin` puts it."""
        self._waiting.append((stream, output))

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Puts all, or the first ones now and the others in the turns to come. Call it in the loop."""
        if not self._goes_on:
            self._go_on(loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._put(_TURN if self.short_turns else len(self._waiting))
        self._goes_on = bool(self._waiting)
        if self._goes_on:
            loop.call_soon(self._go_on, loop)

    def _put(self, count: int) -> None:
        for _ in range(min(count, len(self._waiting))):
            stream, output = self._waiting.popleft()
            stream.put(output)

    def finish(self) -> None:
        """Puts all that wait, at once."""
        self._put(len(self._waiting))
