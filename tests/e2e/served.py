"""A real server in a process of its own, for tests that talk to it over HTTP."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Served:
    """A server that is ready. `log` is the file that its output goes to."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def post(self, body: dict[str, Any], path: str = "/v1/completions") -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60)


@contextmanager
def served(
    folder: Path,
    *words: str,
    command: tuple[str, ...] = ("-m", "quire", "serve"),
    **environment: str,
) -> Iterator[Served]:
    """`quire serve` with these words, or another command that serves; ended at the end."""
    log = folder / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command, *words, "--port", "0"],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
    try:
        yield Served(_address(log, process), log, process)
    finally:
        process.terminate()
        process.wait(30)


def _address(log: Path, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> str:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        found = re.search(r"listening on (http://127\.0\.0\.1:\d+)", log.read_text())
        if found is not None:
            try:
                if httpx.get(f"{found[1]}/ready").status_code == 200:
                    return found[1]
            except httpx.TransportError:
                pass
        time.sleep(0.1)
    pytest.fail(f"the server was not ready after {timeout_s} s: {log.read_text()}")
