"""How long a request took, as the block `metrics` of its answer.

The same over all requests is /metrics.
"""

from __future__ import annotations

from typing import Any

from quire.protocol.results import RequestStateStats


def timing_of(stats: RequestStateStats | None) -> dict[str, Any] | None:
    """Milliseconds of one request of one choice, and tokens a second; null what cannot be told."""
    if stats is None:
        return None
    num_tokens = stats.num_generation_tokens
    took_s = stats.last_token_ts - stats.first_token_ts
    has_tokens = num_tokens > 0 and stats.first_token_ts > 0.0
    total_s = stats.last_token_ts - stats.queued_ts
    return {
        "time_to_first_token_ms": _ms(stats.first_token_latency) if has_tokens else None,
        "generation_time_ms": _ms(took_s) if has_tokens else None,
        "queue_time_ms": _ms(stats.scheduled_ts - stats.queued_ts) if stats.scheduled_ts else None,
        "mean_itl_ms": _ms(took_s / (num_tokens - 1)) if has_tokens and num_tokens > 1 else None,
        "tokens_per_second": round(num_tokens / total_s, 3) if has_tokens and total_s > 0 else None,
    }


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000.0, 3)
