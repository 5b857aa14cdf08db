"""What the official clients do while a server cannot answer: errors of their classes, and tries after a named time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.served import ROOT

PACE_S = 1.0  # of a step of the scripted engine
NUM_SEQS = 1
FULL = 64
"""Prompts that may wait with so few sequences, before it is known how fast the engine is."""


@contextmanager
def scripted(folder: Path, held: Path, pace_s: float) -> Iterator[str]:
    """The URL of a server over the scripted engine; it loads for as long as `held` is there."""
    command = [sys.executable, "-m", "tests.server.scripted_server", str(folder), str(pace_s)]
    command += ["--port", "0", "--served-model-name", "tiny", "--max-num-seqs", str(NUM_SEQS)]
    log = held.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=os.environ)
    try:
        deadline_s = time.monotonic() + 30
        while not (found := re.search(r"listening on (http://127\.0\.0\.1:\d+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture
def folder(checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint that this file may write into: a copy by links."""
    found = tmp_path / "model"
    found.mkdir()
    for path in checkpoint("llama").iterdir():
        (found / path.name).symlink_to(path)
    return found


def ask_openai(url: str, retries: int, prompt: Any = (50, 51)) -> Any:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=retries) as client:
        return client.completions.with_raw_response.create(
            model="tiny", prompt=prompt if isinstance(prompt, list) else list(prompt), max_tokens=2
        )


def ask_anthropic(url: str, retries: int) -> Any:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=retries) as client:
        return client.messages.with_raw_response.count_tokens(
            model="tiny", messages=[{"role": "user", "content": "Hi"}]
        )


def test_a_server_that_loads(folder: Path, tmp_path: Path) -> None:
    """503 at once; a client that may try again has its answer soon after the model is there."""
    held = folder / "hold"
    held.touch()
    with scripted(folder, tmp_path / "first", 0.0) as url:
        with pytest.raises(openai.InternalServerError) as caught:
            ask_openai(url, 0)
        assert caught.value.status_code == 503 and caught.value.response.headers["retry-after"]
        with pytest.raises(anthropic.ServiceUnavailableError, match="overloaded_error"):
            ask_anthropic(url, 0)
        threading.Timer(1.0, held.unlink).start()
        answer = ask_openai(url, 10)
        assert answer.status_code == 200 and 1 <= answer.retries_taken <= 5
        assert httpx.get(f"{url}/ready").status_code == 200


def test_a_full_queue(folder: Path, tmp_path: Path) -> None:
    """429 at once with the time to wait; a client that may try again is served when there is room."""
    with scripted(folder, tmp_path / "second", PACE_S) as url, ThreadPoolExecutor() as pool:
        ask_openai(url, 20)
        filling = pool.submit(ask_openai, url, 20, [[50, 51]] * FULL)
        deadline_s = time.monotonic() + 90
        while True:
            time.sleep(0.5)  # so that what fills it finds room for all of it
            try:
                with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
                    client.completions.create(
                        model="tiny", prompt=[50, 51], max_tokens=2, timeout=0.3
                    )
            except openai.APITimeoutError:
                assert time.monotonic() < deadline_s, "the queue never fills"
            except openai.RateLimitError as error:
                refused = error
                break
        headers = refused.response.headers
        assert not filling.done(), "the refusal waited for its turn"
        assert refused.type == "RateLimitError"
        assert 0 < int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
        answer = ask_openai(url, 20)
        assert answer.status_code == 200 and answer.retries_taken >= 1
        assert filling.result(60).status_code == 200
