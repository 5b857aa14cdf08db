"""The responses of one server: those that run, in the background too, and those that are kept.

One response is `server.responses.run`, the table of kept ones `server.responses.store`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from quire.config.env import cache_dir
from quire.config.server import ServerConfig
from quire.protocol.errors import OutOfCapacityError, RequestFailedError, SettingsError
from quire.server.errors import HttpError
from quire.server.responses.remote import ToolServers
from quire.server.responses.resource import ENDED
from quire.server.responses.run import ResponseRun, encoded
from quire.server.responses.store import ResponseStore, Stored

logger = logging.getLogger(__name__)

MAX_BACKGROUND = 256
"""Responses in the background at once."""
MAX_LOG_BYTES = 16 << 20
"""Bytes of events that are kept of one response; the oldest go first."""
_FILE = "responses.sqlite3"


class EventLog:
    """The events of a response in the background, for any number of readers at any place."""

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._first = 0
        self._size = 0
        self._ended = False
        self._news = asyncio.Event()

    def numbered(self, events: list[dict[str, Any]]) -> list[bytes]:
        """Events as they go over the wire, if they are added next."""
        start = self._first + len(self._events)
        return [encoded(event, start + place) for place, event in enumerate(events)]

    def add(self, *events: bytes) -> None:
        """Shows events to the readers."""
        for data in events:
            self._events.append(data)
            self._size += len(data)
        while self._size > MAX_LOG_BYTES and len(self._events) > 1:
            self._size -= len(self._events.popleft())
            self._first += 1
        self._wake()

    def end(self) -> None:
        """There are no more events."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def kept(self, *more: bytes) -> list[bytes] | None:
        """All events and those that come next; None if the first of them are gone."""
        return [*self._events, *more] if self._first == 0 else None

    async def read(self, start: int) -> AsyncGenerator[bytes, None]:
        """The events from the number `start` on, until the last one."""
        place = start
        while True:
            place = max(place, self._first)
            while place - self._first < len(self._events):
                yield self._events[place - self._first]
                place = max(place + 1, self._first)
            if self._ended:
                return
            await self._news.wait()


class Responses:
    """What `/v1/responses` remembers. Use it from the event loop. Raises SettingsError."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.servers = ToolServers(config.tool_server)
        self._store: ResponseStore | None = None
        self._live: dict[str, ResponseRun] = {}
        self._logs: dict[str, EventLog] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._deleted: set[str] = set()
        self._stopped: set[str] = set()
        for name in ("responses_max_count", "responses_max_bytes", "responses_ttl"):
            if getattr(config, name) <= 0:
                flag = "--" + name.replace("_", "-")
                raise SettingsError(
                    f"{flag} is {getattr(config, name)}; it must be more than 0 "
                    "(--responses-store none keeps nothing)"
                )
        named = config.responses_store
        if named is not None and named not in ("memory", "none"):
            self._store = self._open(named)  # so that a wrong path ends the start

    @property
    def has_store(self) -> bool:
        """Whether responses are kept at all."""
        return self._config.responses_store != "none"

    def _open(self, name: str) -> ResponseStore:
        config = self._config
        path = None if name == "memory" else Path(name).expanduser()
        return ResponseStore(
            path,
            max_count=config.responses_max_count,
            max_bytes=config.responses_max_bytes,
            ttl_s=config.responses_ttl,
        )

    @property
    def _table(self) -> ResponseStore | None:
        """The store, opened at its first use where it is one of the server's own."""
        if self._store is None and self.has_store:
            name = self._config.responses_store or str(cache_dir() / _FILE)
            try:
                self._store = self._open(name)
            except SettingsError as error:
                logger.warning("%s; responses are kept in memory", error)
                self._store = self._open("memory")
        return self._store

    def is_known(self, response_id: str) -> bool:
        """Whether a response of this id runs, or is kept."""
        table = self._table
        return response_id in self._live or (
            table is not None and table.get(response_id) is not None
        )

    async def earlier_items(self, response_id: str | None) -> list[dict[str, Any]]:
        """The items of a conversation up to and with a response. Raises HttpError."""
        if response_id is None:
            return []
        if response_id in self._live:
            raise _wrong(
                "previous_response_id", f"{response_id[:64]!r} is still running; wait for it"
            )
        table = self._table
        if table is None:
            raise unknown(response_id, "previous_response_id")
        try:
            chain = await asyncio.to_thread(table.chain, response_id)
        except KeyError as error:
            raise unknown(str(error.args[0]), "previous_response_id") from None
        return [item for one in chain for item in (*one.items, *one.response["output"])]

    @contextlib.contextmanager
    def running(self, run: ResponseRun) -> Iterator[None]:
        """Inside, the response can be retrieved while it runs."""
        self._live[run.id] = run
        try:
            yield
        finally:
            self._live.pop(run.id, None)
            self._deleted.discard(run.id)

    async def keep(self, run: ResponseRun, events: list[bytes] | None = None) -> None:
        """Keeps what a response is now, if it asked for that; one that has ended runs no more."""
        table = self._table
        if table is not None and run.request.store and run.id not in self._deleted:
            stored = Stored(
                response=run.resource(),
                items=run.items,
                previous=run.request.previous_response_id,
                events=events,
            )
            await asyncio.to_thread(table.put, stored)
            if run.id in self._deleted:
                await asyncio.to_thread(table.delete, run.id)
        if run.has_ended:
            self._live.pop(run.id, None)

    async def start(self, run: ResponseRun) -> EventLog:
        """Runs a response in the background. Raises OutOfCapacityError."""
        if len(self._logs) >= MAX_BACKGROUND:
            raise OutOfCapacityError(
                f"{MAX_BACKGROUND} responses run in the background; try again later",
                retry_after_s=5.0,
            )
        run.status = "queued"
        log = self._logs[run.id] = EventLog()
        first = [
            {"type": "response.created", "response": run.resource()},
            {"type": "response.queued", "response": run.resource()},
        ]
        log.add(*log.numbered(first))
        try:
            await self.keep(run)
        except BaseException:
            del self._logs[run.id]
            raise
        self._live[run.id] = run
        self._tasks[run.id] = asyncio.create_task(self._in_background(run, log))
        return log

    async def _in_background(self, run: ResponseRun, log: EventLog) -> None:
        with run.state.in_flight(), self.running(run):
            try:
                last = await self._fill(run, log)
            except asyncio.CancelledError:
                stopped = RequestFailedError("the server was stopped")
                last = [run.cancel() if run.id in self._stopped else run.fail(stopped)]
            try:
                data = log.numbered(last)
                await self.keep(run, log.kept(*data))  # a reader of the last event may ask for it
                log.add(*data)
            finally:
                log.end()
                self._stopped.discard(run.id)
                self._tasks.pop(run.id, None)
                self._logs.pop(run.id, None)

    async def _fill(self, run: ResponseRun, log: EventLog) -> list[dict[str, Any]]:
        """Runs the response to its end; the events that are not in the log yet."""
        try:
            news = await run.begin(patient=True)
        except Exception as error:
            return [run.fail(error)]
        run.status = "in_progress"
        log.add(*log.numbered([{"type": "response.in_progress", "response": run.resource()}]))
        last = []
        async with contextlib.aclosing(run.events(news)) as events:
            async for event in events:
                if run.has_ended:
                    last.append(event)
                else:
                    log.add(*log.numbered([event]))
        return last

    async def get(self, response_id: str) -> dict[str, Any]:
        """The response object as it is now. Raises HttpError."""
        if response_id in self._live and response_id not in self._deleted:
            return self._live[response_id].resource()
        return (await self.stored(response_id)).response

    async def stored(self, response_id: str) -> Stored:
        """A response that is kept. One whose server is gone has failed. Raises HttpError."""
        table = self._table
        found = None if table is None else await asyncio.to_thread(table.get, response_id)
        if found is None:
            raise unknown(response_id)
        if found.response["status"] not in ENDED and not _lives(found.owner):
            error = {"code": "server_error", "message": "the server that ran it has ended"}
            response = {**found.response, "status": "failed", "error": error}
            return Stored(response=response, items=found.items, previous=found.previous)
        return found

    async def items(self, response_id: str) -> list[dict[str, Any]]:
        """The input items of a response, in order. Raises HttpError."""
        if response_id in self._live and response_id not in self._deleted:
            return self._live[response_id].items
        return (await self.stored(response_id)).items

    async def events(self, response_id: str, start: int) -> AsyncGenerator[bytes, None]:
        """The stream of a response in the background from event `start` on. Raises HttpError."""
        log = self._logs.get(response_id)
        if log is not None and response_id not in self._deleted:
            return log.read(start)
        stored = await self.stored(response_id)
        if stored.events is None:
            raise _wrong(
                "stream",
                f"{response_id[:64]!r} cannot be streamed: its events were not kept; responses that "
                "were created with background true have them",
            )
        return _sent(stored.events[start:])

    async def cancel(self, response_id: str) -> dict[str, Any]:
        """Ends a response in the background; one that was cancelled stays so. Raises HttpError."""
        task = self._tasks.get(response_id)
        if task is None or response_id in self._deleted:
            found = await self.get(response_id)
            if found["status"] == "cancelled":
                return found
            raise _wrong(
                "response_id",
                f"{response_id[:64]!r} is {found['status']}; only a response that runs in the "
                "background can be cancelled",
            )
        run = self._live[response_id]
        await self._stop(response_id, task)
        return run.resource()

    async def _stop(self, response_id: str, task: asyncio.Task[None]) -> None:
        self._stopped.add(response_id)
        task.cancel()
        await asyncio.wait({task})

    async def delete(self, response_id: str) -> None:
        """Forgets a response; one in the background ends, another one is not kept. Raises HttpError."""
        if response_id in self._live and response_id not in self._deleted:
            self._deleted.add(response_id)
            task = self._tasks.get(response_id)
            if task is not None:
                await self._stop(response_id, task)
            if self._table is not None:
                await asyncio.to_thread(self._table.delete, response_id)
            return
        table = self._table
        if table is None or not await asyncio.to_thread(table.delete, response_id):
            raise unknown(response_id)


async def _sent(events: list[bytes]) -> AsyncGenerator[bytes, None]:
    for event in events:
        yield event


def _lives(process: int) -> bool:
    """Whether another process of this number is there; this one knows what it runs."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def unknown(response_id: str, param: str = "response_id") -> HttpError:
    """No such response."""
    return HttpError(
        404,
        f"no response {response_id[:64]!r} is kept; it may have been deleted, or not stored",
        type="invalid_request_error",
        param=param,
    )


def _wrong(param: str, message: str) -> HttpError:
    return HttpError(400, message, type="invalid_request_error", param=param)
