"""What has to hold after every attack: the server lives, is as it was, and told nobody anything it should not.

The server itself, and how to ask it, is `tests.e2e.killing`.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import threading
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.e2e.killing import Server

SECRET = "sk-harness-4711"
"""The key of servers that have one; no answer may contain it."""
_ROOT = str(Path(__file__).resolve().parents[2])
_LEAKS = (
    re.compile(r"Traceback|File \"|\bline \d+, in "),
    re.compile(r"\b0x[0-9a-fA-F]{4,}"),
    re.compile(r"site-packages|\.py\b(?!thon)"),
    re.compile(re.escape(_ROOT)),
    re.compile(r"/(?:home|root|usr|tmp|var|opt|proc)/\w"),
    re.compile(re.escape(SECRET)),
)
CANARY = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0} | {
    "logprobs": 2,
    "return_token_ids": True,
    "seed": 1,
}
_SERIES = re.compile(r"^([a-z:_]+)(?:\{[^}]*\})? (\S+)$", re.M)
_USED = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
_HEALTH_S, _REST_S, _GAP_S = 1.0, 5.0, 1.0
"""Longest times to answer /health, to come to rest, and between two tokens of a neighbour's stream, on a machine
that does nothing else: see `stretched`."""
MOST_GROWTH = 64 << 20
"""Bytes by which an attack may let the server's memory grow."""


def stretched(seconds: float) -> float:
    """The limit for a machine with so much other work: longer by as many processes as wait for each core."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def leaks_in(message: str, sent: str = "") -> list[str]:
    """What of the inside shows in a message; what the client itself had sent is no leak."""
    found = [match[0] for one in _LEAKS if (match := one.search(message))]
    user = getpass.getuser()
    if user not in ("root",) and re.search(rf"\b{re.escape(user)}\b", message):
        found.append(user)
    return [one for one in found if one not in sent]


def assert_refused(
    answer: httpx.Response, status: int, param: str | None = None, *, sent: str = ""
) -> str:
    """The answer is an error in OpenAI's form, or Anthropic's where that is spoken; its message."""
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    if isinstance(error, str):  # 401, as vLLM says it
        assert status == 401
        return error
    assert isinstance(error["message"], str) and error["message"]
    assert not leaks_in(error["message"], sent), error["message"]
    if "code" in error:
        assert error["code"] == status
    if param is not None:
        given = error["param"] or ""
        assert given == param or given.startswith((f"{param}[", f"{param}.")), error
    return str(error["message"])


@dataclass(frozen=True)
class State:
    """A server at rest."""

    canary: dict[str, Any]
    engine_pid: int | None
    num_files: int
    num_bytes: int


class Alive:
    """The standing assertion: made on a server at rest, checked after each attack."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._front = psutil.Process(server.process.pid)
        self._client = httpx.Client(base_url=server.url, timeout=60)
        for _ in range(3):
            self._canary()
        self.before = self._state()

    def check(self, most_growth: int = MOST_GROWTH) -> None:
        """Fails where something is not as it was. `most_growth` in bytes since the last check."""
        server = self._server
        assert server.process.poll() is None, server.log()
        begun_s = time.monotonic()
        health = self._client.get("/health")
        assert health.status_code == 200, f"/health: {health.status_code} {health.text[:500]}"
        assert time.monotonic() - begun_s < stretched(_HEALTH_S), "/health was slow"
        counts = self._wait_for_rest()
        now = self._state()
        assert now.canary == self.before.canary, "an undisturbed request gets another answer"
        assert now.engine_pid == self.before.engine_pid, server.log()[-3000:]
        assert counts["quire:engine_restarts_total"] == 0, "the engine was started again"
        before, self.before = self.before, replace(self.before, num_bytes=now.num_bytes)
        grown = now.num_bytes - before.num_bytes
        assert grown < most_growth, f"grew by {grown >> 20} MiB"
        self.before = now

    def counts(self) -> dict[str, float]:
        """Every series of /metrics, added up over its labels."""
        found: dict[str, float] = {}
        for name, value in _SERIES.findall(self._client.get("/metrics").text):
            found[name] = found.get(name, 0.0) + float(value)
        return found

    def _wait_for_rest(self) -> dict[str, float]:
        end_s = time.monotonic() + stretched(_REST_S)
        while True:
            counts = self.counts()
            used = {name: counts[f"vllm:{name}"] for name in _USED}
            used["files"] = max(0, self._front.num_fds() - self.before.num_files - 8)
            used["accepted and not ended"] = counts["quire:requests_accepted_total"] - sum(
                counts[f"quire:requests_{how}_total"] for how in ("finished", "aborted", "failed")
            )
            if not any(used.values()):
                return counts
            assert time.monotonic() < end_s, f"not at rest: {used}"
            time.sleep(0.05)

    def _canary(self) -> dict[str, Any]:
        return dict(self._client.post("/v1/completions", json=CANARY).json()["choices"][0])

    def _state(self) -> State:
        server = self._server
        return State(
            canary=self._canary(),
            engine_pid=server.engine_pid(),
            num_files=self._front.num_fds(),
            num_bytes=self.memory_bytes(),
        )

    def memory_bytes(self) -> int:
        """Resident bytes of the server's processes."""
        total = 0
        for one in (self._front, *self._front.children(recursive=True)):
            try:
                total += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total


class Neighbour:
    """Another client's stream beside an attack: `with neighbour:` runs it, and fails if it was disturbed."""

    _BODY = {"prompt": "Once", "max_tokens": 1000, "temperature": 0, "ignore_eos": True} | {
        "stream": True
    }

    def __init__(self, server: Server) -> None:
        self._url = f"{server.url}/v1/completions"
        self._pieces: list[tuple[float, str]] = []
        self._is_ended = threading.Event()
        self._read()
        self._whole = "".join(text for _, text in self._pieces)

    def _read(self) -> None:
        self._pieces = []
        with httpx.stream("POST", self._url, json=self._BODY, timeout=120) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    text = json.loads(line[6:])["choices"][0]["text"]
                    self._pieces.append((time.monotonic(), text))
                if self._is_ended.is_set():
                    return

    def __enter__(self) -> None:
        self._is_ended.clear()
        self._pieces = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        while not self._pieces and self._thread.is_alive():
            time.sleep(0.002)

    def __exit__(self, *error: object) -> None:
        self._is_ended.set()
        self._thread.join()
        if error[0] is not None:
            return
        got = "".join(text for _, text in self._pieces)
        assert got and self._whole.startswith(got), "a neighbour's stream got other text"
        times_s = [at_s for at_s, _ in self._pieces]
        gap_s = max((after - before for before, after in pairwise(times_s)), default=0.0)
        assert gap_s < stretched(_GAP_S), f"a neighbour waited {gap_s:.2f} s between two tokens"


def error_of(data: bytes) -> dict[str, Any] | None:
    """The error object of a body; None where there is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else None
