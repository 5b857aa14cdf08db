"""What moves the metrics: the engine's counters, and each request's outputs as they come.

The names are `metrics.registry`.
"""

from __future__ import annotations

import time

from quire.metrics.registry import FINISH_REASONS, Metrics
from quire.protocol.outputs import EngineStats
from quire.protocol.results import RequestOutput

_COUNTERS = (
    ("vllm:num_preemptions", "num_preemptions"),
    ("vllm:prefix_cache_queries", "prefix_queries"),
    ("vllm:prefix_cache_hits", "prefix_hits"),
    ("quire:engine_restarts", "restarts"),
)


class ServingMetrics:
    """Turns engine stats and request outputs into series. Use it from one thread.

    enabled  False keeps every series of the engine at zero.
    """

    def __init__(self, metrics: Metrics, *, enabled: bool = True) -> None:
        self.metrics = metrics
        self.enabled = enabled
        self._last = EngineStats()

    def take_stats(self, stats: EngineStats) -> None:
        """Takes the engine's counters since start; the same stats twice count once.

        An engine that was started again counts from zero, which is noticed by a falling counter.
        """
        if not self.enabled or stats is self._last:
            return
        last = self._last if stats.steps >= self._last.steps else EngineStats()
        for name, field in _COUNTERS:
            self.metrics.count(name, max(0, getattr(stats, field) - getattr(last, field)))
        steps = stats.steps - last.steps
        if steps > 0:
            mean = (stats.step_tokens - last.step_tokens) / steps
            self.metrics.observe("vllm:iteration_tokens_total", mean, steps)
        self.metrics.set("vllm:num_requests_running", stats.num_running)
        self.metrics.set("vllm:num_requests_waiting", stats.num_waiting)
        self.metrics.set("vllm:num_requests_waiting_by_reason", stats.num_waiting, "capacity")
        self.metrics.set("vllm:kv_cache_usage_perc", stats.cache_usage)
        self._last = stats

    def watch(self, *, n: int, max_tokens: int | None) -> RequestWatch:
        """Follows one request from before it is handed to the engine to its end."""
        return RequestWatch(self.metrics if self.enabled else None, n=n, max_tokens=max_tokens)


class RequestWatch:
    """Follows one request through its DELTA outputs; exactly one of the three ends counts.

    Call `take` for each output, then `close`: a request that is closed before its last output was
    aborted, or failed if `close` is told so.
    """

    def __init__(self, metrics: Metrics | None, *, n: int, max_tokens: int | None) -> None:
        self._metrics = metrics
        self._n = n
        self._max_tokens = max_tokens
        self._arrival_s = time.time()
        self._accepted = False
        self._started = False
        self._ended = False
        self._tokens: dict[int, int] = {}
        self._last_s: dict[int, float] = {}
        self._first_s: dict[int, float] = {}
        self._open: set[int] = set(range(n))

    def take(self, output: RequestOutput) -> None:
        """Works one output in; its choices hold only what is new."""
        metrics = self._metrics
        if metrics is None or self._ended:
            return
        self._accept(metrics)
        stats = output.metrics
        if not self._started and any(choice.token_ids for choice in output.outputs):
            self._started = True
            prompt = len(output.prompt_token_ids or ())
            cached = min(prompt, output.num_cached_tokens or 0)
            metrics.count("vllm:prompt_tokens", prompt)
            metrics.count("vllm:prompt_tokens_cached", cached)
            metrics.count("vllm:prompt_tokens_by_source", cached, "local_cache_hit")
            metrics.count("vllm:prompt_tokens_by_source", prompt - cached, "local_compute")
            if stats is not None:
                metrics.observe("vllm:time_to_first_token_seconds", stats.first_token_latency)
        known = stats is not None and stats.last_token_ts > 0.0
        last_s = stats.last_token_ts if stats is not None and known else time.monotonic()
        first_s = stats.first_token_ts if stats is not None and known else last_s
        for choice in output.outputs:
            self._take_tokens(metrics, choice.index, len(choice.token_ids), first_s, last_s)
            if choice.finish_reason is not None and choice.index in self._open:
                self._end_choice(metrics, choice.index, choice.finish_reason)
        if output.finished:
            failed = any(choice.finish_reason == "error" for choice in output.outputs)
            aborted = any(choice.finish_reason == "abort" for choice in output.outputs)
            self._observe_whole(metrics, output)
            self._end(metrics, "failed" if failed else "aborted" if aborted else "finished")

    def take_pooled(self, num_prompt_tokens: int, num_cached_tokens: int) -> None:
        """The one output of a request that pools."""
        metrics = self._metrics
        if metrics is None or self._ended:
            return
        self._accept(metrics)
        cached = min(num_prompt_tokens, num_cached_tokens)
        metrics.count("vllm:prompt_tokens", num_prompt_tokens)
        metrics.count("vllm:prompt_tokens_cached", cached)
        metrics.count("vllm:prompt_tokens_by_source", cached, "local_cache_hit")
        metrics.count("vllm:prompt_tokens_by_source", num_prompt_tokens - cached, "local_compute")
        metrics.count("vllm:request_success", value="stop")
        metrics.observe("vllm:request_prompt_tokens", num_prompt_tokens)
        metrics.observe("vllm:e2e_request_latency_seconds", max(0.0, time.time() - self._arrival_s))
        self._end(metrics, "finished")

    def _take_tokens(
        self, metrics: Metrics, index: int, count: int, first_s: float, last_s: float
    ) -> None:
        """Tokens of one choice, of which the last came at `last_s`, and the request's first at `first_s`."""
        if not count:
            return
        metrics.count("vllm:generation_tokens", count)
        self._tokens[index] = self._tokens.get(index, 0) + count
        gaps = count
        if index not in self._first_s:
            self._first_s[index] = self._last_s[index] = first_s
            gaps -= 1
        if gaps:
            gap = max(0.0, last_s - self._last_s[index]) / gaps
            metrics.observe("vllm:inter_token_latency_seconds", gap, gaps)
        self._last_s[index] = last_s

    def _end_choice(self, metrics: Metrics, index: int, reason: str) -> None:
        self._open.discard(index)
        known = reason if reason in FINISH_REASONS else "error"
        metrics.count("vllm:request_success", value=known)
        count = self._tokens.get(index, 0)
        metrics.observe("vllm:request_generation_tokens", count)
        decode_s = self._last_s.get(index, 0.0) - self._first_s.get(index, 0.0)
        metrics.observe(
            "vllm:request_time_per_output_token_seconds",
            decode_s / (count - 1) if count > 1 else 0.0,
        )

    def _observe_whole(self, metrics: Metrics, output: RequestOutput) -> None:
        prompt = len(output.prompt_token_ids or ())
        metrics.observe("vllm:request_prompt_tokens", prompt)
        metrics.observe(
            "vllm:request_prefill_kv_computed_tokens", prompt - (output.num_cached_tokens or 0)
        )
        metrics.observe("vllm:request_params_n", self._n)
        if self._max_tokens is not None:
            metrics.observe("vllm:request_params_max_tokens", self._max_tokens)
        metrics.observe(
            "vllm:request_max_num_generation_tokens", max(self._tokens.values(), default=0)
        )
        metrics.observe("vllm:e2e_request_latency_seconds", max(0.0, time.time() - self._arrival_s))
        stats = output.metrics
        if stats is None or not stats.first_token_ts:
            return
        for name, first, last in (
            ("vllm:request_queue_time_seconds", stats.queued_ts, stats.scheduled_ts),
            ("vllm:request_prefill_time_seconds", stats.scheduled_ts, stats.first_token_ts),
            ("vllm:request_decode_time_seconds", stats.first_token_ts, stats.last_token_ts),
            ("vllm:request_inference_time_seconds", stats.scheduled_ts, stats.last_token_ts),
        ):
            metrics.observe(name, max(0.0, last - first))

    def close(self, *, failed: bool = False, refused: bool = False) -> None:
        """Ends the account; does nothing if the last output has come.

        failed   it ended with an error. refused: with one that is the client's fault, which is a failure too
                 if outputs had come, and no request at all if none had.
        """
        metrics = self._metrics
        if metrics is None or self._ended or (refused and not self._accepted):
            return
        failed = failed or refused
        self._accept(metrics)
        for index in sorted(self._open):
            self._end_choice(metrics, index, "error" if failed else "abort")
        self._end(metrics, "failed" if failed else "aborted")

    def _accept(self, metrics: Metrics) -> None:
        if not self._accepted:
            self._accepted = True
            metrics.count("quire:requests_accepted")

    def _end(self, metrics: Metrics, how: str) -> None:
        self._ended = True
        metrics.count(f"quire:requests_{how}")
