"""What the user gets back: one `RequestOutput` for a request, one `CompletionOutput` for each choice.

Making them out of the engine's messages is `frontend.outputs`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from quire.protocol.errors import InvalidRequestError, RequestFailedError
from quire.protocol.outputs import REFUSED

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Logprob:
    """One token's log-probability (natural log) at one position.

    rank           its place in the whole vocabulary, from 1.
    decoded_token  the text it stands for here; "" while a character is still incomplete.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


PositionDict = dict[int, Logprob]
SampleLogprobs = list[PositionDict]
PromptLogprobs = list[PositionDict | None]


@dataclass(slots=True)
class RequestStateStats:
    """Times of one request.

    arrival_time in Unix seconds; the `_ts` fields in seconds of the engine's monotonic clock, 0.0
    while unknown; first_token_latency in seconds from arrival.
    """

    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0
    num_generation_tokens: int = 0
    is_corrupted: bool = False

    def copy(self) -> RequestStateStats:
        """The same numbers, as they are now."""
        return RequestStateStats(
            self.arrival_time,
            self.queued_ts,
            self.scheduled_ts,
            self.first_token_ts,
            self.last_token_ts,
            self.first_token_latency,
            self.num_generation_tokens,
            self.is_corrupted,
        )


@dataclass(slots=True)
class CompletionOutput:
    """One choice; in a DELTA output, only what is new since the last one.

    token_ids           with the token that ended it; the text is without a stop string or stop
                        token unless that was asked for.
    cumulative_logprob  sum over the choice's tokens so far; None if no logprobs were asked for.
    finish_reason       None while it runs, else stop, length, abort, error or repetition.
    stop_reason         the stop string or stop token id that matched; None for EOS.
    seed                the seed it was drawn with: the same request with this seed gives it again.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: SampleLogprobs | None = None
    routed_experts: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None
    seed: int | None = None

    def finished(self) -> bool:
        """Whether the choice has ended."""
        return self.finish_reason is not None


@dataclass(slots=True, init=False)
class RequestOutput:
    """The answer to one request, so far or whole; `outputs` holds its choices by index.

    prompt_logprobs    one entry a prompt token, the first is None.
    num_cached_tokens  prompt tokens found in the prefix cache.
    error              a sentence, where the finish reason of a choice is "error".
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int] | None
    prompt_logprobs: PromptLogprobs | None
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestStateStats | None
    lora_request: Any
    encoder_prompt: str | None
    encoder_prompt_token_ids: list[int] | None
    num_cached_tokens: int | None
    num_cache_creation_tokens: int | None
    kv_transfer_params: dict[str, Any] | None
    ec_transfer_params: dict[str, Any] | None
    error: str | None = field(default=None)

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: PromptLogprobs | None,
        outputs: list[CompletionOutput],
        finished: bool,
        metrics: RequestStateStats | None = None,
        lora_request: Any = None,
        encoder_prompt: str | None = None,
        encoder_prompt_token_ids: list[int] | None = None,
        num_cached_tokens: int | None = None,
        *,
        num_cache_creation_tokens: int | None = None,
        kv_transfer_params: dict[str, Any] | None = None,
        ec_transfer_params: dict[str, Any] | None = None,
        error: str | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            logger.warning("RequestOutput: unknown arguments are ignored: %s", ", ".join(unknown))
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs = prompt_logprobs
        self.outputs = outputs
        self.finished = finished
        self.metrics = metrics
        self.lora_request = lora_request
        self.encoder_prompt = encoder_prompt
        self.encoder_prompt_token_ids = encoder_prompt_token_ids
        self.num_cached_tokens = num_cached_tokens
        self.num_cache_creation_tokens = num_cache_creation_tokens
        self.kv_transfer_params = kv_transfer_params
        self.ec_transfer_params = ec_transfer_params
        self.error = error

    def failure(self) -> InvalidRequestError | RequestFailedError:
        """The error as an exception: the first where what was asked for led to it."""
        sentence = self.error or "the request could not be carried out"
        if any(choice.stop_reason == REFUSED for choice in self.outputs):
            return InvalidRequestError(sentence)
        return RequestFailedError(sentence)

    def add(self, next_output: RequestOutput, aggregate: bool) -> None:
        """Takes a later output of the same request into this one.

        aggregate  True: choices are pieces (DELTA), joined end to end. False: a later choice
                   replaces an earlier one of the same index (CUMULATIVE).
        """
        self.finished = self.finished or next_output.finished
        self.metrics = next_output.metrics or self.metrics
        self.kv_transfer_params = next_output.kv_transfer_params or self.kv_transfer_params
        self.error = next_output.error or self.error
        if self.prompt_logprobs is None:
            self.prompt_logprobs = next_output.prompt_logprobs
        if self.num_cached_tokens is None:
            self.num_cached_tokens = next_output.num_cached_tokens
        places = {choice.index: place for place, choice in enumerate(self.outputs)}
        for new in next_output.outputs:
            place = places.get(new.index)
            if place is None:
                places[new.index] = len(self.outputs)
                self.outputs.append(new)
            elif aggregate:
                _join(self.outputs[place], new)
            else:
                self.outputs[place] = new
        self.outputs.sort(key=lambda choice: choice.index)


def _join(choice: CompletionOutput, piece: CompletionOutput) -> None:
    """Appends a piece to a choice, in place. Lists of `choice` are replaced, not grown."""
    choice.text += piece.text
    choice.token_ids = [*choice.token_ids, *piece.token_ids]
    if piece.logprobs:
        choice.logprobs = [*(choice.logprobs or []), *piece.logprobs]
    choice.cumulative_logprob = piece.cumulative_logprob
    choice.finish_reason = piece.finish_reason
    choice.stop_reason = piece.stop_reason
