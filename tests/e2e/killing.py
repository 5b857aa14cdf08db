"""A served engine that is killed while streams run: the server, the streams, and what each one gave.

The small form is `test_engine_death`, the full one `benchmarks.killing`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from quire.config import env

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 60},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 6},
        "age": {"type": "integer"},
    },
    "required": ["name", "tags", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@dataclass
class Server:
    """A running `quire serve`; `lines` is its log so far."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def log(self) -> str:
        return "".join(self.lines)

    def engine_pid(self) -> int | None:
        """The engine's process id; None while there is none."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                for pid in (task / "children").read_text().split():
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                    if b"quire.engine.process" in words:
                        return int(pid)
        return None

    def is_ready(self) -> bool:
        return httpx.get(f"{self.url}/ready").status_code == 200

    def wait_ready(self, timeout_s: float = 60.0) -> float:
        """Seconds until it was ready."""
        begun_s = time.monotonic()
        while not self.is_ready():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < begun_s + timeout_s, self.log()
            time.sleep(0.02)
        return time.monotonic() - begun_s

    def kill_engine(self, number: int = signal.SIGKILL) -> int:
        """Sends the engine a signal; returns its process id."""
        pid = self.engine_pid()
        assert pid is not None, self.log()
        os.kill(pid, number)
        return pid

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.url}/metrics").text
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M)
        return sum(map(float, found))


@contextlib.contextmanager
def serving(*flags: str, model: Path | None = None, **variables: str) -> Iterator[Server]:
    """A server of the demo model or of a checkpoint, with more flags and environment variables."""
    command = [sys.executable, "-m", "quire", "serve", *([str(model)] if model else [])]
    command += ["--port", "0", "--uvicorn-log-level", "warning", *flags]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=env.for_child(**variables),
    )
    server = Server(process)
    assert process.stderr is not None
    for line in process.stderr:
        server.lines.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            server.url = found[0]
            break
    assert server.url, server.log()
    rest = process.stderr
    threading.Thread(
        target=lambda: [server.lines.append(line) for line in rest], daemon=True
    ).start()
    try:
        server.wait_ready()
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def bodies(count: int, *, max_tokens: int, with_schema: bool) -> list[dict[str, Any]]:
    """Chats, a quarter each: tools and stop strings; a JSON schema; n = 2 with logprobs; no seed."""
    rng = random.Random(5)
    words = ("river", "Paris", "capital", "three", "dogs", "the", "number", "red", "and", "then")
    made = []
    for number in range(count):
        text = " ".join(rng.choice(words) for _ in range(rng.choice((12, 60, 400))))
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": f"{number}: {text}"}],
            "max_tokens": max_tokens,
            "stream": True,
            "return_token_ids": True,
            "temperature": 1.0,
            "seed": 100 + number,
            "stream_options": {"include_usage": True},
        }
        kind = number % 4
        if kind == 0:
            body |= {"tools": [WEATHER], "stop": ["zq", "\n\n\n\n"], "ignore_eos": number % 8 == 0}
            if number % 8 == 4:
                body["messages"] = [{"role": "user", "content": "What is the weather in Paris?"}]
        elif kind == 1:
            body |= {"ignore_eos": True, "min_tokens": 20, "frequency_penalty": 0.3}
            if with_schema:
                schema = {"name": "person", "schema": SCHEMA}
                body |= {"response_format": {"type": "json_schema", "json_schema": schema}}
                body |= {"ignore_eos": False, "min_tokens": 0}
        elif kind == 2:
            body |= {"n": 2, "logprobs": True, "top_logprobs": 2, "ignore_eos": True}
        else:
            del body["seed"]
            body |= {"ignore_eos": True, "presence_penalty": 0.5}
        made.append(body)
    return made


@dataclass
class Answer:
    """One stream, put together: by choice its text, calls, ids, logprobs, ends and seed."""

    choices: dict[int, dict[str, Any]] = field(default_factory=dict)
    usage: Any = None
    error: Any = None
    is_done: bool = False
    longest_gap_s: float = 0.0

    def take(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self.usage = chunk.get("usage") or self.usage
        for choice in chunk["choices"]:
            one = self.choices.setdefault(
                choice["index"],
                {"text": "", "reasoning": "", "calls": {}, "ids": [], "logprobs": [], "ends": []},
            )
            delta = choice["delta"]
            one["text"] += delta.get("content") or ""
            one["reasoning"] += delta.get("reasoning") or ""
            for call in delta.get("tool_calls") or ():
                kept = one["calls"].setdefault(call["index"], ["", ""])
                kept[0] += call["function"].get("name") or ""
                kept[1] += call["function"].get("arguments") or ""
            one["ids"] += choice.get("token_ids") or []
            one["logprobs"] += (choice.get("logprobs") or {}).get("content") or []
            if choice.get("finish_reason"):
                one["ends"].append((choice["finish_reason"], choice.get("stop_reason")))
            if choice.get("seed") is not None:
                one["seed"] = choice["seed"]

    def same_as(self, other: Answer) -> bool:
        """Whether both gave the same, the seed aside."""
        mine, theirs = (
            {index: one | {"seed": None} for index, one in answer.choices.items()}
            for answer in (self, other)
        )
        return (mine, self.usage, self.error) == (theirs, other.usage, other.error)


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Answer:
    """Streams one chat to its end."""
    answer = Answer()
    last_s = time.monotonic()
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            answer.error = json.loads(await response.aread())["error"]
            return answer
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                answer.is_done = True
            elif line.startswith("data: "):
                now_s = time.monotonic()
                answer.longest_gap_s, last_s = max(answer.longest_gap_s, now_s - last_s), now_s
                answer.take(json.loads(line[6:]))
    return answer


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.url, timeout=300, limits=httpx.Limits(max_connections=None)
    )


async def ask_all(server: Server, asked: list[dict[str, Any]]) -> list[Answer]:
    async with client_of(server) as client:
        return await asyncio.gather(*(ask(client, body) for body in asked))


@dataclass
class Killed:
    """A disturbed run: its answers, and of each kill how long the engine was away."""

    answers: list[Answer]
    away_s: list[float]
    num_during_start: int


async def ask_while_killing(
    server: Server, asked: list[dict[str, Any]], kills: int, *, seed: int, longest_wait_s: float
) -> Killed:
    """All streams at once, again and again, until the engine was killed so often; then to their ends.

    Moments are random: within `longest_wait_s` of being ready, at once, and every fifth while it starts.
    """
    rng = random.Random(seed)
    answers: list[Answer] = []
    away_s: list[float] = []
    num_during_start = 0
    running = asyncio.gather(*())
    async with client_of(server) as client:
        for number in range(kills):
            if running.done():
                answers += running.result()
                running = asyncio.gather(*(ask(client, body) for body in asked))
            wait_s = 0.0 if number % 4 == 0 else rng.random() * longest_wait_s
            await asyncio.sleep(0.01 + wait_s)
            begun_s = time.monotonic()
            dead = await asyncio.to_thread(server.kill_engine)
            if number % 5 == 4:  # the one that is just starting, too
                while (pid := server.engine_pid()) in (None, dead):
                    await asyncio.sleep(0.02)
                await asyncio.sleep(rng.random() * 1.5)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid or 0, signal.SIGKILL)
                num_during_start += 1
            while server.engine_pid() == dead or (await client.get("/ready")).status_code == 200:
                await asyncio.sleep(0.005)
            while (await client.get("/ready")).status_code != 200:
                await asyncio.sleep(0.02)
            away_s.append(time.monotonic() - begun_s)
        answers += await running
    return Killed(answers, away_s, num_during_start)


def has_schemas(server: Server) -> bool:
    """Whether this build constrains outputs."""
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 40} | {
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    }
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).is_success
