"""The fuzz test in full: 1,000,000 bodies through the socket of a server with the demo model behind it.

Run as `python -m benchmarks.fuzz` from the repository; ends with 1 at the first round after which the server
is not as it was, or if any answer was wrong. `--only N` sends one body and prints what came.

Every 25th body is made by schemathesis (`pip install schemathesis`) from the server's OpenAPI document,
where that is installed; the others by `tests.robustness.spoilt`. A line is printed every ten rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache

import httpx
import uvloop

from tests.e2e.killing import Server, serving
from tests.robustness.alive import Alive
from tests.robustness.fuzzing import FLAGS, Connection, Tally, send_round
from tests.robustness.schema_bodies import SchemaBodies, is_installed
from tests.robustness.spoilt import Sent, request_of

WARM = 20_000
"""Bodies after which caches are full; memory is compared with what it was then."""
_EVERY = 25  # a body from schemathesis takes 6 ms to make, one of our own 0.2
_CHUNK = 250
_MOST_GROWTH = 256 << 20  # bytes in one round; one large body may take as much for a moment


@dataclass
class Memory:
    """Resident bytes of the server when it was warm, and now."""

    warm: int = 0
    now: int = 0

    def grown(self) -> int:
        return self.now - self.warm if self.warm else 0


class Source:
    """Body number N of a seed, from one source or the other; schemathesis works ahead in its own process."""

    def __init__(self, server: Server, seed: int) -> None:
        self._seed = seed
        self._document = b""
        self._chunks: dict[int, Future[list[Sent]]] = {}
        if is_installed():
            self._document = httpx.get(f"{server.url}/openapi.json").content
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context)

    def close(self) -> None:
        """Ends the process."""
        if self._document:
            self._pool.shutdown(cancel_futures=True)

    def name(self) -> str:
        """What bodies are made by."""
        if not self._document:
            return "bodies of our own only: schemathesis is not installed"
        return f"every {_EVERY}th body by schemathesis, from the OpenAPI document"

    def sent(self, number: int) -> Sent:
        """One request."""
        if not self._document or number % _EVERY:
            return request_of(self._seed, number)
        chunk, place = divmod(number // _EVERY, _CHUNK)
        for one in (chunk, chunk + 1):
            if one not in self._chunks:
                self._chunks[one] = self._pool.submit(_make, self._document, self._seed, one)
        self._chunks.pop(chunk - 1, None)
        return self._chunks[chunk].result()[place]


@cache
def _bodies(document: bytes) -> SchemaBodies:
    return SchemaBodies(json.loads(document))


def _make(document: bytes, seed: int, chunk: int) -> list[Sent]:
    """In the other process."""
    return _bodies(document).chunk(seed, chunk, _CHUNK)


def main() -> int:
    """Prints a line every ten rounds, and the sums at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first body")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--width", type=int, default=64, help="requests at a time")
    parser.add_argument("--round", type=int, default=1000, help="bodies between two checks")
    parser.add_argument("--only", type=int, help="send this one body")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(*FLAGS, "--batch-dir", folder) as server,
    ):
        source = Source(server, args.seed)
        try:
            if args.only is not None:
                return _only(server, source.sent(args.only))
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run")
            print(source.name(), flush=True)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return _run(server, source, args, runner)
        finally:
            source.close()


def _run(server: Server, source: Source, args: argparse.Namespace, runner: asyncio.Runner) -> int:
    alive = Alive(server)
    tally, memory = Tally(), Memory()
    begun_s = time.monotonic()
    end_s = begun_s + 60 * args.minutes if args.minutes else float("inf")
    printed = 0
    for first in range(args.first, args.count, args.round):
        if time.monotonic() > end_s:
            break
        numbers = range(first, min(first + args.round, args.count))
        requests = ((number, source.sent(number)) for number in numbers)
        runner.run(send_round(server, requests, args.width, tally))
        try:
            alive.check(most_growth=_MOST_GROWTH)
        except AssertionError as error:
            print(f"not alive after body {numbers[-1]}: {error!r}\n{server.log()[-5000:]}")
            _say(tally, memory, begun_s)
            return 1
        memory.now = alive.memory_bytes()
        if not memory.warm and tally.sent >= WARM:
            memory.warm = memory.now
        for number, path, fault in tally.faults[printed:]:
            print(f"body {number} of seed {args.seed}, {path}: {fault}", flush=True)
        printed = len(tally.faults)
        if not (first // args.round + 1) % 10:
            _say(tally, memory, begun_s)
    _say(tally, memory, begun_s)
    for name, count in sorted(tally.statuses.items()):
        print(f"  {name:16} {count}")
    print(f"engine process {server.engine_pid()} from the first body to the last")
    return 1 if tally.num_faults else 0


def _say(tally: Tally, memory: Memory, begun_s: float) -> None:
    seconds = time.monotonic() - begun_s
    print(
        f"{tally.sent} bodies in {seconds:.0f} s, {tally.sent / seconds:.0f} a second; "
        f"{tally.reached / max(1, tally.sent):.1%} came out of the engine; {tally.num_faults} wrong "
        f"answers; {memory.now >> 20} MiB, {memory.grown() >> 20} more than when warm",
        flush=True,
    )


def _only(server: Server, sent: Sent) -> int:
    host, port = server.url.removeprefix("http://").split(":")
    print(sent.kind, sent.path, sent.lines, sent.data[:4000].decode("utf-8", "backslashreplace"))
    status, head, body = asyncio.run(Connection(host, int(port)).ask(sent))
    print(status, head.decode(), body[:4000].decode())
    print(server.log()[-6000:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
