"""Sends the fuzzer's requests over sockets, judges each answer, and checks the server between rounds.

What is sent is `tests.robustness.spoilt`; the full form is `benchmarks.fuzz`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.e2e.killing import Server
from tests.robustness.alive import error_of, leaks_in
from tests.robustness.spoilt import Sent

FLAGS = ("--max-model-len", "512", "--max-queue-wait", "0", "--responses-store", "memory")
FLAGS += ("--disable-uvicorn-access-log", "--engine-restarts", "0", "--threads", "1")
FLAGS += ("--override-generation-config", '{"max_new_tokens": 32}')
"""Of the server that is fuzzed: short answers, nothing refused for want of time, no second life.

A body that lost its max_tokens asks for all of the context; they were one in fifty, and most of the work.
"""
FINE = frozenset({200, 400, 404, 408, 409, 413, 415, 429})
"""What a request may be answered with; 500 and 503 are no answer to a body."""
_TIMEOUT_S = 120.0


@dataclass
class Tally:
    """What came of the requests so far. `faults` has number, path and reason of the first ones."""

    sent: int = 0
    reached: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[int, str, str]] = field(default_factory=list)
    num_faults: int = 0

    def take(self, number: int, sent: Sent, status: int, fault: str | None) -> None:
        self.sent += 1
        self.statuses[f"{sent.kind} {status}"] += 1
        if sent.generates and status == 200:
            self.reached += 1
        if fault is not None:
            self.num_faults += 1
            if len(self.faults) < 200:
                self.faults.append((number, sent.path, fault))


class Connection:
    """One connection, kept as long as the server keeps it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, sent: Sent) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer."""
        for attempt in range(2):
            fresh = self._writer is None
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            try:
                self._writer.write(sent.message(f"{self._host}:{self._port}"))
                async with asyncio.timeout(_TIMEOUT_S):
                    return await self._read()
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                if fresh or attempt:
                    raise  # a connection that was idle may have been closed meanwhile; a new one not
        raise AssertionError

    async def _read(self) -> tuple[int, bytes, bytes]:
        reader = self._reader
        assert reader is not None
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        status = int(head[9:12])
        parts = []
        if b"transfer-encoding: chunked" in lower:
            while size := int(await reader.readline(), 16):
                parts.append((await reader.readexactly(size + 2))[:-2])
            await reader.readline()
        else:
            _, _, rest = lower.partition(b"content-length: ")
            parts.append(await reader.readexactly(int(rest.partition(b"\r")[0] or b"0")))
        if b"connection: close" in lower:
            self.close()
        return status, head, b"".join(parts)

    def close(self) -> None:
        """Ends the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def fault_in(sent: Sent, status: int, head: bytes, body: bytes) -> str | None:
    """What is wrong with an answer; None for nothing."""
    if status not in FINE:
        return f"status {status}: {body[:300]!r}"
    if status != 200:
        error = error_of(body)
        if error is None or not isinstance(error.get("message"), str) or not error["message"]:
            return f"{status} without an error object: {body[:300]!r}"
        leaks = leaks_in(error["message"], sent.data.decode("utf-8", "replace"))
        return f"leaks {leaks}: {error['message'][:300]}" if leaks else None
    if b"text/event-stream" in head.lower():
        return _fault_in_stream(sent, body)
    if b"application/json" not in head.lower():
        return None if sent.method == "GET" else f"200 that is not JSON: {head[:300]!r}"
    try:
        json.loads(body)
    except ValueError:
        return f"200 that cannot be read: {body[:300]!r}"
    return None


def _fault_in_stream(sent: Sent, body: bytes) -> str | None:
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if not lines:
        return f"an empty stream: {body[:300]!r}"
    is_anthropic = sent.path == "/v1/messages"
    if not is_anthropic and sent.path != "/v1/responses" and lines[-1] != b"[DONE]":
        return f"a stream without its end: {lines[-1][:300]!r}"
    for line in lines:
        if line == b"[DONE]":
            continue
        try:
            event = json.loads(line)
        except ValueError:
            return f"an event that is not JSON: {line[:300]!r}"
        if isinstance(event, dict) and event.get("error"):
            return f"an error in a stream: {line[:300]!r}"
    return None


async def send_round(
    server: Server, requests: Iterable[tuple[int, Sent]], width: int, tally: Tally
) -> None:
    """All the requests, with their numbers, `width` at a time."""
    host, port = server.url.removeprefix("http://").split(":")
    left = iter(requests)

    async def work() -> None:
        with contextlib.closing(Connection(host, int(port))) as connection:
            for number, sent in left:
                try:
                    status, head, body = await connection.ask(sent)
                except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                    tally.take(number, sent, 0, f"no answer: {type(error).__name__} {error}")
                    connection.close()
                else:
                    tally.take(number, sent, status, fault_in(sent, status, head, body))

    await asyncio.gather(*(work() for _ in range(width)))
