"""A running engine held, let go, robbed of its cache and traced: the answers stay the same, bit for bit."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from quire.config.profiling import read_profiler
from quire.engine.client import EngineClient
from quire.protocol.errors import SettingsError
from quire.protocol.outputs import EngineStats
from tests.e2e.driver import Job, bits, engine, mixed_jobs, run

JOBS = mixed_jobs(12, vocab_size=500, longest=90, max_tokens=24)


@pytest.fixture(scope="module")
def expected(checkpoint: Callable[..., Path]) -> object:
    with engine(checkpoint("llama")) as client:
        return bits(run(client, JOBS))


@pytest.mark.parametrize("depth_two", [False, True])
def test_losing_all_blocks_changes_no_answer(
    checkpoint: Callable[..., Path], expected: object, depth_two: bool
) -> None:
    num_resets = 0

    def reset(stats: EngineStats, client: EngineClient) -> None:
        nonlocal num_resets
        if stats.steps % 5 == 3:
            assert client.call("reset_running") is True
            assert client.call("blocks_in_use") == 0
            num_resets += 1

    with engine(checkpoint("llama"), async_scheduling=depth_two) as client:
        found = bits(run(client, JOBS, on_stats=lambda stats: reset(stats, client)))
    assert num_resets > 3 and found == expected


def test_a_held_engine_stands_still_and_goes_on(
    checkpoint: Callable[..., Path], expected: object
) -> None:
    num_pauses = 0

    def hold(stats: EngineStats, client: EngineClient) -> None:
        nonlocal num_pauses
        if stats.steps % 7 == 2:
            client.call("pause")
            while client.step() is not None:
                pytest.fail("a held engine made a step")  # with one ticket nothing is in flight
            assert not client.call("has_work")
            client.call("resume")
            num_pauses += 1

    with engine(checkpoint("llama"), async_scheduling=False) as client:
        found = bits(run(client, JOBS, on_stats=lambda stats: hold(stats, client)))
    assert num_pauses > 3 and found == expected


def test_requests_that_come_while_new_ones_are_held_wait_outside(
    checkpoint: Callable[..., Path],
) -> None:
    job = Job((5, 6, 7), {"max_tokens": 4, "temperature": 0.0, "ignore_eos": True}, seed=1)
    with engine(checkpoint("llama")) as client:
        client.call("hold_new")
        client.add(job.request("held-0"))
        client.add(job.request("gone-0"))
        client.abort("gone-0")
        assert client.step() is None
        client.call("resume")
        ids: list[int] = []
        while (news := client.step()) is not None:
            for update in news.updates:
                assert update.request_id == "held-0"
                ids += update.token_ids
        assert len(ids) == 4


def test_the_cache_is_empty_after_a_reset(checkpoint: Callable[..., Path]) -> None:
    job = Job(tuple(range(5, 105)), {"max_tokens": 2, "temperature": 0.0}, seed=1)
    with engine(checkpoint("llama"), block_size=16) as client:
        cached = []
        for tag in ("a", "b", "c"):
            if tag == "c":
                assert client.call("reset_prefix_cache") is True
            cached.append(run(client, [job], tag=tag)[0][0].num_cached_tokens)
    assert cached[0] == 0 and cached[1] >= 90 and cached[2] == 0


def test_a_trace_is_written_and_changes_nothing(
    checkpoint: Callable[..., Path], expected: object, tmp_path: Path
) -> None:
    folder = tmp_path / "traces"
    config = {
        "profiler": "torch", "torch_profiler_dir": str(folder), "delay_iterations": 2,
        "torch_profiler_with_stack": False,
    }  # fmt: skip
    with engine(checkpoint("llama"), profiler_config=config) as client:
        with pytest.raises(ValueError, match="no profile runs"):
            client.call("stop_profile")
        client.call("start_profile")
        with pytest.raises(ValueError, match="runs already"):
            client.call("start_profile")
        assert bits(run(client, JOBS)) == expected
        path = Path(client.call("stop_profile"))
        assert path.parent == folder
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        threads = {event.get("tid") for event in events if event.get("cat") == "cpu_op"}
        assert threads, "nothing of the compute thread is in the trace"


def test_a_trace_ends_by_itself(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    config = {
        "profiler": "torch", "torch_profiler_dir": str(tmp_path), "max_iterations": 3,
        "torch_profiler_with_stack": False, "torch_profiler_use_gzip": False,
    }  # fmt: skip
    with engine(checkpoint("llama"), profiler_config=config) as client:
        client.call("start_profile")
        run(client, JOBS[:4])
        deadline = time.monotonic() + 5
        while not list(tmp_path.glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(tmp_path.glob("*.pt.trace.json"))) == 1


def test_without_a_configuration_there_is_no_trace(checkpoint: Callable[..., Path]) -> None:
    with (
        engine(checkpoint("llama")) as client,
        pytest.raises(ValueError, match="--profiler-config"),
    ):
        client.call("start_profile")


@pytest.mark.parametrize(
    "given",
    [
        {"profiler": "cuda"},
        {"profiler": "torch"},
        {"profiler": "torch", "torch_profiler_dir": "relative"},
        {"profiler": 1},
        {"unknown": 1},
        {"delay_iterations": -1},
        {"warmup_iterations": -1},
        {"active_iterations": 0},
        {"capture_torch_profiler": True},
        {"torch_profiler_with_stack": "yes"},
    ],
)
def test_configurations_that_cannot_be(given: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="--profiler-config"):
        read_profiler(given)


def test_keys_of_the_front_are_taken() -> None:
    config = read_profiler({"profiler": None, "ignore_frontend": True, "active_iterations": 9})
    assert config.profiler is None and config.num_traced == 0
