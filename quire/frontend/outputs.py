"""From the engine's messages to what the user gets: text, stops, log-probabilities, times.

Characters over several tokens are `frontend.detokenizer`, stop strings `frontend.stops`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from quire.frontend.byte_text import ByteText
from quire.frontend.detokenizer import Detokenizer, detokenizer_of
from quire.frontend.pooled import PooledRequest
from quire.frontend.stops import StopMatcher
from quire.frontend.tokenizer import PieceDecoder, Tokenizer
from quire.protocol.outputs import EngineOutputs, SequenceUpdate
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.pooled_results import PoolingOutput, PoolingRequestOutput
from quire.protocol.request import EngineRequest
from quire.protocol.results import (
    CompletionOutput,
    Logprob,
    PositionDict,
    PromptLogprobs,
    RequestOutput,
    RequestStateStats,
    SampleLogprobs,
)
from quire.protocol.step import PositionLogprobs

AnyOutput = RequestOutput | PoolingRequestOutput[PoolingOutput]
"""What a request may give, by what it asked for."""

CUMULATIVE = RequestOutputKind.CUMULATIVE
DELTA = RequestOutputKind.DELTA
FINAL_ONLY = RequestOutputKind.FINAL_ONLY


@dataclass(frozen=True)
class Processed:
    """What one message of the engine came to.

    outputs  (id of the engine's request, what the user gets), in the order of the message.
    aborts   (id of the engine's request, index) of sequences that a stop string ended.
    """

    outputs: list[tuple[str, AnyOutput]]
    aborts: list[tuple[str, int]]


class OutputProcessor:
    """The state of all live requests on this side of the engine. Use it from one thread at a time.

    stream_interval  tokens between two outputs of a request, unless its params ask for more.
    """

    def __init__(self, tokenizer: Tokenizer | None, *, stream_interval: int = 1) -> None:
        self._tokenizer = tokenizer
        self._stream_interval = stream_interval
        self._requests: dict[str, _Request | PooledRequest] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def live_ids(self, external_id: str) -> list[str]:
        """Ids in the engine of the live requests that the user calls `external_id`."""
        return [
            one for one, request in self._requests.items() if request.external_id == external_id
        ]

    def add(self, request: EngineRequest, external_id: str, prompt: str | None) -> None:
        """Takes note of a request before the engine gets it; `prompt` is its text, if it had one."""
        assert request.request_id not in self._requests, "ids of engine requests are made unique"
        if not isinstance(request.params, SamplingParams):
            self._requests[request.request_id] = PooledRequest(request, external_id)
            return
        self._requests[request.request_id] = _Request(
            request, request.params, external_id, prompt, self._tokenizer, self._stream_interval
        )

    def process(self, news: EngineOutputs) -> Processed:
        """Works one message in. A request that is not live (aborted a moment ago) is passed over."""
        touched: dict[str, _Request | PooledRequest] = {}
        aborts: list[tuple[str, int]] = []
        for update in news.updates:
            request = self._requests.get(update.request_id)
            if request is None:
                continue
            if request.take(update, news.at_s):
                aborts.append((update.request_id, update.index))
            touched[update.request_id] = request
        outputs: list[tuple[str, AnyOutput]] = []
        for request_id, request in touched.items():
            output = request.output()
            if output is not None:
                outputs.append((request_id, output))
            if request.finished:
                del self._requests[request_id]
        return Processed(outputs, aborts)

    def abort(self, request_ids: Iterable[str]) -> list[tuple[str, AnyOutput]]:
        """Ends live requests with finish reason "abort"; the caller tells the engine. Others are passed over."""
        ended: list[tuple[str, AnyOutput]] = []
        for request_id in request_ids:
            request = self._requests.pop(request_id, None)
            if request is not None:
                request.end_all("abort")
                output = request.output()
                if output is not None:
                    ended.append((request_id, output))
        return ended


class _Choice:
    """One of the n sequences of a request: its tokens, how many were sent, and text not sent as a piece."""

    __slots__ = (
        "cumulative_logprob", "finish_reason", "index", "logprobs", "pieces", "sent_ids",
        "stop_reason", "stops", "text", "text_of", "token_ids",
    )  # fmt: skip

    def __init__(
        self,
        index: int,
        request: EngineRequest,
        params: SamplingParams,
        tokenizer: Tokenizer | None,
    ):
        self.index = index
        self.text = ""
        self.token_ids: list[int] = []
        self.logprobs: SampleLogprobs | None = [] if params.wants_logprobs else None
        self.cumulative_logprob = 0.0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.sent_ids = 0
        self.text_of: Detokenizer | ByteText | None = None
        self.stops: StopMatcher | None = None
        self.pieces = (
            PieceDecoder(tokenizer) if tokenizer is not None and params.wants_logprobs else None
        )
        if tokenizer is not None and params.detokenize:
            self.text_of = detokenizer_of(
                tokenizer.raw,
                prompt_ids=request.prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
            )
            if params.stop:
                self.stops = StopMatcher(params.stop, include=params.include_stop_str_in_output)

    def take(self, update: SequenceUpdate, params: SamplingParams) -> bool:
        """Works an update in; True if a stop string ended the sequence before the engine did."""
        ids = update.token_ids
        kept, stopped = self._take_text(ids, update, params)
        if self.logprobs is not None and update.logprobs:
            ended = stopped is not None or update.finish_reason is not None
            for place, position in enumerate(update.logprobs[:kept]):
                chosen = position.logprobs[0]
                self.cumulative_logprob += chosen
                last = ended and place == kept - 1
                self.logprobs.append(position_dict(position, self.pieces, last=last))
        self.token_ids += ids[:kept]
        if stopped is not None:
            self.finish_reason, self.stop_reason = "stop", stopped
            return update.finish_reason is None
        self.finish_reason, self.stop_reason = update.finish_reason, update.stop_reason
        return False

    def _take_text(
        self, ids: list[int], update: SequenceUpdate, params: SamplingParams
    ) -> tuple[int, str | None]:
        """Adds the text of the ids; returns how many ids count, and the stop string that matched."""
        if self.text_of is None:
            return len(ids), None
        ends_on_token = update.finish_reason == "stop" and not params.include_stop_str_in_output
        shown = (
            ids[:-1] if ends_on_token else ids
        )  # the token that ended it is not part of the text
        if self.stops is None:
            if shown:
                self.text += self.text_of.append(shown)
            if update.finish_reason is not None:
                self.text += self.text_of.finish()
            return len(ids), None
        for place, token_id in enumerate(shown):
            piece = self.text_of.append([token_id])
            if len(self.token_ids) + place < params.min_tokens:
                self.text += self.stops.skip(piece)
                continue
            text, stopped = self.stops.feed(piece)
            self.text += text
            if stopped is not None:
                return place + 1, stopped
        if update.finish_reason is not None:
            text, stopped = self.stops.feed(self.text_of.finish())
            self.text += text + ("" if stopped is not None else self.stops.finish())
            return len(ids), stopped
        return len(ids), None

    def output(self, seed: int, *, delta: bool) -> CompletionOutput:
        """The choice so far, or with `delta` what was not sent yet."""
        first_id = self.sent_ids if delta else 0
        self.sent_ids = len(self.token_ids)
        text = self.text
        if delta:
            self.text = ""
        return CompletionOutput(
            index=self.index,
            text=text,
            token_ids=self.token_ids[first_id:],
            cumulative_logprob=None if self.logprobs is None else self.cumulative_logprob,
            logprobs=None if self.logprobs is None else self.logprobs[first_id:],
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            seed=seed,
        )


class _Request:
    """A live request: its choices and everything its outputs have in common."""

    def __init__(
        self,
        request: EngineRequest,
        params: SamplingParams,
        external_id: str,
        prompt: str | None,
        tokenizer: Tokenizer | None,
        stream_interval: int,
    ) -> None:
        self.external_id = external_id
        self._request = request
        self._params = params
        read = request.encoder
        self._prompt = prompt if read is None else read.decoder_text
        self._interval = max(stream_interval, params.stream_interval or 1)
        self._choices = [_Choice(index, request, params, tokenizer) for index in range(params.n)]
        self._num_running = params.n
        self._changed: dict[int, _Choice] = {}
        self._stats = RequestStateStats(arrival_time=request.arrival_time)
        self._num_cached_tokens: int | None = None
        self._error: str | None = None
        self._prompt_logprobs: PromptLogprobs | None = None
        self._prompt_logprobs_sent = False
        self._prompt_pieces: PieceDecoder | None = None
        if params.prompt_logprobs is not None:
            self._prompt_logprobs = [None]
            if tokenizer is not None:
                self._prompt_pieces = PieceDecoder(tokenizer)
                self._prompt_pieces.push(request.prompt_token_ids[0])

    @property
    def finished(self) -> bool:
        return self._num_running == 0

    def take(self, update: SequenceUpdate, at_s: float) -> bool:
        """Works an update of one sequence in; True if the engine must be told to end that sequence."""
        self._take_common(update, at_s)
        choice = self._choices[update.index]
        if not update.token_ids and update.finish_reason is None:
            return False
        if choice.finish_reason is not None:
            return False
        must_abort = choice.take(update, self._params)
        self._changed[update.index] = choice
        self._num_running -= choice.finish_reason is not None
        return must_abort

    def _take_common(self, update: SequenceUpdate, at_s: float) -> None:
        stats = self._stats
        if update.queued_s is not None and not stats.queued_ts:
            stats.queued_ts = update.queued_s
        if update.scheduled_s is not None and not stats.scheduled_ts:
            stats.scheduled_ts = update.scheduled_s
        if update.num_cached_tokens is not None and self._num_cached_tokens is None:
            self._num_cached_tokens = update.num_cached_tokens
        if update.error is not None:
            self._error = update.error
        if update.prompt_logprobs and self._prompt_logprobs is not None:
            self._prompt_logprobs += [
                position_dict(position, self._prompt_pieces) for position in update.prompt_logprobs
            ]
        if update.token_ids:
            stats.last_token_ts = at_s
            stats.num_generation_tokens += len(update.token_ids)
            if not stats.first_token_ts:
                stats.first_token_ts = at_s
                stats.first_token_latency = max(0.0, time.time() - stats.arrival_time)

    def end_all(self, reason: str) -> None:
        """Ends every choice that still runs."""
        for choice in self._choices:
            if choice.finish_reason is None:
                choice.take(
                    SequenceUpdate(request_id="", index=choice.index, finish_reason=reason),  # type: ignore[arg-type]
                    self._params,
                )
                self._changed[choice.index] = choice
        self._num_running = 0

    def output(self) -> RequestOutput | None:
        """What the user gets now: None while there is nothing due."""
        kind = self._params.output_kind
        if not self._changed or (not self.finished and (kind is FINAL_ONLY or not self._is_due())):
            return None
        delta = kind is DELTA
        choices = self._choices
        if delta and len(self._changed) < len(choices):
            choices = [choice for choice in choices if choice.index in self._changed]
        self._changed = {}
        prompt_logprobs = None if delta and self._prompt_logprobs_sent else self._prompt_logprobs
        self._prompt_logprobs_sent = True
        read = self._request.encoder
        return RequestOutput(
            request_id=self.external_id,
            prompt=self._prompt,
            prompt_token_ids=self._request.prompt_token_ids,
            prompt_logprobs=prompt_logprobs,
            outputs=[choice.output(self._request.seed, delta=delta) for choice in choices],
            finished=self.finished,
            metrics=self._stats.copy(),
            num_cached_tokens=self._num_cached_tokens,
            error=self._error,
            encoder_prompt=None if read is None else read.text,
            encoder_prompt_token_ids=None if read is None else read.token_ids,
        )

    def _is_due(self) -> bool:
        """First tokens, ends, and every `_interval` tokens of a choice."""
        return self._interval == 1 or any(
            choice.finish_reason is not None
            or choice.sent_ids == 0
            or len(choice.token_ids) - choice.sent_ids >= self._interval
            for choice in self._changed.values()
        )


def position_dict(
    position: PositionLogprobs, pieces: PieceDecoder | None, *, last: bool = False
) -> PositionDict:
    """Token id -> Logprob at one position, the chosen token first, then the best in falling order.

    pieces  decodes in the context of the tokens before, and takes note of the chosen one; None
            leaves the texts out. `last`: no token follows.
    """
    found: PositionDict = {}
    chosen = position.token_ids[0]
    for token_id, logprob, rank in zip(
        position.token_ids, position.logprobs, position.ranks, strict=True
    ):
        if token_id not in found:
            text = pieces.peek(token_id) if pieces is not None else None
            found[token_id] = Logprob(logprob, rank, text)
    if pieces is not None:
        found[chosen].decoded_token = pieces.push(chosen, last=last)
    return found
