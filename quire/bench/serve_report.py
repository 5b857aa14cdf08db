"""What a load test says: the result as JSON and the printed report.

The times come from `bench.load`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.bench.load import Timed
from quire.bench.report import rank_name, summary

METRICS = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
}
"""Key of a metric -> short and long name."""

_WIDTH = 60


def metric_values(done: Sequence[Timed]) -> dict[str, list[float]]:
    """Milliseconds of each metric over the requests that were answered."""
    seconds = {
        "ttft": [one.ttft_s for one in done if one.ttft_s is not None],
        "tpot": [value for one in done if (value := one.tpot_s) is not None],
        "itl": [gap for one in done for gap in one.itls],
        "e2el": [one.latency_s for one in done],
    }
    return {name: [value * 1000.0 for value in values] for name, values in seconds.items()}


def is_good(one: Timed, goals_ms: Mapping[str, float]) -> bool:
    """Whether an answered request meets every goal; a time that it does not have meets any."""
    times = {"ttft": one.ttft_s, "tpot": one.tpot_s, "e2el": one.latency_s}
    return all((times[name] or 0.0) * 1000.0 <= goal for name, goal in goals_ms.items())


def results(
    requests: Sequence[Timed],
    duration_s: float,
    ranks: Sequence[float],
    goals_ms: Mapping[str, float],
) -> dict[str, Any]:
    """The numbers of a load test. Times in ms, throughputs per second of the whole duration."""
    done = [one for one in requests if one.error is None]
    num_input = sum(one.prompt_len for one in done)
    num_output = sum(one.output_len for one in done)
    good = sum(is_good(one, goals_ms) for one in done)
    found: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(done),
        "failed": len(requests) - len(done),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(done) / duration_s,
        "request_goodput": good / duration_s if goals_ms else None,
        "output_throughput": num_output / duration_s,
        "total_token_throughput": (num_input + num_output) / duration_s,
        "max_output_tokens_per_s": peak_tokens_per_s(done),
        "max_concurrent_requests": peak_concurrency(done),
    }
    for name, values in metric_values(done).items():
        for kind, value in summary(values, ranks).items():
            found[f"{kind}_{name}_ms"] = value
    return found


def details(requests: Sequence[Timed]) -> dict[str, Any]:
    """One entry a request, failed ones included; times in seconds."""
    return {
        "input_lens": [one.prompt_len for one in requests],
        "output_lens": [one.output_len for one in requests],
        "ttfts": [one.ttft_s or 0.0 for one in requests],
        "itls": [one.itls for one in requests],
        "start_times": [one.start_s for one in requests],
        "generated_texts": [one.text for one in requests],
        "errors": [one.error or "" for one in requests],
    }


def peak_tokens_per_s(done: Sequence[Timed]) -> float:
    """The most tokens that came within one second, wherever that second begins.

    A request's tokens are spread evenly over its pieces of text.
    """
    arrivals: list[tuple[float, float]] = []
    for one in done:
        if one.ttft_s is None:
            continue
        moment_s = one.start_s + one.ttft_s
        share = one.output_len / (1 + len(one.itls))
        for gap in [0.0, *one.itls]:
            moment_s += gap
            arrivals.append((moment_s, share))
    arrivals.sort()
    inside = peak = 0.0
    first = 0
    for moment_s, share in arrivals:
        inside += share
        while arrivals[first][0] <= moment_s - 1.0:
            inside -= arrivals[first][1]
            first += 1
        peak = max(peak, inside)
    return peak


def peak_concurrency(done: Sequence[Timed]) -> int:
    """The most requests that ran at one moment."""
    changes = [(one.start_s, 1) for one in done]
    changes += [(one.start_s + one.latency_s, -1) for one in done]
    running = peak = 0
    for _, change in sorted(changes):
        running += change
        peak = max(peak, running)
    return peak


def render(found: Mapping[str, Any], metrics: Sequence[str], ranks: Sequence[float]) -> str:
    """The report: totals, then a block for each metric that was asked for."""
    lines = [_title("Serving Benchmark Result", "=")]
    lines.append(_line("Successful requests", found["completed"]))
    lines.append(_line("Failed requests", found["failed"]))
    if found.get("max_concurrency") is not None:
        lines.append(_line("Maximum request concurrency", found["max_concurrency"]))
    if found.get("request_rate") not in (None, "inf"):
        lines.append(_line("Request rate configured (RPS)", found["request_rate"]))
    for label, key in (
        ("Benchmark duration (s)", "duration"),
        ("Total input tokens", "total_input_tokens"),
        ("Total generated tokens", "total_output_tokens"),
        ("Request throughput (req/s)", "request_throughput"),
        ("Request goodput (req/s)", "request_goodput"),
        ("Output token throughput (tok/s)", "output_throughput"),
        ("Peak output token throughput (tok/s)", "max_output_tokens_per_s"),
        ("Peak concurrent requests", "max_concurrent_requests"),
        ("Total token throughput (tok/s)", "total_token_throughput"),
    ):
        if found[key] is not None:
            lines.append(_line(label, found[key]))
    for metric in metrics:
        short, long = METRICS[metric]
        lines.append(_title(long, "-"))
        kinds = [("Mean", "mean"), ("Median", "median")]
        kinds += [(f"P{rank_name(rank)}", f"p{rank_name(rank)}") for rank in ranks]
        lines += [_line(f"{name} {short} (ms)", found[f"{key}_{metric}_ms"]) for name, key in kinds]
    lines.append("=" * _WIDTH)
    return "\n".join(lines)


def _title(text: str, mark: str) -> str:
    return f" {text} ".center(_WIDTH, mark)


def _line(label: str, value: Any) -> str:
    shown = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{label + ':':<44} {shown}"
