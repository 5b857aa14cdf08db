"""What the engine tells the front after a step.

What the user gets (`RequestOutput` and friends) is made of it in `frontend.outputs`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quire.protocol.request import TensorRef
from quire.protocol.step import PositionLogprobs

REFUSED = "refused"
"""The stop_reason of an error that what a request asked for led to; HTTP 400."""

FinishReason = Literal["stop", "length", "abort", "error", "repetition"]


class SequenceUpdate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """News of one sequence: tokens since the last update, and how it ended if it did.

    stop_reason        the stop token id that ended it; None for EOS or length; REFUSED where an error is
                       the request's own.
    num_cached_tokens  prompt tokens found in the prefix cache; sent with the first update.
    prompt_logprobs    the slice computed in this step; position 0 of the prompt has none.
    queued_s, scheduled_s  monotonic times of arrival in the queue and of first scheduling.
    pooled             what a pooling request asked for, with its end.
    error              a sentence, with finish_reason "error".
    """

    request_id: str
    index: int = 0
    token_ids: list[int] = []
    logprobs: list[PositionLogprobs] | None = None
    prompt_logprobs: list[PositionLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int | None = None
    queued_s: float | None = None
    scheduled_s: float | None = None
    pooled: TensorRef | None = None
    error: str | None = None


class EngineStats(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Counters since start and gauges of now; tokens unless said.

    restarts  engine processes that were started after the first; the front's own count.
    """

    num_running: int = 0
    num_waiting: int = 0
    cache_usage: float = 0.0
    blocks_in_use: int = 0
    num_preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    prompt_tokens_computed: int = 0
    generation_tokens: int = 0
    steps: int = 0
    step_tokens: int = 0
    step_s: float = 0.0
    restarts: int = 0


class EngineOutputs(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All news of one step; `at_s` is the engine's monotonic clock."""

    updates: list[SequenceUpdate]
    stats: EngineStats
    at_s: float


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a started engine says of itself.

    num_blocks   blocks of the first cache group; capacity_tokens is what the whole cache holds at most.
    fingerprint  names everything that fixes the bits of an answer; equal fingerprints give equal answers.
    table        (setting, value, reason) lines as printed at start.
    providers    (operation, signature, provider, refusals) lines: the choices made for this model.
    tokens_per_s  prompt tokens a second, as measured once before it served; 0 if that was not done.
    ledger       (line, bytes, note) lines of the memory that may be taken, with the total and what is free.
    """

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    num_blocks: int
    capacity_tokens: int
    cache_bytes: int
    vocab_size: int
    dtype: str
    fingerprint: str
    enable_prefix_caching: bool
    tokens_per_s: float = 0.0
    table: list[tuple[str, str, str]] = []
    providers: list[tuple[str, str, str, str]] = []
    ledger: list[tuple[str, int, str]] = []
