"""Admission by time: what is promised, what is refused, and when it may be tried again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
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
    """An engine on a clock of its own: in a step each answer makes a token, and the first prompts some.

    rate    prompt tokens a second. A step takes at most so many of them as are done in 0.2 s.
    decode  (tokens, share): each begun request then makes so many, each at the cost of so many prompt tokens.
    prior   what the engine says of its rate at start.
    """

    def __init__(
        self,
        *,
        rate: float,
        max_wait_s: float = 10.0,
        decode: tuple[int, float] = (0, 0.0),
        prior: float = 0.0,
        max_num_seqs: int = 10**6,
    ) -> None:
        self.now_s = 0.0
        self.rate = rate
        self.admission = Admission(
            max_wait_s,
            step_tokens=self._chunk(),
            max_num_seqs=max_num_seqs,
            tokens_per_s=prior,
            clock=lambda: self.now_s,
        )
        self._max_num_seqs = max_num_seqs
        self.queue: list[tuple[Admitted, float]] = []
        self.waits_s: list[float] = []
        self.sent_s: list[float] = []
        self._decode = decode
        self.decoding: list[tuple[Admitted, int]] = []
        self.stats = EngineStats()
        self._step: tuple[float, int] | None = None  # when it is done, prompt tokens
        self._entered_s: dict[int, float] = {}

    def _chunk(self) -> int:
        return max(16, int(self.rate * 0.2))

    def send(self, num_tokens: int) -> Admitted:
        """One request. Raises OutOfCapacityError."""
        admitted = self.admission.enter(
            [[5] * num_tokens], num_choices=bool(self._decode[0]), max_tokens=self._decode[0]
        )
        self._entered_s[id(admitted)] = self.now_s
        self.sent_s.append(self.now_s)
        self.queue.append((admitted, num_tokens))
        return admitted

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._step is not None or self._begin():
            assert self._step is not None
            if self._step[0] > end_s:
                break
            self._finish(*self._step)
        self.now_s = end_s
        self.admission.watch(self.stats)

    def _begin(self) -> bool:
        """Plans a step; False if there is nothing to do."""
        places, left = self._max_num_seqs - len(self.decoding), self._chunk()
        for _, tokens in self.queue[:places]:
            left -= min(left, int(tokens))
        prompts = self._chunk() - left
        if not prompts and not self.decoding:
            return False
        work = prompts + len(self.decoding) * self._decode[1]
        self._step = (self.now_s + work / self.rate if self.rate else math.inf, prompts)
        return True

    def _finish(self, at_s: float, left: int) -> None:
        self.now_s, self._step = at_s, None
        stats = self.stats
        made = len(self.decoding)
        computed = stats.prompt_tokens_computed + left
        for one, count in self.decoding:
            if count == 1:
                one.close()
        self.decoding = [(one, count - 1) for one, count in self.decoding if count > 1]
        while left > 0:
            admitted, tokens = self.queue.pop(0)
            done = min(left, tokens)
            left -= int(done)
            if done < tokens:
                self.queue.insert(0, (admitted, tokens - done))
            else:
                admitted.take(0, first_output())
                self.waits_s.append(self.now_s - self._entered_s[id(admitted)])
                made += 1
                if self._decode[0]:
                    self.decoding.append((admitted, self._decode[0]))
        self.stats = EngineStats(
            prompt_tokens_computed=computed,
            num_waiting=len(self.queue),
            generation_tokens=stats.generation_tokens + made,
            steps=stats.steps + 1,
        )
        self.admission.watch(self.stats)


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
    engine = Engine(rate=rate, prior=rate)
    refused: list[float] = []
    for _ in range(600):  # one minute of three times what the engine can do
        for _ in range(max(1, round(3 * rate / size / 10))):
            try:
                engine.send(size)
            except OutOfCapacityError as error:
                refused.append(error.retry_after_s)
        engine.run(0.1)
    engine.run(15)
    assert len(refused) > 100 and min(refused) > 0.0
    assert max(engine.waits_s) < 11.0, "more was admitted than promised"
    assert max(engine.waits_s) > 6.0, "the queue was hardly used"
    assert not engine.queue and engine.admission.wait_s() == 0.0


def test_an_engine_that_stands_still_admits_fewer_and_fewer() -> None:
    engine = Engine(rate=0.0, max_num_seqs=256)
    engine.send(500)
    engine.run(2)
    engine.send(500)
    engine.run(6)
    with pytest.raises(OutOfCapacityError, match="first token is expected after") as refused:
        engine.send(500)
    first_s = refused.value.retry_after_s
    engine.run(10)
    with pytest.raises(OutOfCapacityError) as refused:
        engine.send(500)
    assert refused.value.retry_after_s > first_s > 1.0


@pytest.mark.parametrize(
    ("prior", "decode"),
    [(0.0, (0, 0.0)), (1500.0, (0, 0.0)), (1500.0, (100, 5.0)), (900.0, (20, 9.0))],
)
def test_a_cold_burst_of_ten_times_what_it_can_waits_no_longer_than_promised(
    prior: float, decode: tuple[int, float]
) -> None:
    engine = Engine(rate=1500.0, prior=prior, decode=decode)
    for _ in range(600):
        for _ in range(10):
            with contextlib.suppress(OutOfCapacityError):
                engine.send(150)
        engine.run(0.1)
    engine.run(20)
    assert len(engine.waits_s) > 100 and not engine.queue
    late = [wait_s for wait_s in engine.waits_s if wait_s > 11.0]
    if prior:
        assert len(late) <= len(engine.waits_s) // 100
    assert max(engine.waits_s) < 25.0


MANY = 10**6
LOADS = {
    "alike": ([150], (50, 3.0), MANY),
    "prompts only": ([150], (0, 0.0), MANY),
    "long prompts": ([2000], (20, 3.0), MANY),
    "of all sizes": ([20, 50, 100, 400, 1500, 3000], (60, 3.0), MANY),
    "two answers each": ([150, 600], (100, 2.5), MANY),
    "long answers": ([150], (300, 1.0), MANY),
    "long answers of all sizes": ([20, 150, 600], (300, 2.0), MANY),
    "places all taken": ([150], (300, 0.3), 128),
    "places all taken, of all sizes": ([20, 150, 600], (200, 0.5), 64),
}
"""Sizes of prompts, the answers to each (how many tokens, at the cost of how many of a prompt), and places."""


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_refusal_says_when_somebody_will_be_admitted(load: str, noise: float) -> None:
    """Whatever the load, and with an engine that is at times half, at times one and a half as fast."""
    sizes, decode, places = LOADS[load]
    engine = Engine(rate=1500.0, prior=1500.0, decode=decode, max_num_seqs=places)
    rng = random.Random(3)
    cost = sum(sizes) / len(sizes) + decode[0] * decode[1]
    refused: list[tuple[float, float]] = []
    due = 0.0
    for _ in range(900):
        due += 10 * 150.0 / cost  # ten times what it can, every tenth of a second
        while due >= 1:
            due -= 1
            try:
                engine.send(rng.choice(sizes))
            except OutOfCapacityError as error:
                refused.append((engine.now_s, error.retry_after_s))
        engine.rate = 1500.0 * (1 + noise * rng.uniform(-1, 1))
        engine.run(0.1)
    errors = []
    for at_s, told_s in refused:
        truth = [sent_s - at_s for sent_s in engine.sent_s if sent_s > at_s]
        if at_s > 20.0 and told_s >= 1.0 and truth:
            errors.append(abs(told_s - truth[0]) / truth[0])
    assert len(errors) > 300
    assert sorted(errors)[int(len(errors) * 0.95)] < 0.3
    waits_s = sorted(engine.waits_s)
    assert waits_s[int(len(waits_s) * 0.99)] < 10.0 + 3000 / 1500, "of the promise, and alone"


@pytest.mark.parametrize(("rate", "prompt", "seats"), [(20_000.0, 150, 256), (5000.0, 30, 128)])
def test_places_that_are_all_taken_are_waited_for_as_promised(
    rate: float, prompt: int, seats: int
) -> None:
    """Answers of 15 s in all places, ten times as many requests as that allows, prompts that cost nothing."""
    engine = Engine(rate=rate, prior=rate, decode=(150, 0.1), max_num_seqs=seats)
    for _ in range(600):
        for _ in range(seats // 15):
            with contextlib.suppress(OutOfCapacityError):
                engine.send(prompt)
        engine.run(0.1)
    engine.run(30)
    waits_s = sorted(engine.waits_s)
    assert waits_s[int(len(waits_s) * 0.98)] < 10.0, (
        "but for those who come as the last places are taken"
    )
    assert len(waits_s) > 4.5 * seats, "and the places do not stay empty"


@pytest.mark.parametrize("prior", [0.0, 300.0])
def test_a_burst_that_the_promise_has_room_for_is_admitted_at_once(prior: float) -> None:
    engine = Engine(rate=300.0, prior=prior, decode=(100, 1.0))
    for _ in range(10):
        engine.send(100)
    engine.run(10)
    assert len(engine.waits_s) == 10 and max(engine.waits_s) < 10.0


def test_it_opens_when_it_said_so_or_when_there_is_hardly_a_queue() -> None:
    engine = Engine(rate=1000.0, prior=1000.0)
    with pytest.raises(OutOfCapacityError) as refused:
        for _ in range(100):
            engine.send(500)
    told_s = refused.value.retry_after_s
    engine.rate = 0.9 * 1000.0
    engine.run(round(told_s - 0.3, 1))
    with pytest.raises(OutOfCapacityError):
        engine.send(500)
    engine.run(0.4)
    engine.send(500)
    with pytest.raises(OutOfCapacityError):
        for _ in range(100):
            engine.send(500)
    engine.rate = 100_000.0
    engine.run(0.2)
    engine.send(500)


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
    engine = Engine(rate=0.0, max_num_seqs=256)
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
    limited = Engine(rate=0.0, max_num_seqs=256)
    for _ in range(1024):
        limited.send(100)
    with pytest.raises(OutOfCapacityError, match="1024 requests wait"):
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
        assert min(took_s) < 0.2
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


def test_a_restart_is_no_sign_of_a_slow_engine() -> None:
    engine = Engine(rate=1000.0, prior=1000.0)
    for _ in range(3):
        engine.send(200)
    engine.run(0.1)
    before_s = engine.admission.wait_s()
    engine.admission.watch(EngineStats(), is_restarting=True)
    engine.now_s += 30.0
    assert engine.admission.wait_s() == pytest.approx(before_s) and before_s > 0.0
    engine.send(200)
    engine.admission.watch(engine.stats)
    engine.run(1)
    assert not engine.queue
