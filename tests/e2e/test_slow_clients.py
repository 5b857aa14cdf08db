"""Clients that dawdle, stop reading or go away at any stage: others do not notice, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.killing import Server, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    flags = ("--header-timeout", "1.5", "--body-timeout", "1.5", "--max-queue-wait", "600")
    with serving(*flags) as running:
        yield running


def _address(server: Server) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def _ask(server: Server, **changes: Any) -> httpx.Response:
    body = {"prompt": "The capital of France is", "max_tokens": 6, "temperature": 0} | changes
    return httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)


def _message(**body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def _wait_until_idle(server: Server) -> None:
    deadline_s = time.monotonic() + 30
    while True:
        used = [server.metric(f"vllm:num_requests_{how}") for how in ("running", "waiting")]
        used.append(server.metric("vllm:kv_cache_usage_perc"))
        if not any(used):
            return
        assert time.monotonic() < deadline_s, used
        time.sleep(0.05)


def _resident_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def test_two_hundred_dawdlers_are_cut_off_and_nobody_waits_for_them(server: Server) -> None:
    expected = _ask(server).json()["choices"][0]["text"]

    async def dawdle(number: int) -> float:
        reader, writer = await asyncio.open_connection(*_address(server))
        begun_s = time.monotonic()
        whole = _message(prompt="x" * 400, max_tokens=1)
        writer.write(whole[: 20 if number % 2 else whole.index(b"\r\n\r\n") + 10])
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        return time.monotonic() - begun_s

    async def test() -> list[float]:
        tasks = [asyncio.create_task(dawdle(number)) for number in range(200)]
        await asyncio.sleep(0.2)
        begun_s = time.monotonic()
        answer = await asyncio.to_thread(_ask, server)
        assert answer.json()["choices"][0]["text"] == expected
        assert time.monotonic() - begun_s < 10.0
        return await asyncio.gather(*tasks)

    took_s = asyncio.run(test())
    assert min(took_s) > 1.0 and max(took_s) < 20.0
    _wait_until_idle(server)


def test_those_who_do_not_read_cost_little_and_leave_nothing(server: Server) -> None:
    expected = _ask(server).json()["choices"][0]["text"]
    before = _resident_bytes(server)
    body = {"prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": True, "logprobs": 5}
    sockets = []
    for number in range(24):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(_address(server))
        one.sendall(_message(**body, seed=number))
        sockets.append(one)
    for _ in range(5):
        assert _ask(server).json()["choices"][0]["text"] == expected
    assert _resident_bytes(server) - before < 64 << 20
    for one in sockets:
        one.close()
    _wait_until_idle(server)


@pytest.mark.parametrize("leaves_by", ["close", "reset", "half"])
def test_leaving_at_any_stage_frees_everything(server: Server, leaves_by: str) -> None:
    body: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True, "stream": True}
    long_prompt = "word " * 3000
    stages: list[tuple[dict[str, Any], float]] = [
        ({"prompt": "a"}, 0.0),
        ({"prompt": "b"}, 0.05),
        ({"prompt": "c", "n": 8}, 0.05),
        ({"prompt": long_prompt}, 0.02),
        ({"prompt": "d", "stream": False}, 0.05),
        ({"prompt": ["e", "f", long_prompt]}, 0.05),
    ]
    for changes, wait_s in stages * 3:
        one = socket.create_connection(_address(server))
        one.sendall(_message(**body | changes))
        time.sleep(wait_s)
        if leaves_by == "half":
            one.shutdown(socket.SHUT_WR)
            time.sleep(0.02)
        elif leaves_by == "reset":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
    _wait_until_idle(server)
    assert server.is_ready() and server.metric("quire:engine_restarts_total") == 0
    accepted = server.metric("quire:requests_accepted_total")
    ends = [
        server.metric(f"quire:requests_{how}_total") for how in ("finished", "aborted", "failed")
    ]
    assert sum(ends) == accepted and ends[2] == 0
