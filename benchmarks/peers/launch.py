"""The process of an engine: started, warmed up, stopped while another one runs, asked for a pass, ended.

What a pass is made of is `workloads`'; which processes there are is `roster`'s.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, Protocol

from benchmarks.peers.contention import wait_for_rest
from benchmarks.peers.http_load import run_load
from benchmarks.peers.workloads import requests_of, warmup_of

LOAD_TIMEOUT_S = 400
REST_TIMEOUT_S = 20
PASS_TIMEOUT_S = 1800


class EngineFailed(Exception):
    """An engine ended, refused or did not answer; the message has the end of its log."""


class Running(Protocol):
    """A loaded and warmed-up engine; `group` is its process group."""

    version: str
    settings: dict[str, Any]
    group: int

    def run_pass(self, number: int) -> dict[str, Any]:
        """`wall_s` and `requests` of one pass, as in `engines/peer_session`. Raises EngineFailed."""
        ...

    def close(self) -> None:
        """Ends the process."""
        ...


class EngineProcess:
    """A process group of its own, stopped by signal whenever it is not its turn.

    Two loaded engines lie in memory together, and the threads of some spin when they have nothing to do:
    stopped, they take nothing from the one that is measured.
    """

    def __init__(self, command: list[str], variables: dict[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                env={**os.environ, **variables},
                start_new_session=True,
                text=True,
            )

    def signal(self, number: int) -> None:
        """Sends a signal to the whole group, if it is still there."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    def rest(self) -> None:
        """Stops it once it has nothing more to do by itself; what spins for ever is stopped all the same."""
        wait_for_rest(self.process.pid, REST_TIMEOUT_S)
        self.signal(signal.SIGSTOP)

    def fail(self, what: str) -> EngineFailed:
        """What went wrong, with the last lines of the log."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return EngineFailed(f"{what}: {' / '.join(lines[-3:])[-400:]} (see {self.log})")

    def end(self) -> None:
        """Asks the group to end, and makes it after ten seconds."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
        self.signal(signal.SIGKILL)


class ScriptEngine:
    """An engine behind one of the scripts of `engines/`."""

    def __init__(
        self, command: list[str], variables: dict[str, str], requests: Path, result: Path, log: Path
    ) -> None:
        """Returns when the engine is warm. Raises EngineFailed."""
        self._result = result
        words = ["--requests", str(requests), "--result", str(result), "--step"]
        self._engine = EngineProcess([*command, *words], variables, log)
        self.group = self._engine.process.pid
        self._lines: queue.Queue[str] = queue.Queue()
        assert self._engine.process.stdout is not None
        reader = threading.Thread(
            target=self._read, args=(self._engine.process.stdout,), daemon=True
        )
        reader.start()
        self.version, self.settings = "", {}
        try:
            self._await("ready", LOAD_TIMEOUT_S)
        except EngineFailed:
            self.close()
            raise
        self._engine.rest()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self._lines.put(line.strip())
        self._lines.put("")

    def _await(self, word: str, timeout_s: float) -> None:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise self._engine.fail(f"no answer within {timeout_s:.0f} s") from None
        if line != word:
            raise self._engine.fail(f"ended with status {self._engine.process.wait()}")

    def run_pass(self, number: int) -> dict[str, Any]:
        """Wakes the engine for one pass."""
        assert self._engine.process.stdin is not None
        self._engine.signal(signal.SIGCONT)
        self._engine.process.stdin.write("go\n")
        self._engine.process.stdin.flush()
        self._await(f"done {number}", PASS_TIMEOUT_S)
        self._engine.signal(signal.SIGSTOP)
        content = json.loads(self._result.read_text())
        self.version, self.settings = content["version"], content["settings"]
        return dict(content["passes"][number])

    def close(self) -> None:
        self._engine.end()


class ServerEngine:
    """An engine behind its own HTTP server."""

    def __init__(
        self, command: list[str], variables: dict[str, str], port: int, workload: str, log: Path
    ) -> None:
        """Returns when the server has answered the warm-up. Raises EngineFailed."""
        self.version, self.settings = "", {"command": command[1:]}
        self._port, self._workload = port, workload
        self._engine = EngineProcess(command, variables, log)
        self.group = self._engine.process.pid
        assert self._engine.process.stdout is not None
        threading.Thread(target=self._engine.process.stdout.read, daemon=True).start()
        try:
            self._await_health()
            asyncio.run(run_load(port, warmup_of(workload), workload))
        except (OSError, EOFError, ValueError) as error:
            failure = self._engine.fail(f"the warm-up failed: {error}")
            self.close()
            raise failure from error
        except EngineFailed:
            self.close()
            raise
        self._engine.rest()

    def _await_health(self) -> None:
        """Until /ready, or /health where there is no such path, answers 200."""
        deadline = time.monotonic() + LOAD_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._engine.process.poll() is not None:
                raise self._engine.fail(f"ended with status {self._engine.process.returncode}")
            if self._answers("ready") or (self._answers("health") and not self._knows("ready")):
                return
            time.sleep(0.2)
        raise self._engine.fail(f"not ready within {LOAD_TIMEOUT_S} s")

    def _answers(self, path: str) -> bool:
        return self._status(path) == 200

    def _knows(self, path: str) -> bool:
        return self._status(path) not in (0, 404)

    def _status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{path}", timeout=5) as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except OSError:
            return 0

    def run_pass(self, number: int) -> dict[str, Any]:
        """Wakes the server for one load."""
        self._engine.signal(signal.SIGCONT)
        try:
            done = asyncio.run(
                run_load(self._port, requests_of(self._workload, number), self._workload)
            )
        except (OSError, EOFError, ValueError) as error:
            raise self._engine.fail(f"a request failed: {error}") from error
        self._engine.signal(signal.SIGSTOP)
        return done

    def close(self) -> None:
        self._engine.end()
