"""`quire run-batch`, batches that outlive a killed server, and a render server without weights: real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from quire.config.demo import FOLDER
from tests.e2e.served import Served, served

ASK = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
PARIS = "The capital of France is Paris."
LINES = [
    {"custom_id": "chat", "method": "POST", "url": "/v1/chat/completions", "body": ASK},
    {"custom_id": "text", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Hello"}},
    {"custom_id": "where", "method": "POST", "url": "/v1/no/such", "body": {}},
    {"custom_id": "hot", "method": "POST", "url": "/v1/completions",
     "body": {"prompt": "Hello", "temperature": -3}},
    {"custom_id": "stream", "method": "POST", "url": "/v1/chat/completions",
     "body": ASK | {"stream": True}},
]  # fmt: skip
MIXED = "\n".join(["", json.dumps(LINES[0]), "{ not JSON", *map(json.dumps, LINES[1:])]) + "\n"


def run_batch(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quire", "run-batch", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def check_mixed(text: str) -> None:
    """The answers to MIXED: in its order, each fault on its own line."""
    found = [json.loads(line) for line in text.splitlines()]
    names = [one["custom_id"] for one in found]
    assert names == ["chat", None, "text", "where", "hot", "stream"]
    codes = [one["response"]["status_code"] for one in found]
    assert codes == [200, 400, 200, 404, 400, 400]
    for one, code in zip(found, codes, strict=True):
        assert one["id"].startswith("vllm-")
        assert one["response"]["request_id"].startswith("vllm-batch-")
        assert (one["error"] is None) == (code == 200)
        assert (one["response"]["body"] is None) == (code != 200)
    body = found[0]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == PARIS
    assert "line 3" in json.dumps(found[1]["error"])


def test_a_mixed_file(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(MIXED)
    done = run_batch("-i", str(source), "-o", str(target))
    assert done.returncode == 0, done.stderr
    check_mixed(target.read_text())


class Files(BaseHTTPRequestHandler):
    """Gives MIXED for a GET; takes PUTs, the first of which it refuses."""

    taken: list[bytes] = []

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(MIXED.encode())

    def do_PUT(self) -> None:
        self.taken.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def file_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_files_behind_urls(tmp_path: Path) -> None:
    with file_server() as url:
        done = run_batch("-i", f"{url}/in", "-o", f"{url}/out", "--output-tmp-dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    check_mixed(Files.taken[-1].decode())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-i", "/no/such/file", "-o", "/tmp/x"], "/no/such/file"),
        (["-i", __file__, "-o", "/no/such/folder/x"], "/no/such/folder/x"),
        (["-o", "/tmp/x"], "-i"),
        (["-i", __file__, "-o", "/tmp/x", "--no-such-flag"], "--no-such-flag"),
    ],
)
def test_wrong_words_end_at_once(words: list[str], said: str) -> None:
    done = run_batch(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def upload(server: Served, lines: list[dict[str, Any]]) -> dict[str, Any]:
    data = "\n".join(map(json.dumps, lines)).encode()
    made = httpx.post(
        f"{server.url}/v1/files", files={"file": ("in.jsonl", data)}, data={"purpose": "batch"}
    ).json()
    body = {"input_file_id": made["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    return dict(server.post(body, "/v1/batches").json())


def poll(server: Served, batch_id: str) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/v1/batches/{batch_id}").json())


@pytest.mark.slow
def test_a_batch_goes_on_after_its_server_was_killed(tmp_path: Path) -> None:
    lines = [
        {
            "custom_id": f"r{number}", "method": "POST", "url": "/v1/completions",
            "body": {"prompt": f"Number {number}", "max_tokens": 60, "temperature": 1, "ignore_eos": True},
        }
        for number in range(40)
    ]  # fmt: skip
    words = ["--batch-dir", str(tmp_path / "batches"), "--batch-concurrency", "2"]
    with served(tmp_path, *words) as server:
        batch = upload(server, lines)
        deadline = time.monotonic() + 40
        while poll(server, batch["id"])["request_counts"]["completed"] < 8:
            assert time.monotonic() < deadline, poll(server, batch["id"])
            time.sleep(0.05)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
    with served(tmp_path, *words[:2]) as server:
        deadline = time.monotonic() + 60
        while (found := poll(server, batch["id"]))["status"] != "completed":
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        assert found["request_counts"] == {"total": 40, "completed": 40, "failed": 0}
        output = httpx.get(f"{server.url}/v1/files/{found['output_file_id']}/content").text
        records = [json.loads(line) for line in output.splitlines()]
        assert [one["custom_id"] for one in records] == [f"r{number}" for number in range(40)]
        # What ran before the kill was kept: the second server was asked only for the rest.
        metrics = httpx.get(f"{server.url}/metrics").text
        (asked,) = [
            float(line.rpartition(" ")[2])
            for line in metrics.splitlines()
            if line.startswith("vllm:request_success_total") and 'finished_reason="length"' in line
        ]
        assert asked <= 40 - 8


@pytest.mark.slow
def test_a_render_server_has_no_weights(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in FOLDER.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, model)
    words = [str(model), "--served-model-name", "quire-demo"]
    with served(tmp_path, *words, command=("-m", "quire", "launch", "render")) as server:
        rendered = server.post(ASK, "/v1/chat/completions/render").json()
        ids = server.post({"messages": ASK["messages"]}, "/tokenize").json()["tokens"]
        assert rendered["token_ids"] == ids and rendered["sampling_params"]["temperature"] == 0
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert server.post(ASK, "/v1/chat/completions").status_code == 404
        with served(model, "--served-model-name", "quire-demo") as engine:
            generated = engine.post(rendered | {"model": None}, "/inference/v1/generate").json()
        back = {"generate_response": generated, "chat_request": ASK}
        answer = server.post(back, "/v1/chat/completions/derender").json()
        assert answer["choices"][0]["message"]["content"] == PARIS
