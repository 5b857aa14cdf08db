"""A server at ten times its capacity: who is refused, how fast, told what, and how long the others wait.

Run as `python -m benchmarks.overload` from the repository; ends with 1 if a promise is broken: a refusal
in under 20 ms, a Retry-After that is right within 30 %, and first tokens within --max-queue-wait and
what an unloaded server takes. The load comes over raw sockets from this process, which shares the cores
with the server: an answer counts as come when it reached the socket, which the system notes (Linux), and
how much later this process got to run is printed beside it.

Retry-After is right if the next request is admitted so much later. `--cold` loads a server that has
served nothing yet, `--mixed` sends requests of all sizes.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import socket
import struct
import sys
import time
from dataclasses import dataclass

from tests.e2e.killing import Server, serving

MAX_REFUSAL_S = 0.020
RETRY_TOLERANCE = 0.30
_TIMESTAMPS = 35  # SO_TIMESTAMPNS of Linux, in which its messages carry the same number


@dataclass
class Try:
    """One request: when it was sent, its status, when its head and its first token came, and when the head
    was seen here; Unix time, then seconds from there."""

    sent_s: float
    status: int = 0
    head_s: float = 0.0
    seen_s: float = 0.0
    first_s: float = 0.0
    retry_s: float = 0.0


class Bodies:
    """Completions of random token ids, no two with a common prefix.

    is_mixed  with prompts and answers of a tenth to twice the tokens, and two answers to every fourth.
    """

    def __init__(self, tokens: int, max_tokens: int, is_mixed: bool) -> None:
        self._rng = random.Random(1)
        self._ids = [str(self._rng.randrange(300, 3000)) for _ in range(2 * tokens)]
        self._tokens, self._max_tokens = tokens, max_tokens
        self._shares = (0.1, 0.3, 0.6, 1.0, 2.0) if is_mixed else (1.0,)
        self._counts = (1, 1, 1, 2) if is_mixed else (1,)
        self._numbers = itertools.count()

    def __next__(self) -> bytes:
        high, low = divmod(next(self._numbers), 2500)
        count = int(self._tokens * self._rng.choice(self._shares)) - 2
        ids = ", ".join([str(300 + low), str(300 + high), *self._ids[:count]])
        length = int(self._max_tokens * self._rng.choice(self._shares))
        more = f'"max_tokens": {max(1, length)}, "n": {self._rng.choice(self._counts)}'
        return f'{{"prompt": [{ids}], {more}, "stream": true, "ignore_eos": true}}'.encode()


class Connection:
    """A socket of its own for one request; `receive` tells when the bytes have come, not when they were read."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        self._loop = asyncio.get_running_loop()

    async def send(self, host: str, port: int, data: bytes) -> float:
        """Connects and sends; returns the Unix time before the first byte went."""
        await self._loop.sock_connect(self._socket, (host, port))
        sent_s = time.time()
        await self._loop.sock_sendall(self._socket, data)
        return sent_s

    async def receive(self) -> tuple[bytes, float]:
        """Some bytes and the Unix time at which the last of them came; none at the end."""
        readable = self._loop.create_future()
        self._loop.add_reader(self._socket, lambda: readable.done() or readable.set_result(None))
        try:
            await readable
        finally:
            self._loop.remove_reader(self._socket)
        data, notes, _, _ = self._socket.recvmsg(65536, 64)
        for _, kind, note in notes:
            if kind == _TIMESTAMPS:
                seconds, nanoseconds = struct.unpack("qq", note)
                return data, seconds + nanoseconds / 1e9
        return data, time.time()

    def close(self) -> None:
        self._socket.close()


async def ask(host: str, port: int, body: bytes) -> Try:
    """Sends one request on a connection of its own and reads it to the end."""
    connection = Connection()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    one = Try(0.0)
    try:
        one.sent_s = await connection.send(host, port, head.encode() + body)
        data, came_s = await connection.receive()
        one.head_s, one.seen_s = came_s - one.sent_s, time.time() - one.sent_s
        lines = data.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
        one.status = int(lines[0].split()[1])
        for line in lines:
            if line.startswith("retry-after-ms:"):
                one.retry_s = float(line.partition(":")[2]) / 1000
        while data:
            if not one.first_s and b"data: " in data:
                one.first_s = came_s - one.sent_s
            data, came_s = await connection.receive()
    finally:
        connection.close()
    return one


async def offer(server: Server, bodies: Bodies, rate: float, seconds: float) -> list[Try]:
    """Requests at a steady rate, whatever becomes of them."""
    host, port = server.url.removeprefix("http://").split(":")
    begun_s, tasks = time.monotonic(), []
    while (passed_s := time.monotonic() - begun_s) < seconds:
        while len(tasks) < passed_s * rate:
            tasks.append(asyncio.create_task(ask(host, int(port), next(bodies))))
        await asyncio.sleep(0.002)
    return await asyncio.gather(*tasks)


async def alone(server: Server, bodies: Bodies, count: int) -> list[Try]:
    """Requests one after the other."""
    host, port = server.url.removeprefix("http://").split(":")
    tries = [await ask(host, int(port), next(bodies)) for _ in range(count)]
    assert all(one.status == 200 for one in tries), "an unloaded server does not serve these"
    return tries


async def capacity(server: Server, bodies: Bodies, at_once: int, seconds: float) -> float:
    """Requests a second with so many at once."""
    host, port = server.url.removeprefix("http://").split(":")
    begun_s, done = time.monotonic(), 0

    async def worker() -> None:
        nonlocal done
        while time.monotonic() < begun_s + seconds:
            one = await ask(host, int(port), next(bodies))
            done += one.status == 200

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return done / (time.monotonic() - begun_s)


def percentile(values: list[float], share: float) -> float:
    """0 for no values."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def retry_errors(tries: list[Try], *, least_s: float = 1.0) -> list[float]:
    """For each refusal that names at least `least_s`: how far off it was, as a share of the truth."""
    admitted = sorted(one.sent_s for one in tries if one.status == 200)
    errors = []
    for one in tries:
        later = [sent_s for sent_s in admitted if sent_s > one.sent_s]
        if one.status == 429 and one.retry_s >= least_s and later:
            truth_s = later[0] - one.sent_s
            errors.append(abs(one.retry_s - truth_s) / truth_s)
    return errors


def report(tries: list[Try], unloaded_s: float, max_wait_s: float) -> bool:
    """Prints the figures; whether every promise was kept."""
    refused = [one for one in tries if one.status == 429]
    served = [one for one in tries if one.status == 200]
    errors = retry_errors(tries)
    refusal_s = percentile([one.head_s for one in refused], 0.99)
    first_s = percentile([one.first_s for one in served], 0.99)
    off = percentile(errors, 0.95)
    print(
        f"{len(tries)} requests, {len(served)} served, {len(refused)} refused, "
        f"{len(tries) - len(served) - len(refused)} otherwise"
    )
    seen = [one.seen_s for one in refused]
    print(
        f"refusals: median {percentile([one.head_s for one in refused], 0.5) * 1000:.1f} ms, p99 "
        f"{refusal_s * 1000:.1f} ms (read here after {percentile(seen, 0.5) * 1000:.1f} and "
        f"{percentile(seen, 0.99) * 1000:.1f} ms); Retry-After off by {percentile(errors, 0.5):.0%} in the median, "
        f"p95 {off:.0%} ({len(errors)} of a second or more)"
    )
    print(
        f"first token: median {percentile([one.first_s for one in served], 0.5):.2f} s, p99 {first_s:.2f} s; "
        f"promised {max_wait_s + unloaded_s:.2f} s"
    )
    return (
        len(served) + len(refused) == len(tries)
        and refusal_s < MAX_REFUSAL_S
        and off <= RETRY_TOLERANCE
        and first_s <= max_wait_s + unloaded_s
    )


def main() -> int:
    """Returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=10.0, help="the load, in capacities")
    parser.add_argument("--prompt-tokens", type=int, default=1500)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--max-queue-wait", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests a second; default: measured")
    parser.add_argument("--cold", action="store_true", help="load a server that has served nothing")
    parser.add_argument(
        "--mixed", action="store_true", help="prompts and answers of all sizes, and n = 2"
    )
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run", flush=True)
    bodies = Bodies(args.prompt_tokens, args.max_tokens, args.mixed)
    flags = ("--disable-uvicorn-access-log", "--max-queue-wait")
    with serving(*flags, "0") as server:
        solo = asyncio.run(alone(server, bodies, 20))[5:]
        unloaded_s = max(one.first_s for one in solo)
        rate = args.rate or asyncio.run(capacity(server, bodies, 32, 10.0))
        print(
            f"capacity {rate:.1f} requests/s; first token of one alone: {unloaded_s:.3f} s at most"
        )
    with serving(*flags, f"{args.max_queue_wait:g}") as server:
        if not args.cold:
            asyncio.run(capacity(server, bodies, 4, 10.0))
            time.sleep(1.0)
        tries = asyncio.run(offer(server, bodies, rate * args.times, args.seconds))
        return 0 if report(tries, unloaded_s, args.max_queue_wait) else 1


if __name__ == "__main__":
    sys.exit(main())
