"""Measurements of a tiny model in this process and in a server of its own: what they write and print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from quire import LLM, SamplingParams
from quire.bench import hf
from quire.bench.datasets import RandomSizes, Sample, Source, random_samples
from quire.cli.main import main
from quire.config.schema import ModelConfig, ParallelConfig, Settings
from quire.protocol.errors import SettingsError
from tests.checkpoints import Checkpoint

Capture = pytest.CaptureFixture[str]

SMALL = ["--threads", "1", "--max-model-len", "128", "--kv-cache-memory-bytes", "8M"]


def run(kind: str, folder: Path, out: Path, *words: str) -> dict[str, Any]:
    words = ("bench", kind, str(folder), *SMALL, *words, "--output-json", str(out))
    assert main(words) == 0
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_latency(checkpoint: Checkpoint, tmp_path: Path, capsys: Capture) -> None:
    words = ["--input-len", "8", "--output-len", "3", "--batch-size", "2", "--num-iters", "4"]
    words += ["--num-iters-warmup", "1"]
    found = run("latency", checkpoint("llama"), tmp_path / "a.json", *words)
    assert len(found["latencies"]) == 4 and min(found["latencies"]) > 0
    assert found["avg_latency"] == pytest.approx(sum(found["latencies"]) / 4)
    assert list(found["percentiles"]) == ["10", "25", "50", "75", "90", "99"]
    assert list(found["percentiles"].values()) == sorted(found["percentiles"].values())
    text = capsys.readouterr().out
    assert "Avg latency: " in text and "\n99% percentile latency: " in text
    beams = ["--use-beam-search", "--n", "2", "--num-iters", "1", "--num-iters-warmup", "0"]
    assert (
        run("latency", checkpoint("llama"), tmp_path / "b.json", *words, *beams)["avg_latency"] > 0
    )


@pytest.mark.parametrize("kind", ["latency", "throughput"])
def test_a_profile(kind: str, checkpoint: Checkpoint, tmp_path: Path, capsys: Capture) -> None:
    words = ["bench", kind, str(checkpoint("llama")), *SMALL, "--input-len", "8", "--output-len"]
    words += ["3", *(["--num-iters-warmup", "1"] if kind == "latency" else ["--num-prompts", "4"])]
    assert main([*words, "--profile"]) == 2
    assert "--profile: no profiler is configured" in capsys.readouterr().err
    config = {"profiler": "torch", "torch_profiler_dir": str(tmp_path)}
    assert main([*words, "--profile", "--profiler-config", json.dumps(config)]) == 0
    (trace,) = tmp_path.glob("*.pt.trace.json.gz")
    assert f"Profile: {trace}\n" in capsys.readouterr().out
    (table,) = tmp_path.glob("*.layers.json")
    assert json.loads(table.read_text())["steps"] == 3
    config["max_iterations"] = 1  # type: ignore[assignment]
    assert main([*words, "--profile", "--profiler-config", json.dumps(config)]) == 0
    assert "Profile: ended by itself" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["quire", "hf"])
def test_throughput(backend: str, checkpoint: Checkpoint, tmp_path: Path, capsys: Capture) -> None:
    words = ["--backend", backend, "--num-prompts", "5", "--input-len", "8", "--output-len", "3"]
    words += ["--random-range-ratio", "0.3", "--hf-max-batch-size", "2", "--disable-tqdm"]
    found = run(
        "throughput", checkpoint("llama"), tmp_path / "a.json", *words, "--num-warmups", "1"
    )
    source = Source(None, 500, False)
    sizes = RandomSizes(input_len=8, output_len=3, range_ratio=0.3)
    assert found["num_output_tokens"] == sum(
        sample.output_len for sample in random_samples(source, 5, sizes, 0)
    )
    assert found["num_requests"] == 5 and found["elapsed_time"] > 0
    total = found["num_prompt_tokens"] + found["num_output_tokens"]
    assert found["total_num_tokens"] == total
    assert found["tokens_per_second"] == pytest.approx(total / found["elapsed_time"])
    assert found["requests_per_second"] == pytest.approx(5 / found["elapsed_time"])
    text = capsys.readouterr().out
    assert text.startswith("Throughput: ") and " requests/s, " in text and "output tokens/s" in text
    assert f"Total num prompt tokens:  {found['num_prompt_tokens']}\n" in text


def test_versus_runs_both_in_turns(checkpoint: Checkpoint, tmp_path: Path, capsys: Capture) -> None:
    words = ["--versus", "hf", "--rounds", "2", "--num-prompts", "3", "--input-len", "8"]
    found = run("throughput", checkpoint("llama"), tmp_path / "a.json", *words, "--output-len", "3")
    assert len(found["rounds"]) == 2 and found["hf_dtype"] == "float32"
    ours, theirs = found["quire"], found["hf"]
    assert ours["total_num_tokens"] == theirs["total_num_tokens"] == 33
    assert found["ratio"] == pytest.approx(
        ours["output_tokens_per_second"] / theirs["output_tokens_per_second"]
    )
    assert "times the tokens per second of Transformers" in capsys.readouterr().out


def test_both_backends_make_the_same_tokens(checkpoint: Checkpoint) -> None:
    folder = str(checkpoint("llama"))
    samples = [Sample(list(range(9, 9 + n)), None, 6 + n) for n in (3, 8, 5)]
    settings = Settings(model=ModelConfig(model=folder), parallel=ParallelConfig(device="cpu"))
    _, made = hf.HfModel(settings, 1).run(samples, 2)
    params = [
        SamplingParams(temperature=0.0, max_tokens=one.output_len, ignore_eos=True)
        for one in samples
    ]
    with LLM(folder, threads=1, max_model_len=128, kv_cache_memory_bytes=1 << 23) as llm:
        prompts = [{"prompt_token_ids": one.ids} for one in samples]
        answers = llm.generate(prompts, params, use_tqdm=False)
    assert made == [answer.outputs[0].token_ids for answer in answers]


def test_a_missing_transformers_is_said(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = str(checkpoint("llama"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    words = [
        "bench",
        "throughput",
        folder,
        "--backend",
        "hf",
        "--num-prompts",
        "1",
    ]
    assert main(words) == 2
    assert "pip install transformers" in capsys.readouterr().err
    with pytest.raises(SettingsError):
        hf.HfModel(Settings(), 1)


def test_a_prompt_that_does_not_fit_is_named(checkpoint: Checkpoint, capsys: Capture) -> None:
    words = ["--num-prompts", "1", "--input-len", "127", "--output-len", "9", "--disable-tqdm"]
    assert main(["bench", "throughput", str(checkpoint("llama")), *SMALL, *words]) == 2
    assert "128" in capsys.readouterr().err


@pytest.mark.slow
def test_startup(checkpoint: Checkpoint, tmp_path: Path, capsys: Capture) -> None:
    words = ["--num-iters-cold", "1", "--num-iters-warmup", "0", "--num-iters-warm", "1"]
    found = run("startup", checkpoint("llama"), tmp_path / "a.json", *words)
    for kind in ("cold", "warm"):
        (start,) = found[f"{kind}_starts"]
        assert 0 < start["port"] < start["ready"] < start["first_token"]
        taken = sum(phase["seconds"] for phase in start["phases"])
        assert taken == pytest.approx(start["first_token"])
        assert found[f"avg_{kind}_startup_time"] == found[f"{kind}_startup_times"][0]
    text = capsys.readouterr().out
    assert "cold starts: 1" in text and "loading weights" in text and "= first token" in text


def test_a_server_that_cannot_start_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["bench", "startup", str(tmp_path), "--num-iters-cold", "1"]) == 1
    assert "the server ended with code" in capsys.readouterr().err
