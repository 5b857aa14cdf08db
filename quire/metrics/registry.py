"""Every metric by name, in one list, and the registry that holds one server's.

When a metric moves is `metrics.engine_stats`; `/metrics` itself is a route of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from quire.metrics.series import CounterSeries, HistogramSeries

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CHOICES = (1, 2, 5, 10, 20)
FINE_HTTP_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5,
    10.0, 30.0, 60.0,
)  # fmt: skip
HTTP_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
UP_TO_CONTEXT = ()
"""Stands for 1, 2, 5, 10, 20, 50 … up to the model's context."""

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


@dataclass(frozen=True)
class Metric:
    """One name: its kind, its help line, its buckets, and labels beside model_name and engine.

    values  the label values that exist from the start; every other metric starts with its one child.
    plain   without model_name and engine.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    help: str
    buckets: tuple[float, ...] | None = None
    label: str | None = None
    values: tuple[str, ...] = ()
    plain: tuple[str, ...] | None = None


METRICS: tuple[Metric, ...] = (
    Metric("vllm:num_requests_running", "gauge", "requests in the running batch"),
    Metric("vllm:num_requests_waiting", "gauge", "requests not yet scheduled"),
    Metric(
        "vllm:num_requests_waiting_by_reason", "gauge", "requests not yet scheduled, by what they wait for",
        label="reason", values=("capacity", "deferred"),
    ),
    Metric("vllm:kv_cache_usage_perc", "gauge", "share of the cache's blocks in use, 0 to 1"),
    Metric("vllm:num_preemptions", "counter", "requests put back to the queue for lack of blocks"),
    Metric("vllm:prompt_tokens", "counter", "prompt tokens of requests with a first token"),
    Metric(
        "vllm:prompt_tokens_by_source", "counter", "prompt tokens by where their cache came from",
        label="source", values=("local_compute", "local_cache_hit", "external_kv_transfer"),
    ),
    Metric("vllm:prompt_tokens_cached", "counter", "prompt tokens whose cache was found"),
    Metric("vllm:generation_tokens", "counter", "output tokens"),
    Metric("vllm:prefix_cache_queries", "counter", "prompt tokens looked up in the prefix cache"),
    Metric("vllm:prefix_cache_hits", "counter", "prompt tokens found in the prefix cache"),
    Metric(
        "vllm:request_success", "counter", "finished sequences",
        label="finished_reason", values=FINISH_REASONS,
    ),
    Metric("vllm:time_to_first_token_seconds", "histogram", "arrival to first token", FIRST_TOKEN_S),
    Metric("vllm:inter_token_latency_seconds", "histogram", "gap between two tokens", TOKEN_S),
    Metric(
        "vllm:request_time_per_output_token_seconds", "histogram",
        "decode time of a request over its tokens but one", TOKEN_S,
    ),
    Metric("vllm:e2e_request_latency_seconds", "histogram", "arrival to finish", REQUEST_S),
    Metric("vllm:request_queue_time_seconds", "histogram", "queued to first scheduled", REQUEST_S),
    Metric("vllm:request_prefill_time_seconds", "histogram", "scheduled to first token", REQUEST_S),
    Metric("vllm:request_decode_time_seconds", "histogram", "first to last token", REQUEST_S),
    Metric("vllm:request_inference_time_seconds", "histogram", "scheduled to last token", REQUEST_S),
    Metric("vllm:request_prompt_tokens", "histogram", "prompt tokens of a request", UP_TO_CONTEXT),
    Metric("vllm:request_generation_tokens", "histogram", "output tokens of a sequence", UP_TO_CONTEXT),
    Metric(
        "vllm:request_max_num_generation_tokens", "histogram",
        "longest output of a request's sequences", UP_TO_CONTEXT,
    ),
    Metric("vllm:request_params_max_tokens", "histogram", "max_tokens as asked", UP_TO_CONTEXT),
    Metric("vllm:request_params_n", "histogram", "n as asked", CHOICES),
    Metric(
        "vllm:request_prefill_kv_computed_tokens", "histogram",
        "prompt tokens of a request that were not cached", UP_TO_CONTEXT,
    ),
    Metric("vllm:iteration_tokens_total", "histogram", "tokens computed by a step", STEP_TOKENS),
    Metric("quire:engine_restarts", "counter", "engine processes started in place of dead ones"),
    Metric("quire:requests_accepted", "counter", "requests handed to the engine"),
    Metric("quire:requests_refused", "counter", "requests answered 429: the queue was too long"),
    Metric("quire:requests_finished", "counter", "accepted requests that ended by themselves"),
    Metric("quire:requests_aborted", "counter", "accepted requests whose client went away"),
    Metric("quire:requests_failed", "counter", "accepted requests that ended with an error"),
    Metric(
        "http_requests", "counter", "answers by route", plain=("handler", "method", "status")
    ),
    Metric("http_request_size_bytes", "summary", "length of request bodies", plain=("handler",)),
    Metric("http_response_size_bytes", "summary", "length of response bodies", plain=("handler",)),
    Metric(
        "http_request_duration_highr_seconds", "histogram", "time to the end of any answer",
        FINE_HTTP_S, plain=(),
    ),
    Metric(
        "http_request_duration_seconds", "histogram", "time to the end of an answer", HTTP_S,
        plain=("handler", "method"),
    ),
)  # fmt: skip
"""All names. Counters are shown with `_total` behind them."""


def one_two_five(limit: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50 … up to and not above the limit, and at least 1."""
    found: list[float] = []
    scale = 1
    while scale <= limit:
        found += [step * scale for step in (1, 2, 5) if step * scale <= limit]
        scale *= 10
    return tuple(found) or (1.0,)


@dataclass(frozen=True)
class HttpAnswer:
    """One answer of the server: its route, method, status, time to its end, and lengths of the bodies."""

    handler: str
    method: str
    status: int
    seconds: float
    request_bytes: int
    response_bytes: int


class Metrics:
    """The metrics of one server process, each child made at once so that an idle scrape lists all.

    model_name     value of the label model_name: the first served name.
    max_model_len  upper bound of the token buckets.
    """

    def __init__(self, model_name: str, *, max_model_len: int = 131072) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._labels = {"model_name": model_name, "engine": "0"}
        self._parents: dict[str, Counter | Histogram | Summary] = {}
        self._counters: dict[str, CounterSeries] = {}
        self._histograms: dict[str, HistogramSeries] = {}
        self._gauges: dict[tuple[str, str], Gauge] = {}
        tokens = one_two_five(max_model_len)
        for metric in METRICS:
            self._make(metric, tokens)

    def _make(self, metric: Metric, token_buckets: tuple[float, ...]) -> None:
        name, text, values = metric.name, metric.help, metric.values or ("",)
        if metric.plain is not None:
            self._parents[name] = self._of_http(metric)
        elif metric.kind == "counter":
            counter = CounterSeries(name, text, self._labels, metric.label or "", values)
            self.registry.register(counter)
            self._counters[name] = counter
        elif metric.kind == "histogram":
            bounds = metric.buckets or token_buckets
            histogram = HistogramSeries(name, text, self._labels, bounds)
            self.registry.register(histogram)
            self._histograms[name] = histogram
        else:
            labels = [*self._labels, *([metric.label] if metric.label else [])]
            gauge = Gauge(name, text, labels, registry=self.registry)
            for value in values:
                extra = {metric.label: value} if metric.label else {}
                self._gauges[name, value] = gauge.labels(**self._labels, **extra)

    def _of_http(self, metric: Metric) -> Counter | Histogram | Summary:
        name, text, labels = metric.name, metric.help, list(metric.plain or ())
        if metric.kind == "histogram":
            bounds = metric.buckets or ()
            return Histogram(name, text, labels, buckets=bounds, registry=self.registry)
        make = Counter if metric.kind == "counter" else Summary
        return make(name, text, labels, registry=self.registry)

    def count(self, name: str, amount: float = 1.0, value: str = "") -> None:
        """Adds to a counter; `value` is its label's."""
        self._counters[name].add(amount, value)

    def set(self, name: str, amount: float, value: str = "") -> None:
        """Sets a gauge; `value` is its label's."""
        self._gauges[name, value].set(amount)

    def observe(self, name: str, amount: float, times: int = 1) -> None:
        """Puts a value into a histogram, `times` times."""
        self._histograms[name].observe(amount, times)

    def http(self, answer: HttpAnswer) -> None:
        """Counts one answer of the server; the status in its class form, 2xx."""
        handler, method = answer.handler, answer.method
        requests = self._parents["http_requests"]
        assert isinstance(requests, Counter)
        requests.labels(handler=handler, method=method, status=f"{answer.status // 100}xx").inc()
        for name, labels, amount in (
            (
                "http_request_duration_seconds",
                {"handler": handler, "method": method},
                answer.seconds,
            ),
            ("http_request_duration_highr_seconds", {}, answer.seconds),
            ("http_request_size_bytes", {"handler": handler}, answer.request_bytes),
            ("http_response_size_bytes", {"handler": handler}, answer.response_bytes),
        ):
            parent = self._parents[name]
            assert isinstance(parent, (Histogram, Summary))
            (parent.labels(**labels) if labels else parent).observe(amount)

    def info(self, name: str, help: str, labels: Mapping[str, str]) -> None:
        """A gauge that is 1 and says things in its labels."""
        Gauge(name, help, list(labels), registry=self.registry).labels(**labels).set(1)

    def exposition(self) -> bytes:
        """All series in the Prometheus text format 0.0.4."""
        return generate_latest(self.registry)
