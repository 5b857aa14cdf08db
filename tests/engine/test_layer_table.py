"""What a profile says of layers, against the trace of the same steps; and that it costs nothing when none runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from quire.engine.client import EngineClient
from quire.engine.layer_table import layer_table
from quire.ops import spans
from quire.ops.spans import Key, Time
from tests.e2e.driver import bits, engine, mixed_jobs, recorded_steps, run

JOBS = mixed_jobs(6, vocab_size=500, longest=60, max_tokens=20)


@contextmanager
def profiled(model: Path, folder: Path, **more: Any) -> Iterator[EngineClient]:
    """An engine that can write profiles of its operations."""
    config = {
        "profiler": "torch", "torch_profiler_dir": str(folder), "torch_profiler_with_stack": False,
        "torch_profiler_use_gzip": False, **more,
    }  # fmt: skip
    with engine(model, profiler_config=config) as client:
        yield client


def written(folder: Path) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    """The only table in a folder, its text, and the spans of the trace."""
    (table,), (text,) = folder.glob("*.layers.json"), folder.glob("*.layers.txt")
    (trace,) = folder.glob("*.pt.trace.json")
    events = json.loads(trace.read_text())["traceEvents"]
    found = [event for event in events if event.get("cat") == "cpu_op"]
    return json.loads(table.read_text()), text.read_text(), found


@pytest.mark.parametrize("family", ["llama", "gemma2", "bamba", "qwen3_next", "gemma3n"])
def test_the_table_agrees_with_the_trace_and_changes_no_answer(
    checkpoint: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    with profiled(checkpoint(family), tmp_path) as client, recorded_steps() as _:
        expected = bits(run(client, JOBS, tag="a"))
        assert client.call("reset_prefix_cache") is True
        client.call("start_profile")
        assert bits(run(client, JOBS, tag="b")) == expected
        client.call("stop_profile")
        assert client.call("reset_prefix_cache") is True
        assert bits(run(client, JOBS, tag="c")) == expected
    table, text, found = written(tmp_path)
    step, *modules = table["modules"]
    number_of_layers = json.loads((checkpoint(family) / "config.json").read_text())
    number_of_layers = number_of_layers.get("text_config", number_of_layers)["num_hidden_layers"]
    assert list(table["layers"]) == [str(number) for number in range(number_of_layers)]
    assert all(taken > 0 for taken in table["layers"].values())
    assert not [line for line in modules if line["module"] == "other"]

    # Every operation is in the trace, under the name of its place, as often as the table says.
    named = [event for event in found if event["name"] == "step" or ": " in event["name"]]
    assert len(named) == sum(line["calls"] for line in table["modules"])
    for operation in ("linear", "paged_attention"):
        own = [one for line in modules for one in line["operations"]]
        calls = sum(one["calls"] for one in own if one["operation"] == operation)
        assert calls == sum(event["name"].endswith(f": {operation}") for event in named) > 0

    # Times: what operations take and what is between them is the step's time.
    self_ms = sum(line["self_ms"] for line in table["modules"])
    tops = [line["total_ms"] for line in modules if "." not in line["module"].replace(".*", "")]
    assert self_ms == pytest.approx(table["step_ms"], rel=1e-6)
    assert sum(tops) == pytest.approx(self_ms - step["self_ms"], rel=1e-6)
    steps_ms = sum(event["dur"] for event in named if event["name"] == "step") / 1000
    traced_ms = sum(event["dur"] for event in named) / 1000 - steps_ms
    assert self_ms == pytest.approx(steps_ms, rel=0.05)
    assert sum(tops) == pytest.approx(traced_ms, rel=0.1)
    assert step["share"] == 1.0 and "paged_attention (" in text and "layers.*" in text


def test_a_model_of_transformers_code_is_measured_whole(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with engine(
        checkpoint("llama"),
        model_impl="transformers",
        profiler_config={"profiler": "torch", "torch_profiler_dir": str(tmp_path),
                         "torch_profiler_use_gzip": False},
    ) as client:  # fmt: skip
        client.call("start_profile")
        run(client, JOBS[:2])
        client.call("stop_profile")
    table, _, found = written(tmp_path)
    modules = {line["module"]: line for line in table["modules"]}
    assert sum(line["self_ms"] for line in modules.values()) == pytest.approx(table["step_ms"])
    assert modules["model.layers.*.self_attn.o_proj"]["class"] == "Linear"
    assert any(event["name"] == "model.layers.1.mlp.down_proj: linear" for event in found)
    assert {"rms_norm", "add_rms_norm"} <= {
        one["operation"] for one in modules["model"]["operations"]
    }


def test_without_a_profile_no_span_is_made_and_lists_of_calls_are_kept(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    class Counted(nullcontext[None]):
        def __init__(self, name: str) -> None:
            super().__init__()
            made.append(name)

    monkeypatch.setattr(spans, "record_function", Counted)
    # One after the other, so that the sizes of steps are the same each time.
    with recorded_steps() as count, profiled(checkpoint("llama"), tmp_path) as client:
        replayed = []
        for round, is_profiled in enumerate((False, False, True, False)):
            if is_profiled:
                client.call("start_profile")
            before = count.num_replayed
            run(client, JOBS, tag=f"r{round}", at_once=1)
            replayed.append(count.num_replayed - before)
            assert bool(made) == is_profiled
            if is_profiled:
                client.call("stop_profile")
                made.clear()
            assert client.call("reset_prefix_cache") is True
    assert replayed[3] == replayed[1] > replayed[0], "passes were recorded anew behind the profile"
    assert replayed[2] > 0, "no list of calls ran while the profile did"


def test_a_step_that_raises_does_not_count(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with profiled(checkpoint("llama"), tmp_path) as client:
        expected = bits(run(client, JOBS[:1], tag="a"))
        client.call("start_profile")
        runner = client._core.executor.worker.runner  # type: ignore[attr-defined]
        collect = runner.output.collect

        def fail(*_: object) -> None:
            monkeypatch.setattr(runner.output, "collect", collect)
            raise RuntimeError("on purpose")

        monkeypatch.setattr(runner.output, "collect", fail)
        assert client.call("reset_prefix_cache") is True
        assert bits(run(client, JOBS[:1], tag="b")) == expected
        client.call("stop_profile")
    table, _, found = written(tmp_path)
    assert table["steps"] == sum(event["name"] == "step" for event in found) - 1
    assert sum(line["self_ms"] for line in table["modules"]) == pytest.approx(table["step_ms"])


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ({"max_iterations": 3}, 3),
        ({"wait_iterations": 1, "warmup_iterations": 2, "active_iterations": 4}, 4),
        ({"delay_iterations": 2, "wait_iterations": 1, "max_iterations": 2}, 2),
        ({"warmup_iterations": 1}, 5),
    ],
)
def test_which_steps_are_in_it(
    checkpoint: Callable[..., Path], tmp_path: Path, more: dict[str, int], steps: int
) -> None:
    with profiled(checkpoint("llama"), tmp_path, detailed_trace_annotation=True, **more) as client:
        client.call("start_profile")
        run(client, JOBS[:1])
        client.call("has_work")
    table, _, found = written(tmp_path)
    before = sum(number for name, number in more.items() if name[:4] in ("dela", "wait", "warm"))
    numbers = [event["name"] for event in found if event["name"].startswith("step ")]
    assert len(numbers) == table["steps"] == steps
    first = 0 if before else len(JOBS[0].prompt)
    assert numbers[0].endswith(f": 1 rows, {first or 1} tokens")


def test_the_table_is_left_out_if_it_is_not_wanted(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    with profiled(
        checkpoint("llama"), tmp_path, torch_profiler_dump_cuda_time_total=False
    ) as client:
        client.call("start_profile")
        run(client, JOBS[:1])
        client.call("stop_profile")
    assert [path.suffixes[-2:] for path in tmp_path.iterdir()] == [[".trace", ".json"]]


def test_layers_of_one_kind_are_one_line() -> None:
    times = {
        Key("embedding", "embedding", "cpu"): Time(1, 1_000_000, 1_000_000),
        Key("layers.0.mixer.qkv", "linear", "cpu"): Time(1, 2_000_000, 2_000_000),
        Key("layers.0.mixer", "paged_attention", "cpu"): Time(1, 3_000_000, 2_500_000),
        Key("layers.0.mixer", "rope", "cpu"): Time(1, 500_000, 500_000),
        Key("layers.1.mixer", "scan", "reference"): Time(1, 1_500_000, 1_500_000),
        Key("layers.10.mixer.qkv", "linear", "cpu"): Time(1, 2_000_000, 2_000_000),
        Key("", spans.STEP, ""): Time(1, 10_000_000, 500_000),
    }
    classes = {"": "Decoder", "embedding": "Embedding"} | {
        path: cls
        for number, mixer in ((0, "Attention"), (1, "Scan"), (10, "Attention"))
        for path, cls in (
            (f"layers.{number}", "Layer"),
            (f"layers.{number}.mixer", mixer),
            (f"layers.{number}.mixer.qkv", "Linear"),
        )
    }
    table = layer_table(times, classes)
    assert [
        (one.module, one.cls, one.calls, one.self_ms, one.total_ms, one.share)
        for one in table.modules
    ] == [
        ("", "", 1, 0.5, 10.0, 1.0),
        ("embedding", "Embedding", 1, 1.0, 1.0, 0.1),
        ("layers.*", "Layer", 0, 0.0, 8.5, 0.85),
        ("layers.*.mixer", "Attention", 2, 3.0, 7.0, 0.7),
        ("layers.*.mixer.qkv", "Linear", 2, 4.0, 4.0, 0.4),
        ("layers.*.mixer", "Scan", 1, 1.5, 1.5, 0.15),
    ]
    assert table.layers == {"0": 5.0, "1": 1.5, "10": 2.0}
    lines = table.as_text().splitlines()
    assert lines[4].split() == ["layers.*", "Layer", "0.00", "8.50", "85.0%"]
    assert lines[6].strip().split() == [":", "paged_attention", "(cpu)", "1", "2.50"]
    assert [one["class"] for one in json.loads(table.as_json())["modules"]][2] == "Layer"


def test_what_never_ran_is_an_empty_table() -> None:
    table = layer_table({}, {})
    assert (table.steps, table.step_ms, table.layers) == (0, 0.0, {})
    assert [line.share for line in table.modules] == [0.0]
