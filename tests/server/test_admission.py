"""Admission by time: what is promised, what is refused, and when it may be tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from quire.protocol.errors import OutOfCapacityError
from quire.protocol.outputs import EngineStats
from quire.protocol.results import CompletionOutput, RequestOutput
from quire.server.admission import Admission, Admitted
from tests.server.scripted import Scripted

Serve = Callable[..., Any]


class Engine:
    """An engine that takes `rate` prompt tokens a second, first come, first served, on a clock of its own."""

    def __init__(self, *, rate: float, max_wait_s: float = 10.0, step_tokens: int = 100) -> None:
        self.now_s = 0.0
        self.rate = rate
        self.computed = 0.0
        self.admission = Admission(max_wait_s, step_tokens=step_tokens, clock=lambda: self.now_s)
        self.queue: list[tuple[Admitted, float]] = []
        self.waits_s: list[float] = []
        self._entered_s: dict[int, float] = {}

    def send(self, num_tokens: int) -> Admitted:
        """One request. Raises OutOfCapacityError."""
        admitted = self.admission.enter([[5] * num_tokens])
        self._entered_s[id(admitted)] = self.now_s
        self.queue.append((admitted, num_tokens))
        return admitted

    def run(self, seconds: float, step_s: float = 0.1) -> None:
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            left = self.rate * step_s
            while self.queue and left > 0:
                admitted, tokens = self.queue.pop(0)
                done = min(left, tokens)
                left -= done
                self.computed += done
                if done < tokens:
                    self.queue.insert(0, (admitted, tokens - done))
                else:
                    admitted.take(0, first_output())
                    self.waits_s.append(self.now_s - self._entered_s[id(admitted)])
            stats = EngineStats(
                prompt_tokens_computed=int(self.computed), num_waiting=len(self.queue)
            )
            self.admission.watch(stats)


def first_output(tokens: list[int] | None = None) -> RequestOutput:
    choice = CompletionOutput(0, "", [7] if tokens is None else tokens)
    return RequestOutput("a", None, [5] * 8, None, [choice], False)


def test_without_a_queue_everything_is_admitted() -> None:
    engine = Engine(rate=1000)
    for _ in range(50):
        engine.send(100)
        engine.run(0.2)
    assert engine.admission.wait_s() == 0.0 and len(engine.waits_s) == 50


@pytest.mark.parametrize(
    ("rate", "size"), [(1000.0, 50), (1000.0, 900), (40.0, 20), (20_000.0, 300)]
)
def test_under_overload_those_admitted_wait_as_long_as_promised(rate: float, size: int) -> None:
    engine = Engine(rate=rate)
    refused: list[float] = []
    for _ in range(600):  # one minute of three times what the engine can do
        for _ in range(max(1, round(3 * rate / size / 10))):
            try:
                engine.send(size)
            except OutOfCapacityError as error:
                refused.append(error.retry_after_s)
        engine.run(0.1)
    engine.run(15)
    assert len(refused) > 100 and min(refused) >= 1.0
    settled = engine.waits_s[len(engine.waits_s) // 3 :]
    assert max(settled) < 14.0, "more was admitted than promised"
    assert max(settled) > 6.0, "the queue was hardly used"
    assert not engine.queue and engine.admission.wait_s() == 0.0


def test_an_engine_that_stands_still_admits_fewer_and_fewer() -> None:
    engine = Engine(rate=0.0)
    engine.send(500)
    engine.run(5)
    engine.send(500)
    engine.run(6)
    with pytest.raises(OutOfCapacityError, match="first token is expected after 17 s") as refused:
        engine.send(500)
    assert refused.value.retry_after_s == pytest.approx(7, abs=1)


def test_a_long_prompt_alone_is_admitted_and_counts_for_the_next() -> None:
    engine = Engine(rate=100.0)
    engine.send(5000)
    engine.run(2)
    with pytest.raises(OutOfCapacityError):
        for _ in range(100):
            engine.send(100)
    engine.run(60)
    engine.send(5000)


def test_those_who_leave_make_room() -> None:
    engine = Engine(rate=0.0)
    admitted = [engine.send(200) for _ in range(5)]
    engine.run(11)
    with pytest.raises(OutOfCapacityError):
        engine.send(1)
    for one in admitted:
        one.close()
        one.close()
    assert engine.admission.num_waiting == 0 and engine.admission.wait_s() == 0.0
    engine.send(1)


def test_no_limit_and_no_rate_yet() -> None:
    unlimited = Engine(rate=0.0, max_wait_s=0.0)
    for _ in range(5000):
        unlimited.send(100)
    unlimited.run(30)
    unlimited.send(100)
    limited = Engine(rate=0.0)
    for _ in range(4096):
        limited.send(100)
    with pytest.raises(OutOfCapacityError, match="4096 requests wait"):
        limited.send(100)


def test_texts_are_measured_by_the_texts_before() -> None:
    admission = Admission(10.0, step_tokens=10)
    assert admission.size_of("x" * 400) == pytest.approx(101)
    for _ in range(100):
        admitted = admission.enter(["x" * 8])
        admitted.take(0, first_output(tokens=[]))
        assert admission.num_waiting == 1
        admitted.take(0, first_output())
        assert admission.num_waiting == 0
    assert admission.size_of("x" * 400) == pytest.approx(1 + 400 * 900 / 1200)
    assert admission.num_started == 100


def test_a_full_queue_is_429_at_once_and_never_reaches_the_engine(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        now_s = 0.0
        server.state.admission = Admission(3.0, step_tokens=64, clock=lambda: now_s)
        server.client.gate.clear()
        body = {"prompt": [50] * 40, "max_tokens": 2}
        waiting = [asyncio.create_task(server.post(body)) for _ in range(8)]
        while server.state.admission.num_waiting < 8:
            await asyncio.sleep(0.01)
        now_s = 8.0
        took_s = []
        for stream in (False, True) * 5:
            began_s = time.perf_counter()
            answer = await server.post({**body, "stream": stream})
            took_s.append(time.perf_counter() - began_s)
            assert answer.status_code == 429
            assert answer.json()["error"]["type"] == "RateLimitError"
            assert "64 s" in answer.json()["error"]["message"]
            assert answer.headers["retry-after"] == "60"
        assert min(took_s) < 0.02
        assert len(server.client.live) == 8
        assert server.series("quire:requests_refused_total") == 10
        assert server.series("quire:requests_accepted_total") == 0
        server.client.gate.set()
        server.client._work.put("")
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
        assert server.state.admission.num_waiting == 0
        assert (await server.post(body)).status_code == 200

    serve(test)


def test_a_client_that_leaves_is_not_counted_any_more(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        task = asyncio.create_task(server.post({"prompt": [[50], [51], [52]], "max_tokens": 2}))
        while server.state.admission.num_waiting < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while server.state.admission.num_waiting:
            await asyncio.sleep(0.01)
        server.client.gate.set()
        assert (await server.post({"prompt": [600]})).status_code == 400
        assert server.state.admission.num_waiting == 0

    serve(test)
