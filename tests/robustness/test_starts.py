"""Starts that cannot work: the exit code is 2, the lines are few, and they say what to do.

Rows of the tables that start a server: E90, E91, E93, E96, E98 and E100; F21.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from quire.config import env
from tests.e2e.killing import serving

MOST_LINES = 12
"""Of a failed start: the usual first lines of a log, progress of loading, and the reason."""


def _fails(*words: str, **variables: str) -> str:
    """What a start says that ends with 2."""
    ran = subprocess.run(
        [sys.executable, "-m", "quire", "serve", *words],
        capture_output=True, text=True, env=env.for_child(**variables), timeout=120,
    )  # fmt: skip
    assert ran.returncode == 2, (ran.returncode, ran.stderr[-2000:])
    assert "Traceback" not in ran.stderr
    assert len(ran.stderr.strip().splitlines()) <= MOST_LINES, ran.stderr
    return ran.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "99999"), "port"),
        (("--host", "203.0.113.7", "--port", "0"), "--host 203.0.113.7"),
        (("--uds", "/tmp/" + "x" * 200), "--uds"),
        (("--max-model-le", "5"), "--max-model-len"),
        (("--max-model-len", "abc"), "max-model-len"),
        (("--max-num-seqs", "0"), "max-num-seqs"),
        (("--api-key", ""), "api-key"),
        (("--config", "/nonexistent.yaml"), "/nonexistent.yaml"),
        (("--tensor-parallel-size", "2"), "tensor-parallel-size"),
        (("--chat-template", "/nonexistent.jinja"), "nonexistent.jinja"),
        (("--ssl-certfile", "/nonexistent.pem", "--ssl-keyfile", "/nonexistent.pem"), "nonexistent.pem"),
        (("/nonexistent/folder",), "/nonexistent/folder"),
    ],
)  # fmt: skip
def test_wrong_words(words: tuple[str, ...], said: str) -> None:
    """E90, E91, E93: each is named."""
    assert said.replace("-", "_") in _fails(*words).replace("-", "_")


@pytest.mark.parametrize("flag", ["--tool-call-parser", "--reasoning-parser"])
def test_an_unknown_parser_is_told_before_the_weights_are_read(flag: str) -> None:
    said = _fails(flag, "nobody", "--port", "0")
    assert f"{flag} 'nobody'" in said
    assert "Loading weights" not in said


def test_a_file_of_settings_makes_no_objects(tmp_path: Path) -> None:
    """E91: YAML is read without tags."""
    path = tmp_path / "serve.yaml"
    marker = tmp_path / "marker"
    path.write_text(f"port: !!python/object/apply:os.system ['touch {marker}']\n")
    _fails("--config", str(path))
    assert not marker.exists()


def test_a_cut_model_is_named(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """F21: weights that are a byte short, and a file of another kind in their place."""
    folder = tmp_path / "cut"
    shutil.copytree(checkpoint("llama"), folder)
    weights = next(folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert weights.name in _fails(str(folder), "--port", "0")


def test_a_model_without_a_template_or_an_end(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """E98: completions work; a chat says what is missing; an answer ends by its length."""
    folder = tmp_path / "bare"
    shutil.copytree(checkpoint("llama"), folder)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists():
            config = json.loads(path.read_text())
            for key in ("eos_token_id", "eos_token", "chat_template"):
                config.pop(key, None)
            path.write_text(json.dumps(config))
    with serving("--responses-store", "none", model=folder) as server:
        ask = {"prompt": "the river", "max_tokens": 5}
        answer = httpx.post(f"{server.url}/v1/completions", json=ask, timeout=60).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
        refused = httpx.post(f"{server.url}/v1/chat/completions", json=chat, timeout=60)
        assert refused.status_code == 400 and "template" in refused.json()["error"]["message"]


def test_a_processor_with_little(tmp_path: Path) -> None:
    """E96: the kernels for any processor, on one core."""
    with serving("--threads", "1", "--responses-store", "none", QUIRE_CPU_ISA="portable") as server:
        ask = {"prompt": "The capital of France is", "max_tokens": 2, "temperature": 0}
        answer = httpx.post(f"{server.url}/v1/completions", json=ask, timeout=60).json()
        assert "Paris" in answer["choices"][0]["text"]


def test_two_on_one_port() -> None:
    """E100: the second ends, the first goes on."""
    with serving("--responses-store", "none") as server:
        port = server.url.rpartition(":")[2]
        assert port in _fails("--port", port)
        assert httpx.get(f"{server.url}/ready").status_code == 200
