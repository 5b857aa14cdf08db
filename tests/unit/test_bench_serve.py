"""`quire bench serve` against a small server over a real socket."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from quire.cli.main import main
from tests.checkpoints import write_tokenizer
from tests.unit.fake_server import running

Capture = pytest.CaptureFixture[str]

KEYS = {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency", "duration", "completed", "failed",
    "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput",
    "output_throughput", "total_token_throughput", "max_output_tokens_per_s",
    "max_concurrent_requests",
    *(f"{kind}_{metric}_ms" for kind in ("mean", "median", "std", "p99")
      for metric in ("ttft", "tpot", "itl", "e2el")),
}  # fmt: skip
DETAILS = {
    "input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    write_tokenizer(made)
    return made


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def bench(server: Any, folder: Path, *words: str) -> int:
    return main(
        ["bench", "serve", "--base-url", server.base, "--tokenizer", str(folder), "--disable-tqdm",
         "--random-input-len", "12", "--random-output-len", "4", *words]
    )  # fmt: skip


def custom(folder: Path, prompts: list[str]) -> list[str]:
    path = folder / "custom.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    words = ["--dataset-name", "custom", "--dataset-path", str(path), "--disable-shuffle"]
    return [*words, "--num-prompts", str(len(prompts))]


@pytest.mark.parametrize("backend", ["openai", "vllm", "openai-chat"])
def test_a_run_has_every_key_and_adds_up(
    backend: str, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = custom(folder, ["a b c", "d e f g", "h i"])
    words += ["--backend", backend, "--save-detailed", "--result-dir", str(tmp_path)]
    words += ["--metadata", "machine=mine", "--result-filename", "r.json"]
    with running(pace_s=0.02) as server:
        assert bench(server, folder, *words) == 0
        sent = sorted(server.requests, key=lambda one: str(one[1]))
    found = json.loads((tmp_path / "r.json").read_text())
    assert set(found) == KEYS | DETAILS | {"machine"} and found["machine"] == "mine"
    assert (found["completed"], found["failed"], found["request_rate"]) == (3, 0, "inf")
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (21, 9)
    assert found["output_lens"] == [3, 4, 2] and found["errors"] == ["", "", ""]
    assert found["generated_texts"] == ["a b c ", "d e f g ", "h i "]
    assert [len(itls) for itls in found["itls"]] == [2, 3, 1]
    assert all(gap > 0.01 for itls in found["itls"] for gap in itls)
    assert found["median_ttft_ms"] > 10 and found["mean_e2el_ms"] > found["mean_ttft_ms"]
    assert found["mean_tpot_ms"] > 10 and found["max_concurrent_requests"] == 3
    assert "Successful requests:" in capsys.readouterr().out
    paths = {"openai-chat": "/v1/chat/completions"}
    assert {path for path, _, _ in sent} == {paths.get(backend, "/v1/completions")}
    limit = "max_completion_tokens" if backend == "openai-chat" else "max_tokens"
    assert all(body[limit] == 256 and body["model"] == "fake-model" for _, body, _ in sent)


def test_concurrency_and_rate_are_kept(folder: Path, tmp_path: Path) -> None:
    words = ["--save-result", "--result-dir", str(tmp_path), "--max-concurrency", "2"]
    with running(pace_s=0.01) as server:
        assert bench(server, folder, "--num-prompts", "8", *words, "--result-filename", "a") == 0
        start_s = time.perf_counter()
        rate = ["--request-rate", "20", "--burstiness", "100", "--num-prompts", "10"]
        assert (
            bench(server, folder, *rate, *words, "--append-result", "--result-filename", "b") == 0
        )
        assert time.perf_counter() - start_s > 0.35  # 10 arrivals at 20 a second, nearly even
        assert len(server.requests) == 18
    found = json.loads((tmp_path / "a").read_text())
    assert found["max_concurrent_requests"] <= 2 == found["max_concurrency"]
    (line,) = (tmp_path / "b").read_text().splitlines()
    assert json.loads(line)["request_rate"] == 20.0


def test_failures_are_counted_and_shown(folder: Path, capsys: Capture) -> None:
    with running() as server:
        assert bench(server, folder, *custom(folder, ["fine here", "refuse this"])) == 0
        out = capsys.readouterr()
        assert "1 requests failed; the first with: HTTP 400: refused as asked" in out.err
        assert out.out.split("Failed requests:")[1].split()[0] == "1"
        assert bench(server, folder, *custom(folder, ["refuse this"])) == 1
    with running(break_off=True) as server:
        assert bench(server, folder, *custom(folder, ["a b"])) == 1
        assert "broke off" in capsys.readouterr().err


def test_warmups_are_sent_and_not_counted(folder: Path, capsys: Capture) -> None:
    with running() as server:
        words = ["--num-prompts", "3", "--num-warmups", "2", "--ready-check-timeout-sec", "5"]
        assert bench(server, folder, *words) == 0
        assert len(server.requests) == 6  # two to warm up and one to see that it is there
    assert capsys.readouterr().out.split("Successful requests:")[1].split()[0] == "3"


def test_names_headers_and_ids(folder: Path) -> None:
    with running(key="k", root=str(folder)) as server:
        words = ["--num-prompts", "1", "--header", "X-A=b=c", "--request-id-prefix", "run-"]
        words += ["--served-model-name", "other", "--base-url", server.base, "--disable-tqdm"]
        assert main(["bench", "serve", *words, "--api-key", "k", "--input-len", "9"]) == 2
        words += ["--tokenizer", str(folder), "--output-len", "1"]
        assert main(["bench", "serve", *words, "--api-key", "k", "--input-len", "9"]) == 0
        assert main(["bench", "serve", *words, "--api-key", "wrong"]) == 1
        _, body, heads = server.requests[0]
    assert body["model"] == "other" and body["max_tokens"] == 1
    assert heads["x-a"] == "b=c" and heads["x-request-id"] == "run-0"


def test_the_tokenizer_is_found_where_the_server_says(folder: Path) -> None:
    with running(root=str(folder)) as server:
        words = ["--base-url", server.base, "--disable-tqdm", "--num-prompts", "1"]
        assert main(["bench", "serve", *words, "--input-len", "9"]) == 0


def test_no_server_is_said_in_one_line(folder: Path, capsys: Capture) -> None:
    with running() as server:
        base = server.base
    assert main(["bench", "serve", "--base-url", base, "--tokenizer", str(folder)]) == 1
    err = capsys.readouterr().err
    assert f"no server answers at {base}" in err and len(err.splitlines()) == 1
