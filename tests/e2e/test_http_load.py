"""A real server under 64 concurrent completions: every answer equals its solo run, and nothing leaks."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest


@pytest.fixture(scope="module")
def server(checkpoint: Callable[..., Path]) -> Iterator[str]:
    """The base URL of `quire serve` in its own process."""
    command = [
        sys.executable,
        "-m",
        "quire",
        "serve",
        str(checkpoint("llama")),
        "--port",
        "0",
        "--max-model-len",
        "4096",
        "--kv-cache-memory-bytes",
        "64M",
        "--served-model-name",
        "tiny",
        "--uvicorn-log-level",
        "warning",
        "--max-queue-wait",
        "600",
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    lines: list[str] = []
    assert process.stderr is not None
    url = ""
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            url = found[0]
            break
    assert url, "".join(lines)
    import threading

    threading.Thread(
        target=lambda: [lines.append(line) for line in process.stderr or ()], daemon=True
    ).start()
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/ready").status_code != 200:
        assert process.poll() is None and time.monotonic() < deadline, "".join(lines)
        time.sleep(0.1)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, "".join(lines)


def _bodies(count: int) -> list[dict[str, Any]]:
    rng = random.Random(3)
    bodies = []
    for number in range(count):
        length = rng.choice((rng.randint(10, 300), rng.randint(10, 3000)))
        body: dict[str, Any] = {
            "model": "tiny",
            "prompt": [rng.randrange(5, 400) for _ in range(length)],
            "max_tokens": 24,
            "logprobs": 2,
            "temperature": 0.0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        if number % 3 == 0:
            body |= {"temperature": 0.9, "seed": number, "top_p": 0.95}
        if number % 3 == 1:
            body |= {"stream": True}
        bodies.append(body)
    return bodies


async def _answer(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[Any, ...]:
    """(text, token ids, logprobs) however it was sent."""
    if not body.get("stream"):
        response = await client.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        choice = response.json()["choices"][0]
        logprobs = choice["logprobs"]
        return (
            choice["text"],
            choice["token_ids"],
            logprobs["token_logprobs"],
            logprobs["top_logprobs"],
        )
    text, ids, values, tops = "", [], [], []
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    text += choice["text"]
                    ids += choice.get("token_ids") or []
                    if choice.get("logprobs"):
                        values += choice["logprobs"]["token_logprobs"]
                        tops += choice["logprobs"]["top_logprobs"]
    return text, ids, values, tops


def _metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M)
    assert found, f"{name} is not in /metrics"
    return sum(float(value) for value in found)


def _settles(check: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.05)
    return False


def test_64_at_once_equal_their_solo_runs_and_killed_clients_leave_nothing(server: str) -> None:
    bodies = _bodies(64)

    async def all_at_once() -> list[tuple[Any, ...]]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server, timeout=120, limits=limits) as client:
            return await asyncio.gather(*(_answer(client, body) for body in bodies))

    async def one_by_one() -> list[tuple[Any, ...]]:
        async with httpx.AsyncClient(base_url=server, timeout=120) as client:
            return [
                await _answer(client, {**body, "stream": False, "cache_salt": str(n)})
                for n, body in enumerate(bodies)
            ]

    together = asyncio.run(all_at_once())
    assert all(len(answer[1]) == 24 for answer in together)
    assert together == asyncio.run(one_by_one())

    async def killed() -> None:
        async def read_a_little(body: dict[str, Any]) -> None:
            async with httpx.AsyncClient(base_url=server, timeout=60) as client:
                async with client.stream("POST", "/v1/completions", json=body) as response:
                    async for _ in response.aiter_lines():
                        return

        await asyncio.gather(
            *(read_a_little({**body, "stream": True, "max_tokens": 900}) for body in bodies[:20])
        )

    asyncio.run(killed())
    assert _settles(lambda: _metric(server, "vllm:num_requests_running") == 0), (
        "rows are still running"
    )
    assert _settles(lambda: _metric(server, "vllm:kv_cache_usage_perc") == 0), (
        "blocks are still in use"
    )
    accepted = _metric(server, "quire:requests_accepted_total")
    ended = sum(
        _metric(server, f"quire:requests_{how}_total") for how in ("finished", "aborted", "failed")
    )
    assert accepted == ended == 148
    assert _metric(server, "quire:requests_aborted_total") == 20
