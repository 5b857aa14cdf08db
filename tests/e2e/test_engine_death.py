"""The engine's death is invisible: streams go on with the same bits, whoever kills is found, health is honest."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.killing import (
    Answer,
    ask_all,
    ask_while_killing,
    bodies,
    has_schemas,
    serving,
)

pytestmark = pytest.mark.slow

POISON = """
import sys

if "quire.engine.process" in " ".join(sys.orig_argv):
    import os

    from quire.worker import output

    collect = output.Output.collect

    def watched(self, batch, hidden, masks):
        rows = collect(self, batch, hidden, masks)
        if any({token} in row.token_ids for row in rows):
            os.abort()
        return rows

    output.Output.collect = watched
"""
"""Put before the engine's own code: it aborts the process at a token id."""


TROUBLE = """
import sys

if "quire.engine.process" in " ".join(sys.orig_argv):
    import pathlib
    import threading
    import time

    from quire.engine import core
    from quire.hardware import pulse
    from quire.worker import output

    collect, update = output.Output.collect, core.EngineCore._follow_rate
    folder = pathlib.Path({folder!r})

    def is_told(what):
        try:
            (folder / what).unlink()
            return True
        except FileNotFoundError:
            return False

    def in_worker(self, batch, hidden, masks):
        if is_told("deadlock"):
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        if is_told("long"):
            for _ in range(8):
                time.sleep(0.5)
                pulse.beat()
        return collect(self, batch, hidden, masks)

    def in_loop(self, plan, result):
        if is_told("raise"):
            raise RuntimeError("the loop is broken")
        return update(self, plan, result)

    output.Output.collect, core.EngineCore._follow_rate = in_worker, in_loop
"""
"""The same, with what a file of a folder names, once."""


PATIENT = ("--max-queue-wait", "120")
"""Nobody is to be refused, however slow the machine is just now."""


def _with(code: str, folder: Path) -> dict[str, str]:
    """Variables by which the engine's process runs this first."""
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def _replayed(asked: list[dict[str, object]], answers: list[Answer]) -> list[dict[str, object]]:
    """The same requests, with the seeds that were returned where none was given."""
    return [
        body if "seed" in body else body | {"seed": answer.choices[0]["seed"]}
        for body, answer in zip(asked, answers, strict=True)
    ]


def test_streams_survive_three_kills() -> None:
    with serving("--engine-restarts", "20", *PATIENT) as server:
        asked = bodies(16, max_tokens=160, with_schema=has_schemas(server))
        killed = asyncio.run(ask_while_killing(server, asked, 3, seed=1, longest_wait_s=0.5))
        assert len(killed.answers) % 16 == 0 and server.metric("quire:engine_restarts_total") == 3
        assert [answer.error for answer in killed.answers if answer.error is not None] == []
        again = killed.answers[-16:]
        undisturbed = asyncio.run(ask_all(server, _replayed(asked, again)))
        assert sum(len(one["ids"]) for a in undisturbed for one in a.choices.values()) > 1000
        for answer, other in zip(again, undisturbed, strict=True):
            assert answer.is_done and answer.error is None
            assert answer.same_as(other), (answer, other)
        assert server.metric("vllm:num_requests_running") == 0
        for how in ("failed", "aborted", "refused"):
            assert server.metric(f"quire:requests_{how}_total") == 0


def test_a_stopped_engine_is_replaced_and_health_is_honest() -> None:
    with serving() as server:
        asked = bodies(4, max_tokens=60, with_schema=False)[:3]
        undisturbed = asyncio.run(ask_all(server, asked))

        async def stopped() -> tuple[list[Answer], float]:
            running = asyncio.create_task(ask_all(server, asked))
            await asyncio.sleep(0.03)
            pid = server.kill_engine(signal.SIGSTOP)
            begun_s = time.monotonic()
            async with httpx.AsyncClient(base_url=server.url) as client:
                while (await client.get("/ready")).status_code == 200:
                    await asyncio.sleep(0.05)
                noticed_s = time.monotonic() - begun_s
                ready, health = await client.get("/ready"), await client.get("/health")
                assert (ready.status_code, health.status_code) == (503, 200)
                assert "retry-after" in ready.headers and "phase" in ready.json()
            answers = await running
            assert server.engine_pid() != pid
            return answers, noticed_s

        answers, noticed_s = asyncio.run(stopped())
        assert noticed_s <= 5.0
        assert all(a.same_as(b) for a, b in zip(answers, undisturbed, strict=True))
        assert server.metric("quire:engine_restarts_total") == 1


def test_an_idle_engine_that_stops_is_noticed_too() -> None:
    with serving("--engine-stall-timeout", "1.5") as server:
        server.kill_engine(signal.SIGSTOP)
        begun_s = time.monotonic()
        while server.is_ready():
            assert time.monotonic() < begun_s + 4, server.log()
            time.sleep(0.05)
        # A request that comes meanwhile waits, and is answered.
        body = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 200 and answer.json()["choices"][0]["text"]


@pytest.mark.parametrize(("what", "restarts"), [("deadlock", 1), ("raise", 1), ("long", 0)])
def test_what_stands_still_is_replaced_and_what_moves_is_not(
    what: str, restarts: int, tmp_path: Path
) -> None:
    code = TROUBLE.replace("{folder!r}", repr(str(tmp_path)))
    with serving("--engine-stall-timeout", "1.5", **_with(code, tmp_path)) as server:
        asked = bodies(3, max_tokens=60, with_schema=False)
        undisturbed = asyncio.run(ask_all(server, asked))

        async def troubled() -> list[Answer]:
            running = asyncio.create_task(ask_all(server, asked))
            await asyncio.sleep(0.03)
            (tmp_path / what).touch()
            return await running

        answers = asyncio.run(troubled())
        assert all(a.same_as(b) for a, b in zip(answers, undisturbed, strict=True))
        assert not (tmp_path / what).exists()
        assert server.metric("quire:engine_restarts_total") == restarts


def test_one_poisonous_request_among_sixteen(tmp_path: Path) -> None:
    asked = bodies(16, max_tokens=60, with_schema=False)
    asked = [body | {"seed": 7 + number} for number, body in enumerate(asked)]
    poison = asked[5] | {"seed": 99}
    with serving(*PATIENT) as server:
        *undisturbed, alone = asyncio.run(ask_all(server, [*asked, poison]))
    seen = {i for a in undisturbed for one in a.choices.values() for i in one["ids"]}
    token = next(one for one in alone.choices[0]["ids"][10:] if one not in seen)
    del poison["stream"], poison["stream_options"]
    with serving(*PATIENT, **_with(POISON.replace("{token}", str(token)), tmp_path)) as server:

        async def both() -> tuple[list[Answer], httpx.Response]:
            running = asyncio.create_task(ask_all(server, asked))
            await asyncio.sleep(0.02)
            async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
                failed = await client.post("/v1/chat/completions", json=poison)
            return await running, failed

        answers, failed = asyncio.run(both())
        for answer, other in zip(answers, undisturbed, strict=True):
            assert answer.same_as(other), (answer, other)
        assert failed.status_code == 500
        error = failed.json()["error"]
        assert error["type"] == "InternalServerError" and "refused" in error["message"]
        assert server.metric("quire:engine_restarts_total") <= 3
        # Asked again, it is refused before it can do harm.
        begun = server.engine_pid()
        second = httpx.post(f"{server.url}/v1/chat/completions", json=poison, timeout=60)
        assert second.status_code == 500 and "refused" in second.json()["error"]["message"]
        assert server.engine_pid() == begun and server.is_ready()


def test_an_engine_that_dies_too_often_is_final() -> None:
    with serving("--engine-restarts", "1") as server:
        server.kill_engine()
        time.sleep(0.5)
        server.wait_ready()
        server.kill_engine()
        assert server.process.wait(20) == 1
        assert "that is enough (--engine-restarts)" in server.log()


@pytest.mark.parametrize("flag", ["--engine-restarts", "--engine-stall-timeout"])
def test_negative_limits_are_refused(flag: str) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "quire", "serve", "--port", "0", flag, "-1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and flag in done.stderr
