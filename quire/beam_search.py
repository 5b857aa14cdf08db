"""Beam search over an `LLMEngine`: the likeliest continuations of a prompt, token by token.

One step of a beam is an ordinary request for one token, so that its prefix comes from the cache; the
faces that offer it are `quire.llm`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from quire.frontend.inputs import at_place
from quire.llm_engine import LLMEngine
from quire.protocol.errors import (
    EngineDeadError,
    InvalidRequestError,
    NotServedError,
    RequestFailedError,
)
from quire.protocol.params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.protocol.results import Logprob, RequestOutput

logger = logging.getLogger(__name__)


@dataclass
class BeamSearchSequence:
    """One continuation.

    tokens         prompt and output; the end token that closed it only with include_stop_str_in_output.
    logprobs       for each output token the candidates it was chosen from, by id; an end token counts.
    cum_logprob    sum of the log-probabilities of the output tokens, the end token's included.
    text           of all tokens; None without a tokenizer.
    finish_reason  "stop" at an end token, "length" at max_tokens or the end of the context.
    stop_reason    the end token's id, if one closed it.
    """

    tokens: list[int]
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class BeamSearchOutput:
    """The sequences of one prompt, best first."""

    sequences: list[BeamSearchSequence]


@dataclass
class _Search:
    """One prompt under way: beams that go on, and sequences that ended."""

    place: int
    beams: list[BeamSearchSequence]
    ended: list[tuple[float, BeamSearchSequence]] = field(default_factory=list)
    num_steps: int = 0
    read: dict[str, Any] | None = None

    def prompt(self, beam: BeamSearchSequence) -> dict[str, Any]:
        """What a step of a beam asks; of an encoder-decoder model it says again what the encoder reads."""
        own = {"prompt_token_ids": beam.tokens}
        return own if self.read is None else {"encoder_prompt": self.read, "decoder_prompt": own}

    def end(self, sequence: BeamSearchSequence, length: int, length_penalty: float) -> None:
        """Ranks a sequence by cum_logprob / length ** length_penalty.

        length  prompt and output tokens, without an end token.
        """
        self.ended.append((sequence.cum_logprob / length**length_penalty, sequence))


def search(
    engine: LLMEngine,
    prompts: Iterable[Any],
    params: BeamSearchParams,
    *,
    lora_request: Any = None,
    at_once: int | None = None,
    keep: Callable[[str, RequestOutput], None] = lambda request_id, output: None,
    on_end: Callable[[], None] = lambda: None,
) -> list[BeamSearchOutput]:
    """The best `beam_width` sequences of each prompt.

    In each step a beam offers its 2 * beam_width likeliest next tokens; an end token closes a sequence,
    and the best beam_width of the others, equal ones in the order of their beams and ranks, go on.

    at_once  prompts under way together; None is all.
    keep     takes outputs of requests that are not of this search.
    on_end   called for each prompt that is done.
    Raises InvalidRequestError, RequestFailedError if a step fails, EngineDeadError.
    """
    if not isinstance(params, BeamSearchParams):
        raise TypeError(f"params must be BeamSearchParams, not {type(params).__name__}")
    if at_once is not None and at_once < 1:
        raise InvalidRequestError(
            f"concurrency_limit is {at_once}; it must be at least 1", param="concurrency_limit"
        )
    if params.structured_outputs is not None:
        raise NotServedError(
            "beam search follows no output constraint; leave structured_outputs out, or sample with "
            "LLM.generate",
            param="structured_outputs",
        )
    _check_width(engine, params)
    if params.temperature:
        logger.warning(
            "beam search draws nothing: temperature %g has no effect", params.temperature
        )
    return _Searches(engine, params, lora_request, keep, on_end).run(prompts, at_once)


def _check_width(engine: LLMEngine, params: BeamSearchParams) -> None:
    most, wanted = engine.inputs.max_logprobs, 2 * params.beam_width
    if most != -1 and min(wanted, engine.inputs.vocab_size) > most:
        raise InvalidRequestError(
            f"beam_width {params.beam_width} looks at {wanted} candidates for a token, but max_logprobs is "
            f"{most}; use at most {most // 2}, or start with max_logprobs={wanted}",
            param="beam_width",
        )


class _Searches:
    """All prompts of one call; their steps run side by side in the engine."""

    def __init__(
        self,
        engine: LLMEngine,
        params: BeamSearchParams,
        lora_request: Any,
        keep: Callable[[str, RequestOutput], None],
        on_end: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._params = params
        self._lora_request = lora_request
        self._keep = keep
        self._on_end = on_end
        self._numbers = itertools.count()
        self._num_candidates = min(2 * params.beam_width, engine.inputs.vocab_size)
        self._end_ids = frozenset(() if params.ignore_eos else engine.inputs.eos_token_ids)
        self._step_params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=self._num_candidates,
            ignore_eos=True,
            seed=0,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._waiting: dict[str, tuple[_Search, int]] = {}
        self._taken: dict[str, RequestOutput] = {}

    def run(self, prompts: Iterable[Any], at_once: int | None) -> list[BeamSearchOutput]:
        """Everything, in the order of the prompts."""
        items = list(prompts)
        starts = [self._start(place, prompt) for place, prompt in enumerate(items)]
        rest = iter(starts)
        live = list(itertools.islice(rest, at_once))
        try:
            while live:
                for one in live:
                    self._submit(one)
                self._collect()
                for one in live:
                    self._advance(one)
                ended = [one for one in live if not one.beams]
                for _ in ended:
                    self._on_end()
                live = [one for one in live if one.beams]
                live += itertools.islice(rest, len(ended))
        except BaseException:
            self._abort()
            raise
        return [self._output(one) for one in starts]

    def _start(self, place: int, prompt: Any) -> _Search:
        try:
            request = self._engine.inputs.process(f"beam-{place}", prompt, self._step_params)
        except InvalidRequestError as error:
            raise at_place(error, place) from error
        if request.embeds is not None:
            raise InvalidRequestError(
                f"prompt {place}: beam search takes prompts of text or token ids, not prompt_embeds",
                param="prompt_embeds",
            )
        read = None if request.encoder is None else {"prompt_token_ids": request.encoder.token_ids}
        return _Search(place, [BeamSearchSequence(list(request.prompt_token_ids))], read=read)

    def _submit(self, one: _Search) -> None:
        for number, beam in enumerate(one.beams):
            try:
                request_id = self._engine.add_request(
                    f"beam-{one.place}-{next(self._numbers)}",
                    one.prompt(beam),
                    self._step_params,
                    lora_request=self._lora_request,
                )
            except InvalidRequestError as error:
                raise at_place(error, one.place) from error
            self._waiting[request_id] = (one, number)

    def _collect(self) -> None:
        """Steps the engine until every beam has its answer."""
        missing = set(self._waiting)
        while missing:
            for request_id, output in self._engine.step_with_ids():
                if request_id not in missing:
                    self._keep(request_id, output)
                elif output.finished:
                    missing.discard(request_id)
                    self._taken[request_id] = output

    def _advance(self, one: _Search) -> None:
        """Turns the answers of one prompt's beams into its next beams."""
        grown: list[BeamSearchSequence] = []
        own = [request_id for request_id, (of, _) in self._waiting.items() if of is one]
        for request_id in own:
            _, number = self._waiting.pop(request_id)
            output = self._taken.pop(request_id)
            choice = output.outputs[0]
            if choice.finish_reason == "error" or not choice.logprobs:
                raise RequestFailedError(output.error or "a step of the beam search failed")
            grown += self._grow(one, one.beams[number], choice.logprobs[0])
        one.num_steps += 1
        grown.sort(key=lambda beam: beam.cum_logprob, reverse=True)
        one.beams = grown[: self._params.beam_width]
        if one.beams and (
            one.num_steps == self._params.max_tokens
            or len(one.beams[0].tokens) >= self._engine.inputs.max_model_len
        ):
            for beam in one.beams:
                beam.finish_reason = "length"
                one.end(beam, len(beam.tokens), self._params.length_penalty)
            one.beams = []

    def _grow(
        self, one: _Search, beam: BeamSearchSequence, candidates: dict[int, Logprob]
    ) -> list[BeamSearchSequence]:
        """The beam with each of its candidates; those that end go to `one.ended`."""
        grown = []
        ranked = sorted(candidates.items(), key=lambda item: (-item[1].logprob, item[0]))
        for token, entry in ranked[: self._num_candidates]:
            logprobs = [*beam.logprobs, candidates]
            total = beam.cum_logprob + entry.logprob
            if token not in self._end_ids:
                grown.append(BeamSearchSequence([*beam.tokens, token], logprobs, total))
                continue
            kept = [token] if self._params.include_stop_str_in_output else []
            tokens = [*beam.tokens, *kept]
            ended = BeamSearchSequence(
                tokens, logprobs, total, finish_reason="stop", stop_reason=token
            )
            one.end(ended, len(beam.tokens), self._params.length_penalty)
        return grown

    def _output(self, one: _Search) -> BeamSearchOutput:
        one.ended.sort(key=lambda ranked: ranked[0], reverse=True)
        best = [sequence for _, sequence in one.ended[: self._params.beam_width]]
        tokenizer = self._engine.inputs.tokenizer
        if tokenizer is not None:
            for sequence in best:
                sequence.text = tokenizer.decode(sequence.tokens)
        return BeamSearchOutput(best)

    def _abort(self) -> None:
        try:
            self._engine.abort_request(list(self._waiting), internal=True)
        except EngineDeadError:
            logger.debug("the engine is dead: there is nothing to abort")
