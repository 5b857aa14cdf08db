"""Each program of examples/ runs as its docstring says; what it prints is other tests' business."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.served import served

ROOT = Path(__file__).resolve().parents[1]
Checkpoint = Callable[..., Path]


def run(name: str, *words: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, f"examples/{name}.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_offline_generate(checkpoint: Checkpoint) -> None:
    lines = run("offline_generate", str(checkpoint("llama"))).splitlines()
    assert len(lines) == 9, "one greedy and two sampled continuations of three prompts"
    assert lines[3] != lines[4], "the two choices of a sampled request differ"


def test_async_stream(checkpoint: Checkpoint) -> None:
    lines = run("async_stream", str(checkpoint("qwen3"))).splitlines()
    assert {line[0] for line in lines} == {"0", "1", "2"}
    assert len(lines) > 10, "answers come in pieces"


OFFLINE = {
    "beam_search": r"-?\d+\.\d+  'The capital of France is Paris",
    "chat_with_tools": 'get_weather {"city": "Paris"}\nIt is sunny and 21 degrees in Paris.',
    "embeddings": "1.000  What is the capital of France",
    "chat": "The capital of France is Paris.",
    "engine_loop": "0: 'The capital of France is' -> ' Paris.'",
    "logits_processor": "24 of 24 tokens differ",
    "prefix_caching": r"[1-9]\d\d of \d+ tokens were cached",
    "prompt_embeddings": "' Paris.'\n' Paris.'",
    "stat_logger": "16 tokens, 16 seen",
    "structured_outputs": "choice: Paris\nregex: The capital of France is Paris.\njson: {'capital': 'Paris'}",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_an_example_runs_with_the_demo_model(name: str) -> None:
    printed = run(name)
    assert re.search(OFFLINE[name], printed), printed


def test_every_example_is_run() -> None:
    here = {path.stem for path in (ROOT / "examples").glob("*.py")}
    elsewhere = {"async_stream", "offline_generate", "openai_chat", "openai_client"}
    elsewhere |= {"structured_outputs_online", "vllm_program"}
    assert here == OFFLINE.keys() | elsewhere


def test_a_program_for_vllm(checkpoint: Checkpoint) -> None:
    words = ["-m", "quire.compat.vllm", "examples/vllm_program.py", "--max-tokens", "6"]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "'The capital of France is' -> ' Paris.'"


ONLINE = {
    "choice": r"Paris",
    "regex": r"The capital of France is Paris\.",
    "json": r'\{"capital": "(Paris|Oslo|Rome)"\}',
    "json_object": r"\{.*",
    "grammar": r"It is (Paris|Rome)\.",
    "structural_tag": r'<country>\{"capital": "(Paris|Oslo|Rome)"\}</country>',
}


@pytest.mark.slow
def test_structured_outputs_online(tmp_path: Path) -> None:
    """Each constraint alone and all of them, whole, streamed and behind reasoning."""
    with served(tmp_path) as server:
        url = ["--url", f"{server.url}/v1"]
        whole = run("structured_outputs_online", *url)
        for name, wanted in ONLINE.items():
            assert re.search(rf"^{name}: {wanted}$", whole, re.MULTILINE), (name, whole)
        assert run("structured_outputs_online", *url, "--stream") == whole
        words = ["--constraint", "json", "choice", "--reasoning"]
        thought = run("structured_outputs_online", *url, *words).splitlines()
        assert [line.partition(":")[0] for line in thought if "apital=" not in line] == [
            "json", "json", "choice", "choice"
        ] and all(line.count("(") == 1 for line in thought if line.endswith(")"))  # fmt: skip
        streamed = run("structured_outputs_online", *url, *words, "--stream")
        assert all(line.partition(": ")[2] in streamed for line in thought if "(" not in line)


@pytest.mark.slow
def test_openai_chat(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        printed = run("openai_chat", f"{server.url}/v1")
    lines = printed.splitlines()
    assert lines[0] == "The capital of France is Paris."
    assert lines[1] == "get_weather {'city': 'Paris'}"
    assert "21" in lines[2] or "clear" in lines[2], "the tool's result is told"


def test_openai_client(checkpoint: Checkpoint, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "quire", "serve", str(checkpoint("gemma2")), "--port", "0"],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        printed = run("openai_client", f"{address_in(log, server)}/v1")
    finally:
        server.terminate()
        server.wait(30)
    assert "CompletionUsage" in printed.splitlines()[0]
    assert len(printed.splitlines()[1].split("' ")) > 5, "the second answer comes in pieces"


def address_in(log: Path, server: subprocess.Popen[bytes], timeout_s: float = 60.0) -> str:
    """The base URL that the server's log names, once it can serve."""
    import httpx

    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found is not None and not found.group().endswith(":0"):
            try:
                if httpx.get(f"{found.group()}/ready").status_code == 200:
                    return found.group()
            except httpx.TransportError:
                pass
        time.sleep(0.1)
    pytest.fail(f"the server was not ready after {timeout_s} s: {log.read_text()}")
