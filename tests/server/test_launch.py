"""Servers in processes of their own: the socket, the clients that people have, the end."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

ROOT = Path(__file__).parents[2]


class Process:
    """A scripted server process."""

    def __init__(self, folder: Path, *flags: str, pace_s: float = 0.0) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.server.scripted_server",
            str(folder),
            str(pace_s),
            "--port",
            "0",
        ]
        self.process = subprocess.Popen(
            [*command, "--served-model-name", "tiny", *flags],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._found = threading.Event()
        self.url = ""
        threading.Thread(target=self._read, daemon=True).start()
        assert self._found.wait(30), self.lines

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self.lines.append(line)
            if not self.url and (
                match := re.search(r"listening on (https?://127\.0\.0\.1:\d+)", line)
            ):
                self.url = match[1]
                self._found.set()
        self._found.set()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def wait_ready(self) -> Process:
        deadline_s = time.monotonic() + 60
        while httpx.get(f"{self.url}/ready").status_code != 200:
            assert time.monotonic() < deadline_s, self.lines
            time.sleep(0.02)
        return self

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []
    copy = shutil.copytree(folder, tmp_path / "model")

    def run(*flags: str, **more: Any) -> Process:
        made.append(Process(copy, *flags, **more))
        return made[-1]

    yield run
    for one in made:
        one.process.kill()
        one.process.wait()


def raw(port: int, data: bytes, *, wait_s: float = 5.0) -> bytes:
    """What the server answers to these bytes until it closes the connection, or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection:
        connection.sendall(data)
        found = b""
        try:
            while piece := connection.recv(65536):
                found += piece
        except TimeoutError:
            pass
        except ConnectionResetError:
            pass
        return found


def test_the_official_client_works_unmodified(start: Callable[..., Process]) -> None:
    server = start("--api-key", "secret", "--uvicorn-log-level", "warning").wait_ready()
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret")
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    whole = client.completions.create(
        model="tiny", prompt="the river", max_tokens=5, logprobs=2, n=2, temperature=1, seed=3
    )
    assert (
        whole.usage is not None and whole.usage.completion_tokens == 10 and len(whole.choices) == 2
    )
    assert (
        whole.choices[0].logprobs is not None and len(whole.choices[0].logprobs.tokens or []) == 5
    )
    stream = client.completions.create(
        model="tiny", prompt="the river", max_tokens=5, stream=True, stream_options={"include_usage": True},
        extra_body={"top_k": 5, "return_token_ids": True},
    )  # fmt: skip
    pieces = list(stream)
    assert "".join(one.choices[0].text for one in pieces if one.choices) == whole.choices[0].text
    assert pieces[-1].usage is not None and pieces[-1].usage.completion_tokens == 5
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt="x", temperature=-1)
    assert refused.value.param == "temperature"
    assert server.end() == 0


def test_the_port_answers_before_the_model_is_loaded(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    hold = tmp_path / "model" / "hold"
    hold.touch()
    server = start()
    assert httpx.get(f"{server.url}/health").status_code == 200
    deadline_s = time.monotonic() + 30
    while (ready := httpx.get(f"{server.url}/ready")).json() != {
        "phase": "loading weights",
        "percent": 50,
    }:
        assert ready.status_code == 503 and time.monotonic() < deadline_s
        time.sleep(0.02)
    early = httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"})
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    hold.unlink()
    server.wait_ready()
    assert httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"}).status_code == 200
    assert server.end() == 0


def test_a_signal_while_loading_ends_at_once(start: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "model" / "hold").touch()
    server = start()
    started_s = time.monotonic()
    assert server.end() == 0
    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_streams_finish_and_new_requests_do_not_start(
    start: Callable[..., Process], number: signal.Signals
) -> None:
    server = start(pace_s=0.1).wait_ready()
    body = {"prompt": [50], "max_tokens": 15, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=20) as response:
        lines = response.iter_lines()
        next(lines)
        server.process.send_signal(number)
        time.sleep(0.2)
        late = httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"})
        assert (late.status_code, late.json()["error"]["phase"]) == (503, "draining")
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert httpx.get(f"{server.url}/ready").json()["phase"] == "draining"
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]" and '"finish_reason":"length"' in rest[-2]
    assert server.process.wait(15) == 0


def test_draining_ends_at_its_timeout(start: Callable[..., Process]) -> None:
    server = start("--shutdown-timeout", "0.3", pace_s=0.2).wait_ready()
    body = {"prompt": [50], "max_tokens": 60, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=20) as response:
        next(response.iter_lines())
        started_s = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - started_s < 10


def test_the_engine_s_death_is_the_server_s(start: Callable[..., Process]) -> None:
    server = start(pace_s=0.05).wait_ready()
    found: list[Any] = []

    def neighbour() -> None:
        body = {"prompt": [50], "max_tokens": 60, "stream": True}
        found.append(httpx.post(f"{server.url}/v1/completions", json=body, timeout=20).text)

    thread = threading.Thread(target=neighbour)
    thread.start()
    time.sleep(0.3)
    killer = httpx.post(f"{server.url}/v1/completions", json={"prompt": [99]}, timeout=20)
    assert (killer.status_code, killer.json()["error"]["type"]) == (500, "InternalServerError")
    assert server.process.wait(10) == 1
    thread.join(20)
    error, done = [block for block in found[0].split("\n\n") if block][-2:]
    assert json.loads(error[6:])["error"]["code"] == 500 and done == "data: [DONE]"


def test_the_server_may_outlive_its_engine(start: Callable[..., Process]) -> None:
    server = start("--keep-alive-on-engine-death").wait_ready()
    httpx.post(f"{server.url}/v1/completions", json={"prompt": [99]}, timeout=20)
    time.sleep(1)
    assert httpx.get(f"{server.url}/health").status_code == 503
    assert httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"}).status_code == 500
    assert server.end() == 0


def test_killed_clients_leave_nothing(start: Callable[..., Process]) -> None:
    server = start(pace_s=0.02).wait_ready()
    body = json.dumps({"prompt": [50], "max_tokens": 60, "stream": True}).encode()
    plain = body.replace(b"true", b"false")
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for number, one in enumerate(sockets):
        data = body if number % 2 else plain
        one.sendall(head % len(data) + data)
    time.sleep(0.2)
    for one in sockets:
        one.close()
    deadline_s = time.monotonic() + 20
    while 'quire:requests_aborted_total{engine="0",model_name="tiny"} 20.0' not in (
        text := httpx.get(f"{server.url}/metrics").text
    ):
        assert time.monotonic() < deadline_s, text
        time.sleep(0.05)
    assert server.end() == 0


def test_heads_are_bounded_and_malformed_ones_refused(start: Callable[..., Process]) -> None:
    server = start("--header-timeout", "0.5", "--body-timeout", "0.5").wait_ready()
    line = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
    post = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    for data, status in (
        (line + b"A: " + b"x" * 2**20 + b"\r\n\r\n", b"431"),
        (line + b"".join(b"A%d: x\r\n" % n for n in range(10_000)) + b"\r\n", b"431"),
        (line + b"A: ", b"408"),
        (post + b"Content-Length: 10\r\n\r\n{", b"408"),
        (post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}", b"400"),
        (post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{}", b"400"),
        (b"GET /health HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    ):
        answer = raw(server.port, data, wait_s=2)
        assert answer.startswith(b"HTTP/1.1 " + status), (data[:80], answer[:200])
    twice = raw(server.port, line + b"\r\n" + line + b"Connection: close\r\n\r\n")
    assert twice.count(b"HTTP/1.1 200") == 2
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.end() == 0


def test_a_connection_is_kept_after_a_mistake(start: Callable[..., Process]) -> None:
    server = start().wait_ready()
    with httpx.Client(base_url=server.url) as client:
        ports = set()
        for body in (
            {"prompt": []},
            {"prompt": "x"},
            {"prompt": 5},
            {"prompt": "x", "stream": True},
        ):
            response = client.post("/v1/completions", json=body)
            ports.add(response.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(ports) == 1
    assert server.end() == 0


def test_a_port_in_use_is_a_clear_line_and_2(start: Callable[..., Process], folder: Path) -> None:
    server = start().wait_ready()
    command = [
        sys.executable,
        "-m",
        "tests.server.scripted_server",
        str(folder),
        "0",
        "--port",
        str(server.port),
    ]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert second.returncode == 2
    assert (
        second.stderr.strip()
        .splitlines()[-1]
        .startswith(f"cannot listen at --host 127.0.0.1 --port {server.port}:")
    )
    assert httpx.get(f"{server.url}/health").status_code == 200
