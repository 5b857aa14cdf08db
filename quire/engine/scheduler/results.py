"""What a token or a row's result means for a sequence: whether it stops, and what the front hears.

The state of the queues and of the cache is `scheduler.scheduler`'s.
"""

from __future__ import annotations

from msgspec.structs import replace

from quire.engine.request import Request, Sequence
from quire.protocol.outputs import REFUSED, FinishReason, SequenceUpdate
from quire.protocol.request import TensorRef
from quire.protocol.step import PositionLogprobs


def stop_of(sequence: Sequence) -> tuple[FinishReason, int | None] | None:
    """How the last known token ends the sequence: (finish_reason, stop_reason), or None.

    End-of-sequence tokens and stop ids end nothing below `min_tokens`: the sampler bans them there.
    """
    token_ids = sequence.token_ids
    num_known = len(token_ids)
    if token_ids[-1] in sequence.stops and num_known >= sequence.min_len:
        return "stop", None if token_ids[-1] in sequence.request.eos else token_ids[-1]
    return ("length", None) if num_known >= sequence.final_len else None


def unsent_logprobs(
    request: Request, start: int, slices: list[PositionLogprobs] | None
) -> list[PositionLogprobs] | None:
    """Of the prompt logprobs at positions from `start` + 1, those the front does not have yet."""
    if not slices or request.logprobs_at > start + len(slices):
        return None
    fresh = slices[request.logprobs_at - start - 1 :]
    request.logprobs_at = start + len(slices) + 1
    return fresh


def late_logprobs(
    sequence: Sequence, slices: list[PositionLogprobs], start: int
) -> list[SequenceUpdate]:
    """Prompt logprobs of a row whose sequence has finished or started over since it was planned.

    If it finished and left forks, these go on behind the prompt and do not compute it again, so the
    first of them brings the news.
    """
    request = sequence.request
    is_left_to_forks = sequence.is_finished and request.is_forked and request.sequences
    if not is_left_to_forks or not start < request.logprobs_at < sequence.num_prompt:
        return []
    fresh = unsent_logprobs(request, start, slices)
    heir = request.sequences[min(request.sequences)]
    return [make_update(heir, [], None, fresh, None)] if fresh else []


def pooled_update(sequence: Sequence, pooled: TensorRef) -> SequenceUpdate:
    """The one news of a pooling request: its result, and its end."""
    return replace(make_update(sequence, [], None, None, ("stop", None)), pooled=pooled)


def make_update(
    sequence: Sequence,
    token_ids: list[int],
    logprobs: list[PositionLogprobs] | None,
    prompt_logprobs: list[PositionLogprobs] | None,
    stop: tuple[FinishReason, int | None] | None,
) -> SequenceUpdate:
    """News of a sequence; the first ones also tell of times and cached tokens."""
    finish_reason, stop_reason = stop if stop is not None else (None, None)
    if sequence.is_announced:
        return SequenceUpdate(
            request_id=sequence.request_id,
            index=sequence.index,
            token_ids=token_ids,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
        )
    sequence.is_announced = True
    request = sequence.request
    return SequenceUpdate(
        request_id=sequence.request_id,
        index=sequence.index,
        token_ids=token_ids,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        finish_reason=finish_reason,
        stop_reason=stop_reason,
        num_cached_tokens=max(sequence.num_cached, 0),
        queued_s=request.queued_s,
        scheduled_s=request.scheduled_s,
    )


def refused(updates: list[SequenceUpdate], is_refused: bool) -> list[SequenceUpdate]:
    """The ends of a request, marked as its own fault if that is so."""
    return [replace(one, stop_reason=REFUSED) for one in updates] if is_refused else updates
