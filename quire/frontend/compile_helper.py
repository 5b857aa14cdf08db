"""Runs `quire.engine.grammar.helper`: one constraint at a time, under a deadline, restarted after a kill.

What a constraint is made of is `frontend.structured`.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from quire.protocol.request import GrammarSpec

DEADLINE_S = 2.0
"""Of computing; a machine that is busy with other things does not count against a constraint."""
_PATIENCE = 4  # times the deadline that may pass on the clock
MEMORY_BYTES = 1 << 30
_START_S = 60.0  # a vocabulary of 250,000 tokens takes about a second; a loaded machine is slow
_MAX_ANSWER = 1 << 16


class HelperDiedError(Exception):
    """The process was gone before it had an answer: killed, out of memory, or out of stack."""


@dataclass(frozen=True)
class HelperSettings:
    """The vocabulary and the engine that constraints are tried with."""

    backend: str
    tokenizer_file: str
    vocab_size: int
    eos_token_ids: tuple[int, ...]


class CompileHelper:
    """One process, started at the first use and after every death. Safe in several threads."""

    def __init__(self, settings: HelperSettings, *, deadline_s: float = DEADLINE_S) -> None:
        self._config = msgspec.json.encode(
            {
                "backend": settings.backend,
                "tokenizer_file": settings.tokenizer_file,
                "vocab_size": settings.vocab_size,
                "eos_token_ids": settings.eos_token_ids,
                "memory_bytes": MEMORY_BYTES,
            }
        ).decode()
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None

    @property
    def pid(self) -> int | None:
        """Process id of the helper that runs, if one does."""
        return None if self._process is None else self._process.pid

    def check(self, spec: GrammarSpec) -> str | None:
        """What is wrong with a constraint; None if nothing is. Blocks, at most about the deadline.

        Raises HelperDiedError if the process ended over it, TimeoutError if it was killed for the time.
        """
        line = msgspec.json.encode(spec) + b"\n"
        with self._lock:
            for attempt in (1, 2):
                process = self._running()
                assert process.stdin is not None
                try:
                    process.stdin.write(line)
                    process.stdin.flush()
                    break
                except OSError:  # it died while it was idle: that is not this constraint's doing
                    self._end()
                    if attempt == 2:
                        raise HelperDiedError from None
            answer: str | None = self._answer(self._deadline_s, _PATIENCE).get("error")
            return answer

    def close(self) -> None:
        """Ends the process; a later check starts another."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        process = subprocess.Popen(
            [sys.executable, "-m", "quire.engine.grammar.helper", self._config],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._process = process
        self._finalizer = weakref.finalize(self, _kill, process)
        error = self._answer(_START_S).get("error")
        if error is not None:
            self._end()
            raise HelperDiedError(error)
        return process

    def _answer(self, patience_s: float, more: int = 1) -> dict[str, Any]:
        """One line of the process. Ends it if it takes too long or is gone.

        more  times the patience that may pass on the clock while less of it is spent computing.
        """
        process = self._process
        assert process is not None and process.stdout is not None
        poller = select.poll()
        poller.register(process.stdout, select.POLLIN | select.POLLHUP)
        until = time.monotonic() + patience_s
        begun = _computed_s(process.pid)
        text = b""
        while not text.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                more -= 1
                unused = patience_s - (_computed_s(process.pid) - begun)
                if more <= 0 or unused <= 0.01:
                    self._end()
                    raise TimeoutError
                until = time.monotonic() + max(unused, 0.1)
                continue
            piece = process.stdout.read1(_MAX_ANSWER)  # type: ignore[attr-defined]
            if not piece:
                self._end()
                raise HelperDiedError
            text += piece
        answer: dict[str, Any] = msgspec.json.decode(text)
        return answer

    def _end(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._finalizer = None


def _computed_s(pid: int) -> float:
    """Seconds of computing that a process has spent so far; infinite if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError, ValueError):
            if pipe is not None:
                pipe.close()
    process.wait()
