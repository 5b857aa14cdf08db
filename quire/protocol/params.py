"""What a user may ask of one request; the checks are part of making one.

The fields are those of vLLM's `SamplingParams` and `PoolingParams`.
"""

from __future__ import annotations

import msgspec


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True, tag="sampling"):
    """PLACEHOLDER, being written."""

    n: int = 1
    temperature: float = 1.0
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_reading_prefix_cache: bool | None = None


class PoolingParams(msgspec.Struct, kw_only=True, omit_defaults=True, tag="pooling"):
    """PLACEHOLDER, being written."""

    task: str | None = None
