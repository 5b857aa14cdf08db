"""Requests sent to a server at given moments, each with the times of its pieces.

Reading flags is `bench.serve`; what is made of the times is `bench.serve_report`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from quire.bench import wire
from quire.bench.datasets import Sample
from quire.bench.wire import Delta, EventReader, ServerFailedError


@dataclass
class Timed:
    """One request. Times in seconds; `start_s` on the clock of time.perf_counter.

    ttft_s      from sending to the first text; None if there was none.
    itls        gaps between one piece of text and the next.
    output_len  by the server's usage, else the number of pieces.
    error       a sentence if the request failed; its numbers then mean nothing.
    """

    prompt_len: int
    start_s: float = 0.0
    ttft_s: float | None = None
    itls: list[float] = field(default_factory=list)
    latency_s: float = 0.0
    output_len: int = 0
    text: str = ""
    error: str | None = None

    @property
    def tpot_s(self) -> float | None:
        """Seconds per output token after the first; None for fewer than two tokens."""
        if self.ttft_s is None or self.output_len < 2:
            return None
        return (self.latency_s - self.ttft_s) / (self.output_len - 1)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where requests go and what stands in each. `extra` is merged over the body's own fields."""

    url: str
    model: str
    is_chat: bool
    extra: dict[str, Any]
    request_id_prefix: str = ""

    def body(self, sample: Sample) -> dict[str, Any]:
        """The body of a sample, which must have a text."""
        text = sample.text or ""
        if self.is_chat:
            messages = [{"role": "user", "content": text}]
            return wire.chat_body(self.model, messages, sample.output_len) | self.extra
        return wire.completion_body(self.model, text, sample.output_len) | self.extra


async def send(client: httpx.AsyncClient, target: Target, sample: Sample, number: int) -> Timed:
    """Sends one request and reads its stream to the end; a failure is in the result."""
    timed = Timed(prompt_len=len(sample.ids))
    heads = (
        {"X-Request-Id": f"{target.request_id_prefix}{number}"} if target.request_id_prefix else {}
    )
    timed.start_s = time.perf_counter()
    try:
        async with client.stream(
            "POST", target.url, json=target.body(sample), headers=heads
        ) as answer:
            if answer.status_code != 200:
                text = (await answer.aread()).decode("utf-8", "replace")
                raise ServerFailedError(wire.error_text(text, answer.status_code))
            await _read(answer, timed)
    except ServerFailedError as error:
        timed.error = str(error)
    except httpx.HTTPError as error:
        timed.error = f"{type(error).__name__}: {error}"
    timed.latency_s = time.perf_counter() - timed.start_s
    return timed


async def _read(answer: httpx.Response, timed: Timed) -> None:
    """Takes the times of the pieces. Raises ServerFailedError if the stream ends without its mark."""
    reader = EventReader()
    last_s = timed.start_s
    counted = None
    num_pieces = 0
    async for piece in answer.aiter_bytes():
        now_s = time.perf_counter()
        for data in reader.feed(piece):
            delta = Delta(data)
            if delta.is_end:
                timed.output_len = num_pieces if counted is None else counted[1]
                if counted is not None and counted[0]:
                    timed.prompt_len = counted[0]
                return
            counted = delta.usage or counted
            if delta.text or delta.reasoning:
                if timed.ttft_s is None:
                    timed.ttft_s = now_s - timed.start_s
                else:
                    timed.itls.append(now_s - last_s)
                last_s = now_s
                num_pieces += 1
                timed.text += delta.reasoning + delta.text
    raise ServerFailedError("the stream broke off before its end")


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """When requests come. Rates in requests a second; inf is all at once.

    burstiness  shape of the gamma distribution of the gaps: 1 is a Poisson process, below 1 comes in
                bursts, above 1 is more even.
    ramp        how the rate goes from `start_rps` to `end_rps` over the requests; None is constant.
    """

    rate: float = float("inf")
    burstiness: float = 1.0
    ramp: Literal["linear", "exponential"] | None = None
    start_rps: float = 0.0
    end_rps: float = 0.0
    seed: int = 0

    def rate_at(self, share: float) -> float:
        """The rate when `share` (0 to 1) of the requests have come."""
        if self.ramp == "linear":
            return self.start_rps + (self.end_rps - self.start_rps) * share
        if self.ramp == "exponential":
            return float(self.start_rps * (self.end_rps / self.start_rps) ** share)
        return self.rate

    def times(self, count: int) -> list[float]:
        """Seconds after the start at which each request comes, in order."""
        rng = random.Random(self.seed)
        now_s = 0.0
        moments = []
        for place in range(count):
            rate = self.rate_at(place / max(1, count - 1))
            if rate != float("inf"):
                now_s += rng.gammavariate(self.burstiness, 1.0 / (rate * self.burstiness))
            moments.append(now_s)
        return moments


async def run_load(
    client: httpx.AsyncClient,
    target: Target,
    samples: Sequence[Sample],
    times: Sequence[float],
    *,
    max_concurrency: int | None = None,
    on_done: Callable[[], Any] = lambda: None,
) -> tuple[float, list[Timed]]:
    """Seconds from the start to the last answer, and the requests in their order.

    A request that waits for one of `max_concurrency` places is not yet sent, so the wait is in none of
    its times.
    """
    places = asyncio.Semaphore(max_concurrency or max(1, len(samples)))

    async def one(sample: Sample, number: int) -> Timed:
        async with places:
            timed = await send(client, target, sample, number)
        on_done()
        return timed

    start_s = time.perf_counter()
    tasks = []
    async with asyncio.TaskGroup() as group:
        for number, (sample, due_s) in enumerate(zip(samples, times)):
            wait_s = start_s + due_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            tasks.append(group.create_task(one(sample, number)))
    return time.perf_counter() - start_s, [task.result() for task in tasks]
