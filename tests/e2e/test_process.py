"""The engine in its own process: the same bits, clear errors, and no orphan."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire import LLM, SamplingParams
from quire.engine.client import ProcessClient, make_client
from quire.llm_engine import LLMEngine
from quire.protocol.errors import EngineDeadError, ModelLoadError, SettingsError
from quire.protocol.outputs import EngineOutputs, EngineStats
from tests.e2e.driver import bits, engine, mixed_jobs, run, settings


def test_same_bits_as_in_process(checkpoint: Callable[..., Path]) -> None:
    jobs = mixed_jobs(8, vocab_size=400, longest=100, max_tokens=6)
    folder = checkpoint("llama")
    with engine(folder, max_model_len=128) as client:
        expected = bits(run(client, jobs))
    for _ in range(2):  # a restart changes nothing
        with engine(folder, own_process=True, max_model_len=128) as client:
            assert bits(run(client, jobs)) == expected
            assert client.call("blocks_in_use") == 0
            assert client.call("reset_prefix_cache") is True
            with pytest.raises(ValueError, match="no call"):
                client.call("__class__")


def test_settings_that_cannot_work_are_told_by_name(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(SettingsError, match="block_size is 12"):
        make_client(settings(checkpoint("llama"), block_size=12), own_process=True)


def test_a_broken_weight_file_is_a_load_error(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    for file in checkpoint("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelLoadError):
        make_client(settings(tmp_path), own_process=True).wait_ready(60.0)


def test_a_killed_engine_is_noticed_and_said(checkpoint: Callable[..., Path]) -> None:
    with engine(
        checkpoint("llama"), own_process=True, max_model_len=128, engine_restarts=0
    ) as client:
        assert isinstance(client, ProcessClient)
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(EngineDeadError, match="ended"):
            while True:
                client.step()
                time.sleep(0.01)


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_the_same_bits_whenever_it_was_killed(
    checkpoint: Callable[..., Path], async_scheduling: bool
) -> None:
    jobs = mixed_jobs(8, vocab_size=400, longest=100, max_tokens=24)
    flat: dict[str, Any] = {"max_model_len": 256, "async_scheduling": async_scheduling}
    with engine(checkpoint("llama"), **flat) as client:
        expected = bits(run(client, jobs))
    with engine(checkpoint("llama"), own_process=True, engine_restarts=9, **flat) as client:
        assert isinstance(client, ProcessClient)
        killed: list[int] = []

        def kill(stats: EngineStats) -> None:
            if stats.generation_tokens > 60 * len(killed) and stats.restarts == len(killed) < 3:
                killed.append(client.pid)
                os.kill(client.pid, signal.SIGKILL)

        assert bits(run(client, jobs, on_stats=kill)) == expected
        assert len(set(killed)) == 3 and client.pid not in killed
        assert client.call("blocks_in_use") == 0


def test_a_held_engine_is_held_after_its_death(checkpoint: Callable[..., Path]) -> None:
    job = mixed_jobs(1, vocab_size=400, longest=10, max_tokens=2)[0]
    with engine(checkpoint("llama"), own_process=True, max_model_len=128) as client:
        assert isinstance(client, ProcessClient)
        news: list[EngineOutputs] = []
        client.start(news.append, lambda error: None)
        client.call("pause")
        dead = client.pid
        os.kill(dead, signal.SIGKILL)
        client.add(job.request("r-0"))
        while client.pid == dead or not client.is_ready:
            time.sleep(0.02)
        time.sleep(0.3)
        assert not any(one.updates for one in news)
        client.call("resume")
        deadline = time.monotonic() + 20
        while not any(update.finish_reason for one in news for update in one.updates):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_nothing_waits_for_an_engine_that_is_gone(checkpoint: Callable[..., Path]) -> None:
    """Between its death and the moment the front notices, sending must not block for ever."""
    job = mixed_jobs(1, vocab_size=400, longest=10, max_tokens=2)[0]
    for delay_s in (0.0, 0.02, 0.1):
        client = make_client(
            settings(checkpoint("llama"), max_model_len=128, engine_restarts=0), own_process=True
        )
        assert isinstance(client, ProcessClient)
        client.wait_ready(60.0)
        failed: list[Exception] = []

        def send(client: ProcessClient = client, failed: list[Exception] = failed) -> None:
            try:
                for number in range(1000):
                    client.add(job.request(f"r-{number}"))
                    time.sleep(0.005)
            except EngineDeadError as error:
                failed.append(error)

        os.kill(client.pid, signal.SIGKILL)
        time.sleep(delay_s)
        sending = threading.Thread(target=send, daemon=True)
        sending.start()
        sending.join(10.0)
        assert failed, "a send still waits for the dead engine"
        client.shutdown()


def test_shutting_down_while_the_engine_starts_is_quick(checkpoint: Callable[..., Path]) -> None:
    client = make_client(settings(checkpoint("llama")), own_process=True)
    begun = time.monotonic()
    client.shutdown()
    assert time.monotonic() - begun < 20.0


def test_the_engine_ends_with_its_parent(checkpoint: Callable[..., Path]) -> None:
    script = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from tests.e2e.driver import settings\n"
        "from quire.engine.client import ProcessClient\n"
        "client = ProcessClient(settings(Path(sys.argv[1]), max_model_len=128))\n"
        "client.wait_ready(60)\n"
        "print(client.pid, client._folder.name, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint("llama"))],
        stdout=subprocess.PIPE,
        text=True,
        timeout=90,
    )
    pid, folder = int(done.stdout.split()[0]), Path(done.stdout.split()[1])
    deadline = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < deadline, "the engine outlived its parent"
        time.sleep(0.1)
    assert not folder.exists()


def _is_alive(pid: int) -> bool:
    """Whether the process still runs; one that only waits to be reaped does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_an_engine_outlives_the_face_it_came_from(checkpoint: Callable[..., Path]) -> None:
    def engine() -> LLMEngine:
        return LLM(
            str(checkpoint("llama")), max_model_len=64, kv_cache_memory_bytes=1 << 20
        ).llm_engine

    kept = engine()
    gc.collect()
    kept.add_request("r", {"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=3))
    finished = []
    while kept.has_unfinished_requests():
        finished += [output for output in kept.step() if output.finished]
    assert len(finished[0].outputs[0].token_ids) <= 3 and finished[0].outputs[0].token_ids
    kept.shutdown()
    kept.add_request("late", {"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=3))
    late = [output for _ in range(3) for output in kept.step()]
    assert all(not output.outputs[0].token_ids for output in late)  # an end, and no waiting
