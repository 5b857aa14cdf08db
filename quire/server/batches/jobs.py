"""Runs the batches of a server beside its live traffic, one batch after the other, and keeps what came of them.

The routes are `server.routes.batches` and `server.routes.files`; a file from the command line is
`server.batches.offline`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from quire.config import env
from quire.server.batches.caller import Caller
from quire.server.batches.lines import (
    BadLineError,
    Line,
    answer_record,
    fault_record,
    raw_lines,
    read_line,
)
from quire.server.batches.records import BatchRecord, FileRecord, LineFault
from quire.server.batches.store import Store, StoreBusyError
from quire.server.errors import HttpError
from quire.server.state import ServerState

logger = logging.getLogger(__name__)

MAX_LINES = 100_000
"""Requests in one batch."""
MAX_FAULTS = 100
"""Faults of an input file that are told."""

_LOOK_S = 0.05  # how often a line that gives way looks whether the engine is free
_IDLE_S = 30.0  # how often files are looked through for those whose time is over
_AGAIN_S = 1.0  # before a batch that could not go on is tried again
_READ_AHEAD = 64
_PREFIXES = ("batch_req_", "req_")
_LOW_PRIORITY = 1_000_000  # served after every request that a client is likely to mark


class BatchService:
    """Files and batches of one server. Use it from the event loop; the folder is opened on first use."""

    def __init__(self, state: ServerState, caller: Caller) -> None:
        self._state = state
        self._caller = caller
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._wake = asyncio.Event()
        self._freed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._active: BatchRecord | None = None
        self._cancelled: dict[str, int] = {}  # ids of batches to be cancelled -> Unix seconds
        self._num_lines = 0

    @property
    def folder(self) -> Path:
        """Where files and batches lie."""
        given = self._state.config.batch_dir
        return Path(given).expanduser() if given else env.cache_dir() / "batches"

    def takes(self, endpoint: str) -> bool:
        """Whether lines of a batch may go to this path."""
        return self._caller.takes(endpoint)

    async def store(self) -> Store:
        """The open folder. Raises HttpError (503) if it cannot be had."""
        async with self._opening:
            if self._store is None:
                try:
                    self._store = await asyncio.to_thread(Store, self.folder)
                except StoreBusyError:
                    raise _no_store("another server has the folder; give --batch-dir") from None
                except (OSError, sqlite3.Error) as error:
                    logger.error("--batch-dir %s: %s", self.folder, error)
                    raise _no_store("the folder cannot be used; the log says why") from None
        return self._store

    def start(self) -> None:
        """Goes on with batches that were left open; call it when requests are served."""
        is_idle = self._task is None or self._task.done()
        if is_idle and (self._store is not None or self.folder.is_dir()):
            self._task = asyncio.create_task(self._work())
        self._wake.set()

    async def close(self) -> None:
        """Stops the work, which a later start goes on with, and lets the folder go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
            self._store = None
        await self._caller.close()

    async def current(self, batch_id: str) -> BatchRecord | None:
        """A batch as it is now; the one that runs has counts that are not saved yet."""
        if self._active is not None and self._active.id == batch_id:
            return self._active
        return await asyncio.to_thread((await self.store()).batch, batch_id)

    async def cancel(self, record: BatchRecord) -> None:
        """Asks for the end of an open batch; lines that have run keep their results."""
        self._cancelled[record.id] = int(time.time())
        self._obey(record)
        await asyncio.to_thread((await self.store()).save_batch, record)
        self.start()

    def _obey(self, record: BatchRecord) -> None:
        """Notes a cancellation, which may have come to an older copy of the record."""
        if record.id in self._cancelled and record.status in ("validating", "in_progress"):
            record.status, record.cancelling_at = "cancelling", self._cancelled[record.id]

    async def _work(self) -> None:
        try:
            store = await self.store()
        except HttpError as error:
            logger.info("batches of %s are left to the server that has it: %s", self.folder, error)
            return
        while True:
            try:
                await self._take_one(store)
            except (OSError, sqlite3.Error) as error:
                logger.error("batches stand still and are tried again: %s", error)
                await asyncio.sleep(_IDLE_S)

    async def _take_one(self, store: Store) -> None:
        """Works on the batch that comes next; waits a while where there is none."""
        self._wake.clear()
        await asyncio.to_thread(store.sweep, time.time())
        record = await asyncio.to_thread(store.next_open, self._state.names)
        if record is None or self._state.draining:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self._wake.wait()
            return
        self._active = record
        try:
            await self._advance(store, record)
        except (OSError, sqlite3.Error):
            raise
        except Exception:
            logger.exception("batch %s failed", record.id)
            message = "the server failed over this batch; the reason is in its log"
            record.faults = [_fault("internal_error", message, None)]
            record.status, record.failed_at = "failed", int(time.time())
            await asyncio.to_thread(store.save_batch, record)
        finally:
            self._active = None
        if record.status == "in_progress":
            await asyncio.sleep(_AGAIN_S)  # the engine is gone, or the server drains

    async def _advance(self, store: Store, record: BatchRecord) -> None:
        """Takes a batch from where it stands to its end, or as far as it gets."""
        if record.status == "validating":
            faults, record.total = await asyncio.to_thread(self._validate, store, record)
            if record.status == "validating":  # not cancelled meanwhile
                if faults:
                    record.faults = faults
                    record.status, record.failed_at = "failed", int(time.time())
                    await asyncio.to_thread(store.save_batch, record)
                    return
                record.status, record.in_progress_at = "in_progress", int(time.time())
                await asyncio.to_thread(store.save_batch, record)
        self._obey(record)
        done = await asyncio.to_thread(store.done_lines, record.id)
        record.failed = sum(done.values())
        record.completed = len(done) - record.failed
        if record.status == "in_progress":
            await self._run_lines(store, record, set(done))
        if record.status == "in_progress" and self._state.draining:
            return
        await self._finish(store, record)

    def _validate(self, store: Store, record: BatchRecord) -> tuple[list[LineFault], int]:
        """Faults of the input file, and how many requests it has."""
        faults: list[LineFault] = []
        seen: set[str] = set()
        for line in self._lines(store, record):
            if isinstance(line, BadLineError):
                faults.append(line.fault)
            elif line.url != record.endpoint:
                message = f"url is {line.url}, but the batch is for {record.endpoint}"
                faults.append(_fault("mismatched_url", message, line.number, "url"))
            elif line.custom_id in seen:
                message = f"custom_id {line.custom_id[:64]!r} is that of an earlier line"
                faults.append(_fault("duplicate_custom_id", message, line.number, "custom_id"))
            else:
                seen.add(line.custom_id)
            if len(faults) >= MAX_FAULTS:
                break
            if len(seen) > MAX_LINES:
                message = f"the file has more than {MAX_LINES} requests; split it"
                return [_fault("too_many_requests", message, None)], 0
        if not seen and not faults:
            faults.append(_fault("empty_file", "the file has no request", None))
        return faults, len(seen)

    def _lines(self, store: Store, record: BatchRecord) -> Iterator[Line | BadLineError]:
        limit = self._state.config.max_body_bytes
        path = store.path_of(record.input_file_id)
        for number, raw in raw_lines(path, max_bytes=limit):
            try:
                yield read_line(number, raw, max_bytes=limit)
            except BadLineError as error:
                yield error

    async def _run_lines(self, store: Store, record: BatchRecord, done: set[int]) -> None:
        """Runs what has not run; returns early when it is cancelled, expired, or the server drains."""
        lines = (
            line
            for line in self._lines(store, record)
            if isinstance(line, Line) and line.number not in done
        )
        running: set[asyncio.Task[None]] = set()
        try:
            while ahead := await asyncio.to_thread(list, itertools.islice(lines, _READ_AHEAD)):
                for line in ahead:
                    if not await self._may_begin(record):
                        return
                    self._num_lines += 1
                    task = asyncio.create_task(self._run_line(store, record, line))
                    running.add(task)
                    task.add_done_callback(running.discard)
            while running and self._goes_on(record):
                await asyncio.wait(running, timeout=_LOOK_S)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _goes_on(self, record: BatchRecord) -> bool:
        self._obey(record)
        llm = self._state.llm
        dead = llm is None or llm.errored
        in_time = time.time() < record.expires_at
        return record.status == "in_progress" and in_time and not self._state.draining and not dead

    async def _may_begin(self, record: BatchRecord) -> bool:
        """Waits until a line may start beside the live requests; False if the batch does not go on."""
        while self._goes_on(record):
            if self._num_lines < self._room():
                return True
            self._freed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._freed.wait()
        return False

    def _room(self) -> int:
        """Lines that may run at once: all places of the engine, or a quarter beside live requests.

        None begins while a live request waits for its first token.
        """
        llm, config = self._state.llm, self._state.config
        if llm is None or not self._state.ready:
            return 0
        most = config.batch_concurrency or llm.info.max_num_seqs
        num_live = self._state.num_live - self._state.num_live_lines
        if num_live <= 0:
            return most
        return 0 if llm.stats.num_waiting else min(most, max(1, llm.info.max_num_seqs // 4))

    async def _run_line(self, store: Store, record: BatchRecord, line: Line) -> None:
        headers = {}
        if self._state.settings.scheduler.scheduling_policy == "priority":
            headers["x-vllm-priority"] = str(_LOW_PRIORITY)
        try:
            status, body = await self._caller.post(line.url, line.body, headers)
            llm = self._state.llm
            if status >= 500 and (llm is None or llm.errored):
                return  # the engine's fault, not the line's: it runs again after a restart
            result = answer_record(
                line.custom_id, status, body, prefixes=_PREFIXES, with_error=False
            )
            is_fault = status >= 400
            await asyncio.to_thread(
                store.add_result, record.id, line.number, result, is_fault=is_fault
            )
            record.failed += is_fault
            record.completed += not is_fault
        finally:
            self._num_lines -= 1
            self._freed.set()

    async def _finish(self, store: Store, record: BatchRecord) -> None:
        """Makes the output files of a batch that is over, and says how it ended."""
        ended = "completed"
        is_whole = record.completed + record.failed >= record.total
        if record.status == "cancelling":
            ended = "cancelled"
        elif not is_whole and time.time() >= record.expires_at:
            ended = "expired"
        elif not is_whole:
            return  # the engine is gone
        if record.status != "cancelling":
            record.status, record.finalizing_at = "finalizing", int(time.time())
        if not is_whole:
            await asyncio.to_thread(self._fail_rest, store, record, ended)
        outputs = []
        for name, is_fault in (("output", False), ("error", True)):
            found = await asyncio.to_thread(store.write_results, record.id, is_fault=is_fault)
            if found is not None:
                outputs.append(_output_record(record, name, *found))
                setattr(record, f"{name}_file_id", found[0])
        record.status = ended  # type: ignore[assignment]
        setattr(record, f"{ended}_at", int(time.time()))
        await asyncio.to_thread(store.save_batch, record, outputs)
        logger.info(
            "batch %s is %s: %d of %d lines, %d of them failed",
            *(record.id, ended, record.completed + record.failed, record.total, record.failed),
        )

    def _fail_rest(self, store: Store, record: BatchRecord, ended: str) -> None:
        """A record for each line that will not run any more."""
        done = store.done_lines(record.id)
        message = f"the batch {'expired' if ended == 'expired' else 'was cancelled'} before it ran"
        for line in self._lines(store, record):
            if isinstance(line, Line) and line.number not in done:
                text = fault_record(line.custom_id, f"batch_{ended}", message, prefix=_PREFIXES[0])
                store.add_result(record.id, line.number, text, is_fault=True)


def _output_record(record: BatchRecord, name: str, file_id: str, size: int) -> FileRecord:
    now = int(time.time())
    return FileRecord(
        id=file_id,
        bytes=size,
        created_at=now,
        filename=f"{record.id}_{name}.jsonl",
        purpose="batch_output",
        expires_at=None if record.expires_after_s is None else now + record.expires_after_s,
    )


def _fault(code: str, message: str, line: int | None, param: str | None = None) -> LineFault:
    return LineFault(code=code, message=message, line=line, param=param)


def _no_store(why: str) -> HttpError:
    return HttpError(503, f"files and batches are not served: {why}", type="ServiceUnavailable")
