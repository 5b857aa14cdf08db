"""`quire bench startup`: seconds from starting a server's process until it is ready and has made a token.

The server is a process of its own, asked over a socket in a temporary folder.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

import quire
from quire.bench import offline, wire
from quire.bench.arguments import Words, make_parser, number, read, whole
from quire.bench.report import percentile, table, write_json
from quire.bench.wire import Delta, EventReader, ServerFailedError
from quire.config import env
from quire.config.cli import Parser

_LOOK_S = 0.01  # a look takes about 1 ms of the server's time
_STOP_S = 30.0


@dataclass
class Start:
    """One start. Times in seconds from the moment before the process was made.

    bound_s    the port answers.
    phases     (what the server said it was doing, when that was first seen), in order.
    ready_s    requests are served.
    first_s    the first token of the first request has come.
    """

    bound_s: float = 0.0
    phases: list[tuple[str, float]] = field(default_factory=list)
    ready_s: float = 0.0
    first_s: float = 0.0

    def steps(self) -> list[tuple[str, float]]:
        """(phase, seconds it took), in order; they add up to `first_s`."""
        marks = [("process to port", 0.0), *self.phases, ("first request", self.ready_s)]
        ends = [when for _, when in marks[1:]] + [self.first_s]
        return [(name, end - begin) for (name, begin), end in zip(marks, ends)]

    def as_json(self) -> dict[str, Any]:
        """The numbers by name."""
        return {
            "port": self.bound_s,
            "ready": self.ready_s,
            "first_token": self.first_s,
            "phases": [{"phase": name, "seconds": seconds} for name, seconds in self.steps()],
        }


def make() -> Parser:
    """The parser."""
    parser = make_parser(
        "startup",
        "Seconds from starting `quire serve` to ready and to the first token, by phase. Before a cold start "
        "the checkpoint's files are dropped from memory and the cache folder is a new one; the libraries "
        "stay as they are, and Quire's own code is compiled first, as installers do.",
    )
    parser.add_argument("--num-iters-cold", type=whole(0), default=3, help="cold starts; 3")
    parser.add_argument(
        "--num-iters-warmup", type=whole(0), default=1, help="warm starts before, not counted; 1"
    )
    parser.add_argument("--num-iters-warm", type=whole(0), default=3, help="warm starts; 3")
    parser.add_argument(
        "--timeout", type=number(above=True), default=600.0, help="most seconds of one start; 600"
    )
    parser.add_argument("--output-json", metavar="FILE", help="write the result there")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measures; returns the exit code. Raises QuireError."""
    words = read(make(), argv)
    flags = words.flags
    offline.set_up(words)
    compileall.compile_dir(Path(quire.__file__).parent, quiet=2)
    cold = [_cold(words) for _ in range(flags.num_iters_cold)]
    for _ in range(flags.num_iters_warmup if flags.num_iters_warm else 0):
        measure(words, {})
    warm = [measure(words, {}) for _ in range(flags.num_iters_warm)]
    result: dict[str, Any] = {}
    for name, starts in (("cold", cold), ("warm", warm)):
        if not starts:
            continue
        print(f"{name} starts: {len(starts)}\n{render(starts)}\n")
        times = [start.ready_s for start in starts]
        result |= {
            f"avg_{name}_startup_time": sum(times) / len(times),
            f"{name}_startup_times": times,
            f"{name}_first_token_times": [start.first_s for start in starts],
            f"{name}_starts": [start.as_json() for start in starts],
        }
    if flags.output_json:
        write_json(flags.output_json, result | {"about": offline.about(words)})
    return 0


def render(starts: Sequence[Start]) -> str:
    """Medians of the phases, in the order of the first start; then of ready and first token."""
    rows: list[list[Any]] = [["phase", "median s", "least s", "most s"]]
    taken: dict[str, list[float]] = {}
    for start in starts:
        for name, seconds in start.steps():
            taken.setdefault(name, []).append(seconds)
    taken["= ready"] = [start.ready_s for start in starts]
    taken["= first token"] = [start.first_s for start in starts]
    rows += [[name, percentile(all_, 50.0), min(all_), max(all_)] for name, all_ in taken.items()]
    return table(rows)


def _cold(words: Words) -> Start:
    forget(Path(offline.local_settings(words).model.model))
    with tempfile.TemporaryDirectory(prefix="quire-cold-") as folder:
        return measure(words, {"QUIRE_CACHE_DIR": folder})


def forget(folder: Path) -> None:
    """Asks the system to drop the files of a folder from memory, where it can do that."""
    if not hasattr(os, "posix_fadvise") or not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(words: Words, variables: dict[str, str]) -> Start:
    """One start, and the end of it. Raises ServerFailedError if the server does not get there."""
    with tempfile.TemporaryDirectory(prefix="quire-start-") as folder:
        uds = str(Path(folder) / "s")
        with (Path(folder) / "log").open("w+b") as log:
            begin_s = time.perf_counter()
            server = subprocess.Popen(
                [sys.executable, "-m", "quire", "serve", *words.engine_words, "--uds", uds],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=env.for_child(**variables),
            )
            try:
                with _client(uds) as client:
                    watch = _Watch(server, log, begin_s, words.flags.timeout)
                    return watch.follow(client, ids_only=bool(words.engine.skip_tokenizer_init))
            finally:
                _stop(server)


def _client(uds: str) -> httpx.Client:
    keys = (env.read("QUIRE_API_KEY") or "").strip()
    key = keys if not keys.startswith("[") else None
    return httpx.Client(
        base_url="http://localhost",
        transport=httpx.HTTPTransport(uds=uds),
        headers=wire.headers(key),
        timeout=60.0,
    )


class _Watch:
    """Looks at a server that starts."""

    def __init__(
        self, server: subprocess.Popen[bytes], log: IO[bytes], begin_s: float, limit_s: float
    ) -> None:
        self._server = server
        self._log = log
        self._begin_s = begin_s
        self._limit_s = limit_s

    def follow(self, client: httpx.Client, *, ids_only: bool) -> Start:
        """The times of a start, with one request at its end. Raises ServerFailedError."""
        start = Start()
        while True:
            try:
                answer = client.get("/ready")
            except httpx.TransportError:
                self._go_on()
                continue
            now_s = self._now_s()
            start.bound_s = start.bound_s or now_s
            if answer.status_code == 200:
                start.ready_s = now_s
                break
            phase = str(answer.json().get("phase", "starting"))
            if not start.phases or start.phases[-1][0] != phase:
                start.phases.append((phase, now_s))
            self._go_on()
        if not start.phases:
            start.phases.append(("starting", start.bound_s))
        start.first_s = self._first_token_s(client, ids_only)
        return start

    def _now_s(self) -> float:
        return time.perf_counter() - self._begin_s

    def _go_on(self) -> None:
        """Waits for the next look. Raises ServerFailedError when there is nothing to wait for."""
        if self._server.poll() is not None:
            raise ServerFailedError(
                f"the server ended with code {self._server.returncode}:\n{self._last_lines()}"
            )
        if self._now_s() > self._limit_s:
            raise ServerFailedError(
                f"the server was not ready after {self._limit_s:g} s; raise --timeout, or look at what it "
                f"said:\n{self._last_lines()}"
            )
        time.sleep(_LOOK_S)

    def _last_lines(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode("utf-8", "replace").splitlines()[-10:])

    def _first_token_s(self, client: httpx.Client, ids_only: bool) -> float:
        """When the first event of an answer came. Raises ServerFailedError."""
        model = wire.first_model(client.get("/v1/models").json(), "/v1/models")["id"]
        body: dict[str, Any] = {
            "model": model,
            "prompt": [5, 6] if ids_only else "Hello",
            "max_tokens": 1,
        }
        reader = EventReader()
        with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
            if answer.status_code != 200:
                text = answer.read().decode("utf-8", "replace")
                raise ServerFailedError(wire.error_text(text, answer.status_code))
            for piece in answer.iter_bytes():
                for data in reader.feed(piece):
                    Delta(data)
                    return self._now_s()
        raise ServerFailedError("the server answered the first request with nothing")


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
