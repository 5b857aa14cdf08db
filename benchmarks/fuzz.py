"""The fuzz test in full: 1,000,000 bodies through the socket of a server with the demo model behind it.

Run as `python -m benchmarks.fuzz` from the repository; ends with 1 at the first round after which the server
is not as it was, or if any answer was wrong. `--only N` sends one body and prints what came.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass

from tests.e2e.killing import Server, serving
from tests.robustness.alive import Alive
from tests.robustness.fuzzing import FLAGS, Connection, Tally, send_round
from tests.robustness.spoilt import request_of

WARM = 20_000
"""Bodies after which caches are full; memory is compared with what it was then."""


@dataclass
class Memory:
    """Resident bytes of the server when it was warm, and now."""

    warm: int = 0
    now: int = 0

    def grown(self) -> int:
        return self.now - self.warm if self.warm else 0


def main() -> int:
    """Prints a line every round of ten checks, and the sums at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--width", type=int, default=48, help="requests at a time")
    parser.add_argument("--round", type=int, default=1000, help="bodies between two checks")
    parser.add_argument("--only", type=int, help="send this one body")
    args = parser.parse_args()
    with serving(*FLAGS) as server:
        if args.only is not None:
            return _only(server, args.seed, args.only)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run", flush=True)
        return _run(server, args)


def _run(server: Server, args: argparse.Namespace) -> int:
    alive = Alive(server, patience_s=60)
    tally, memory = Tally(), Memory()
    begun_s = time.monotonic()
    end_s = begun_s + 60 * args.minutes if args.minutes else float("inf")
    printed = 0
    for first in range(0, args.count, args.round):
        if time.monotonic() > end_s:
            break
        numbers = range(first, min(first + args.round, args.count))
        asyncio.run(send_round(server, args.seed, numbers, args.width, tally))
        try:
            alive.check(most_growth=1 << 30)
        except AssertionError as error:
            print(f"not alive after body {numbers[-1]}: {error}\n{server.log()[-5000:]}")
            _say(tally, memory, begun_s)
            return 1
        memory.now = alive.memory_bytes()
        if not memory.warm and tally.sent >= WARM:
            memory.warm = memory.now
        for number, path, fault in tally.faults[printed:]:
            print(f"body {number} of seed {args.seed}, {path}: {fault}", flush=True)
        printed = len(tally.faults)
        if numbers[-1] + 1 == args.count or not (first // args.round + 1) % 10:
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


def _only(server: Server, seed: int, number: int) -> int:
    host, port = server.url.removeprefix("http://").split(":")
    sent = request_of(seed, number)
    print(sent.kind, sent.path, sent.lines, sent.data[:4000].decode("utf-8", "backslashreplace"))
    status, head, body = asyncio.run(Connection(host, int(port)).ask(sent))
    print(status, head.decode(), body[:4000].decode())
    print(server.log()[-6000:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
