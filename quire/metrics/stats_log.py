"""The line that says every few seconds what an engine does, in the words that operators know from vLLM.

The series for scrapers are `metrics.registry`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from quire.protocol.outputs import EngineStats

logger = logging.getLogger(__name__)

_WINDOW_REQUESTS = 1000
"""Requests over which the hit rate of the prefix cache is taken."""


class StatsLog:
    """Writes the line when its time has come. Use it from one thread.

    interval_s  seconds between two lines; 0 writes none.
    clock       seconds, monotonic.
    """

    def __init__(self, interval_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._since_s = clock()
        self._last = EngineStats()
        self._last_requests = 0
        self._was_busy = False
        self._recent: deque[tuple[int, int, int]] = deque()

    def tick(self, stats: EngineStats, num_requests: int) -> None:
        """Logs if the interval is over: at INFO if tokens moved in it or the one before, else at DEBUG.

        num_requests  how many have got their first token since the start.
        """
        if self._interval_s > 0 and self._clock() - self._since_s >= self._interval_s:
            self.write(stats, num_requests)

    def write(self, stats: EngineStats, num_requests: int) -> None:
        """Logs what was done since the last line, whatever the time."""
        passed_s = max(1e-9, self._clock() - self._since_s)
        if stats.steps < self._last.steps:  # the engine was started again and counts from zero
            self._last = EngineStats()
        line, is_busy = self._line(stats, num_requests, passed_s)
        logger.log(logging.INFO if is_busy or self._was_busy else logging.DEBUG, "%s", line)
        self._was_busy = is_busy
        self._since_s += passed_s
        self._last, self._last_requests = stats, num_requests

    def _line(self, stats: EngineStats, num_requests: int, passed_s: float) -> tuple[str, bool]:
        last = self._last
        prompt = stats.prompt_tokens_computed - last.prompt_tokens_computed
        output = stats.generation_tokens - last.generation_tokens
        preemptions = stats.num_preemptions - last.num_preemptions
        self._recent.append(
            (
                num_requests - self._last_requests,
                stats.prefix_queries - last.prefix_queries,
                stats.prefix_hits - last.prefix_hits,
            )
        )
        parts = [
            f"Avg prompt throughput: {prompt / passed_s:.1f} tokens/s",
            f"Avg generation throughput: {output / passed_s:.1f} tokens/s",
            f"Running: {stats.num_running} reqs",
            f"Waiting: {stats.num_waiting} reqs",
            *([f"Preemptions: {preemptions}"] if preemptions > 0 else []),
            f"GPU KV cache usage: {stats.cache_usage:.1%}",
            f"Prefix cache hit rate: {self._hit_rate():.1%}",
        ]
        return "Engine 000: " + ", ".join(parts), prompt > 0 or output > 0

    def _hit_rate(self) -> float:
        """Hits over queries, 0 to 1, of the intervals that hold the last 1000 requests."""
        while sum(entry[0] for entry in self._recent) - self._recent[0][0] >= _WINDOW_REQUESTS:
            self._recent.popleft()
        while len(self._recent) > 1 and self._recent[0][1] == 0:
            self._recent.popleft()
        queries = sum(entry[1] for entry in self._recent)
        return sum(entry[2] for entry in self._recent) / queries if queries else 0.0
