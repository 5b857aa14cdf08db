"""Stat loggers of the operator's own: what they must offer, and what they are told after each step.

The interface is that of vLLM; the numbers are those of `protocol.outputs.EngineStats`.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from quire.config.plugins import STAT_LOGGERS, PluginConfig, load_entry_points
from quire.config.schema import Settings
from quire.protocol.outputs import EngineStats

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrefixCacheStats:
    """Prompt tokens looked up and found in the prefix cache since the last record."""

    queries: int = 0
    hits: int = 0


@dataclass(frozen=True)
class SchedulerStats:
    """The engine at this moment; `kv_cache_usage` is a share of 1."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    step_counter: int = 0
    kv_cache_usage: float = 0.0
    prefix_cache_stats: PrefixCacheStats = field(default_factory=PrefixCacheStats)


@dataclass(frozen=True)
class IterationStats:
    """What was done since the last record, in tokens; `iteration_timestamp` in Unix seconds."""

    iteration_timestamp: float = 0.0
    num_generation_tokens: int = 0
    num_prompt_tokens: int = 0
    num_preempted_reqs: int = 0


class StatLoggerBase(ABC):
    """Called from one thread, between steps: it must be quick."""

    @abstractmethod
    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        """vllm_config is a `config.plugins.PluginConfig`; there is one engine, of index 0."""

    @abstractmethod
    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Called after each step; `mm_cache_stats` is always None."""

    @abstractmethod
    def log_engine_initialized(self) -> None:
        """Called once, before anything is recorded."""

    def log(self) -> None:
        """Called every few seconds, as `log_stats_interval` says."""
        return None

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Called when the engine falls asleep or wakes up; it never sleeps here."""
        return None


MakeLogger = Callable[[Any, int], StatLoggerBase]
"""A class or function that is given the settings and the engine's index."""


class StatLoggers:
    """The loggers of one engine, those of entry points first. One that raises is named in the log and not
    called again."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = PluginConfig.of(settings)
        self._interval_s = settings.observability.log_stats_interval
        self._clock = clock
        self._logged_at_s = clock()
        self._last = EngineStats()
        self._loggers: list[StatLoggerBase] = []
        self.add([maker for _, maker in load_entry_points(STAT_LOGGERS)])

    def add(self, makers: Sequence[MakeLogger]) -> None:
        """Makes more loggers; what a maker raises goes to the caller."""
        for make in makers:
            one = make(self._config, 0)
            one.log_engine_initialized()
            self._loggers.append(one)

    def take(self, stats: EngineStats) -> None:
        """Records a step; and logs when the time has come."""
        if not self._loggers:
            return
        last = self._last if stats.steps >= self._last.steps else EngineStats()
        now = _now(stats, last)
        done = IterationStats(
            iteration_timestamp=time.time(),
            num_generation_tokens=stats.generation_tokens - last.generation_tokens,
            num_prompt_tokens=stats.prompt_tokens_computed - last.prompt_tokens_computed,
            num_preempted_reqs=stats.num_preemptions - last.num_preemptions,
        )
        self._last = stats
        self._each(lambda one: one.record(now, done, None, 0))
        if self._interval_s > 0 and self._clock() - self._logged_at_s >= self._interval_s:
            self.log()

    def log(self) -> None:
        """Asks every logger for its line."""
        self._logged_at_s = self._clock()
        self._each(lambda one: one.log())

    def _each(self, call: Callable[[StatLoggerBase], None]) -> None:
        for one in list(self._loggers):
            try:
                call(one)
            except Exception:
                logger.exception("the stat logger %s is not called again", type(one).__name__)
                self._loggers.remove(one)


def _now(stats: EngineStats, last: EngineStats) -> SchedulerStats:
    return SchedulerStats(
        num_running_reqs=stats.num_running,
        num_waiting_reqs=stats.num_waiting,
        step_counter=stats.steps,
        kv_cache_usage=stats.cache_usage,
        prefix_cache_stats=PrefixCacheStats(
            queries=stats.prefix_queries - last.prefix_queries,
            hits=stats.prefix_hits - last.prefix_hits,
        ),
    )
