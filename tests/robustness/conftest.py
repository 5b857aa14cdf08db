"""One real server with the demo model per file of tests, and what has to hold after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.killing import Server, serving
from tests.robustness.alive import Alive, Neighbour

FLAGS = ("--disable-uvicorn-access-log", "--engine-restarts", "0", "--responses-store", "memory")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without a key; heads and bodies must come within two seconds."""
    folder: Path = tmp_path_factory.mktemp("batches")
    flags = ("--header-timeout", "2", "--body-timeout", "2", "--batch-dir", str(folder))
    with serving(*FLAGS, *flags) as running:
        yield running


@pytest.fixture(scope="module")
def alive(server: Server) -> Alive:
    """The standing assertion; call `check`."""
    return Alive(server)


@pytest.fixture(scope="module")
def neighbour(server: Server) -> Neighbour:
    """A stream that may run beside an attack."""
    return Neighbour(server)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    """Connections to the server, kept."""
    with httpx.Client(base_url=server.url, timeout=60) as kept:
        yield kept
