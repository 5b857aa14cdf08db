"""The line of what the engine does: its words, its numbers, its times."""

from __future__ import annotations

import logging

import pytest

from quire.metrics.stats_log import StatsLog
from quire.protocol.outputs import EngineStats


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """(level, line) of what was logged; filled while the test runs."""
    caplog.set_level(logging.DEBUG, "quire.metrics.stats_log")
    found: list[tuple[str, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((record.levelname, record.getMessage()))

    logging.getLogger("quire.metrics.stats_log").addHandler(Keep())
    return found


def test_the_line(clock: Clock, lines: list[tuple[str, str]]) -> None:
    log = StatsLog(10.0, clock=clock)
    stats = EngineStats(
        num_running=3, num_waiting=2, cache_usage=0.125, prefix_queries=400, prefix_hits=100,
        prompt_tokens_computed=300, generation_tokens=55, steps=20,
    )  # fmt: skip
    clock.now_s = 9.9
    log.tick(stats, 4)
    assert lines == []
    clock.now_s = 10.0
    log.tick(stats, 4)
    assert lines == [
        (
            "INFO",
            "Engine 000: Avg prompt throughput: 30.0 tokens/s, Avg generation throughput: 5.5 tokens/s, "
            "Running: 3 reqs, Waiting: 2 reqs, GPU KV cache usage: 12.5%, Prefix cache hit rate: 25.0%",
        )
    ]


def test_idle_intervals_are_for_debugging(clock: Clock, lines: list[tuple[str, str]]) -> None:
    log = StatsLog(1.0, clock=clock)
    for stats in (
        EngineStats(),
        EngineStats(generation_tokens=5, steps=5, num_preemptions=2),
        EngineStats(generation_tokens=5, steps=5, num_preemptions=2),
        EngineStats(generation_tokens=5, steps=5, num_preemptions=2),
        EngineStats(generation_tokens=3, steps=3),  # of an engine that was started again
    ):
        clock.now_s += 1.0
        log.tick(stats, 0)
    assert [level for level, _ in lines] == ["DEBUG", "INFO", "INFO", "DEBUG", "INFO"]
    assert ["Preemptions: 2, " in line for _, line in lines] == [False, True, False, False, False]
    assert "Avg generation throughput: 3.0 tokens/s" in lines[-1][1]


def test_the_hit_rate_is_of_the_last_thousand_requests(
    clock: Clock, lines: list[tuple[str, str]]
) -> None:
    log = StatsLog(1.0, clock=clock)
    requests = queries = hits = 0
    for new_requests, new_hits in ((600, 0), (600, 500), (500, 1000), (0, 0)):
        requests, queries, hits = requests + new_requests, queries + 1000, hits + new_hits
        clock.now_s += 1.0
        log.tick(EngineStats(prefix_queries=queries, prefix_hits=hits, steps=requests), requests)
    rates = [line.rpartition(" ")[2] for _, line in lines]
    assert rates == ["0.0%", "25.0%", "75.0%", "50.0%"]


def test_no_interval_no_line(clock: Clock, lines: list[tuple[str, str]]) -> None:
    log = StatsLog(0.0, clock=clock)
    clock.now_s = 1e6
    log.tick(EngineStats(generation_tokens=5, steps=5), 1)
    assert lines == []
