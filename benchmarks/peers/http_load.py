"""A load of streamed completions over HTTP, with nothing but sockets: the client costs the server little.

What is asked is `workloads`'; the server is `launch`'s.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.roster import SERVED_NAME
from benchmarks.peers.workloads import WORKLOADS, Request


def request_bytes(port: int, request: Request) -> bytes:
    """One POST of /v1/completions: greedy, exact length, streamed, the usage at the end."""
    body = json.dumps(
        {
            "model": SERVED_NAME,
            "prompt": request.prompt,
            "max_tokens": request.num_output,
            "min_tokens": request.num_output,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, request: Request) -> tuple[list[float], int]:
    """The clocks at which pieces came, and the tokens that the server counted. Raises ValueError, OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request_bytes(port, request))
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.splitlines()[0]:
            raise ValueError(f"{head.splitlines()[0].decode()}: {(await reader.read(500))!r}")
        clocks_s, num_tokens = [], 0
        while line := await reader.readline():
            if not line.startswith(b"data: ") or b"[DONE]" in line:
                continue
            event = json.loads(line[len(b"data: ") :])
            if event.get("choices"):
                clocks_s.append(time.perf_counter())
            if event.get("usage"):
                num_tokens = event["usage"]["completion_tokens"]
    finally:
        writer.close()
    if num_tokens != request.num_output or not clocks_s:
        raise ValueError(f"{num_tokens} tokens came, {request.num_output} were asked")
    return clocks_s, num_tokens


async def run_load(port: int, requests: Sequence[Request], workload: str) -> dict[str, Any]:
    """One pass: each client sends its next request when one is answered. Raises ValueError, OSError.

    Times of a request count from when it was sent; a piece may hold several tokens, so only those of the first
    and last piece are known, and the others lie evenly between. Servers send text, so `token_ids` is empty.
    """
    waiting = list(enumerate(requests))[::-1]
    answers: dict[int, dict[str, Any]] = {}

    async def client() -> None:
        while waiting:
            number, request = waiting.pop()
            sent = time.perf_counter()
            clocks_s, num_tokens = await ask(port, request)
            answers[number] = {
                "num_prompt": len(request.prompt),
                "num_output": num_tokens,
                "token_ids": [],
                "times_s": even_times(clocks_s[0] - sent, clocks_s[-1] - sent, num_tokens),
            }

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(WORKLOADS[workload].num_clients)))
    wall_s = time.perf_counter() - start
    return {"wall_s": wall_s, "requests": [answers[number] for number in sorted(answers)]}


def even_times(first_s: float, last_s: float, count: int) -> list[float]:
    """`count` times from the first to the last, evenly."""
    if count == 1:
        return [first_s]
    return [first_s + (last_s - first_s) * number / (count - 1) for number in range(count)]
