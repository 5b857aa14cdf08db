"""What a user may ask of one request; the checks that need no model are part of making one.

The fields are those of vLLM's `SamplingParams` and `PoolingParams`. Checks against a vocabulary, a
context length or what this build serves are left to `frontend.inputs`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from quire.protocol.checks import (
    integer,
    integers,
    limits,
    number,
    refuse,
    shown,
    strings,
    truth,
)
from quire.protocol.options import (
    RepetitionDetectionParams,
    RequestOutputKind,
    SamplingType,
    StructuredOutputsParams,
)
from quire.protocol.pooling import PoolingParams

__all__ = [
    "BeamSearchParams",
    "PoolingParams",
    "RepetitionDetectionParams",
    "RequestOutputKind",
    "SamplingParams",
    "SamplingType",
    "StructuredOutputsParams",
]

logger = logging.getLogger(__name__)

MAX_SEQUENCES = 16_384
"""Most continuations of one request; servers set a lower limit of their own."""
MIN_TEMPERATURE = 0.01
"""Colder than this, logit/T loses the small differences that matter; 0 itself is greedy."""
MAX_TEMPERATURE = 100.0
MIN_REPETITION_PENALTY = 1e-6
"""Logits divided by less could leave the range of float32."""
MAX_REPETITION_PENALTY = 100.0
MAX_LOGPROB_TOKEN_IDS = 128
MAX_TOP_K = 2**31 - 1
"""What more means, too: no vocabulary is larger, and kernels count in 32 bits."""
MAX_BIAS = 1e6
"""Far beyond any logit, and far from where float32 sums overflow."""
MAX_OPENAI_BIAS = 100.0
"""Where `from_optional` clamps a bias, as the OpenAI interface defines it."""


class TextEncoder(Protocol):
    """The part of a tokenizer that bad words need."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text."""
        ...


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True, tag="sampling"):
    """How to continue a prompt. Making one checks it; raises InvalidRequestError naming the field.

    After checking, `stop`, `stop_token_ids` and `bad_words` are lists (a single `stop` string or
    None is accepted), `logprobs` True is 1, `top_k` -1 is 0, `seed` -1 and
    `thinking_token_budget` -1 are None, and greedy sampling has its filters switched off.

    penalties          repetition over prompt and output, presence and frequency over output.
    temperature        0 is greedy: the best token, ties to the lowest id.
    min_p              a share of the best token's probability.
    logprobs           how many of the best tokens to report besides the sampled one; -1 is all.
    logprob_token_ids  exactly these ids are reported besides the sampled one.
    max_tokens         None is up to the context length.
    separates_thinking  whoever reads the output takes the model's thinking out of it, so that a
                       constraint holds behind it; otherwise only where the prompt has begun it.
    bad_words_ids      what `bad_words` are in tokens; filled by the front, not by users.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    flat_logprobs: bool = False
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    stream_interval: int | None = None
    structured_outputs: StructuredOutputsParams | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] = []
    bad_words_ids: list[list[int]] = []
    extra_args: dict[str, Any] | None = None
    skip_reading_prefix_cache: bool | None = None
    thinking_token_budget: int | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    routed_experts_prompt_start: int = 0
    separates_thinking: bool = False
    skip_clone: bool = False

    def __post_init__(self) -> None:
        self.verify()

    def verify(self) -> None:
        """Checks every field and brings it to its plain form; call it again after a change."""
        self._check_counts()
        self._check_numbers()
        self._check_stops()
        self._check_logprobs()
        self._check_tokens()
        self._check_switches()
        self._check_objects()

    @classmethod
    def from_optional(cls, **fields: Any) -> SamplingParams:
        """Like the constructor, but None means the default, and biases are clamped to ±100.

        `max_tokens` None keeps its own meaning. Keys of `logit_bias` may be digits in a string.
        """
        given = {
            name: value
            for name, value in fields.items()
            if value is not None or name == "max_tokens"
        }
        bias = given.get("logit_bias")
        if isinstance(bias, Mapping):
            given["logit_bias"] = {
                _token_id(key): _clamped(f"logit_bias[{key}]", value) for key, value in bias.items()
            }
        return cls(**given)

    @property
    def sampling_type(self) -> SamplingType:
        """Greedy, random with a seed drawn for it, or random with the user's seed."""
        if self.temperature == 0.0:
            return SamplingType.GREEDY
        return SamplingType.RANDOM if self.seed is None else SamplingType.RANDOM_SEED

    @property
    def wants_logprobs(self) -> bool:
        """Whether each sampled token comes with log-probabilities."""
        return self.logprobs is not None or self.logprob_token_ids is not None

    def clone(self) -> SamplingParams:
        """A copy that shares no list or dict with this one; itself if `skip_clone` is set."""
        if self.skip_clone:
            return self
        return copy.deepcopy(self)

    def update_from_generation_config(
        self, generation_config: Mapping[str, Any], model_eos_token_id: int | None = None
    ) -> None:
        """Adds the ids that end a sequence, but for the model's own, to the stop ids.

        Does nothing where `ignore_eos` is set.
        """
        found = generation_config.get("eos_token_id")
        if self.ignore_eos or found is None:
            return
        extra = {found} if isinstance(found, int) else set(found)
        extra -= {model_eos_token_id, *self.stop_token_ids}
        self.stop_token_ids = self.stop_token_ids + sorted(extra)

    def update_from_tokenizer(self, tokenizer: TextEncoder) -> None:
        """Fills `bad_words_ids`: each word as it stands and with one space before it."""
        found: list[list[int]] = []
        for word in self.bad_words:
            for text in (word, " " + word.lstrip()):
                ids = list(tokenizer.encode(text, add_special_tokens=False))
                if ids and ids not in found:
                    found.append(ids)
        self.bad_words_ids = found

    def _check_counts(self) -> None:
        self.n = limits("n", integer("n", self.n), low=1, high=MAX_SEQUENCES)
        self.min_tokens = limits("min_tokens", integer("min_tokens", self.min_tokens), low=0)
        if self.max_tokens is not None:
            self.max_tokens = limits("max_tokens", integer("max_tokens", self.max_tokens), low=1)
            if self.min_tokens > self.max_tokens:
                refuse(
                    "min_tokens",
                    f"min_tokens is {self.min_tokens} but max_tokens is {self.max_tokens}; "
                    "lower min_tokens or raise max_tokens.",
                )
        if self.stream_interval is not None:
            value = integer("stream_interval", self.stream_interval)
            self.stream_interval = limits("stream_interval", value, low=1)
        if self.thinking_token_budget is not None:
            value = integer("thinking_token_budget", self.thinking_token_budget)
            limits("thinking_token_budget", value, low=-1)
            self.thinking_token_budget = None if value == -1 else value

    def _check_numbers(self) -> None:
        for name in ("presence_penalty", "frequency_penalty"):
            setattr(self, name, limits(name, number(name, getattr(self, name)), low=-2.0, high=2.0))
        penalty = number("repetition_penalty", self.repetition_penalty)
        limits(
            "repetition_penalty", penalty, low=MIN_REPETITION_PENALTY, high=MAX_REPETITION_PENALTY
        )
        self.repetition_penalty = penalty
        self.temperature = number("temperature", self.temperature)
        limits("temperature", self.temperature, low=0.0, high=MAX_TEMPERATURE)
        self.top_p = limits("top_p", number("top_p", self.top_p), above=0.0, high=1.0)
        top_k = limits("top_k", integer("top_k", self.top_k), low=-1)
        self.top_k = min(MAX_TOP_K, max(0, top_k))
        self.min_p = limits("min_p", number("min_p", self.min_p), low=0.0, high=1.0)
        if self.seed is not None:
            value = limits("seed", integer("seed", self.seed), low=-(2**63), high=2**64 - 1)
            self.seed = None if value == -1 else value
        if self.temperature == 0.0:
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0
        elif self.temperature < MIN_TEMPERATURE:
            logger.warning(
                "temperature %g is below %g and was raised to it; use 0 for greedy sampling.",
                self.temperature,
                MIN_TEMPERATURE,
            )
            self.temperature = MIN_TEMPERATURE

    def _check_stops(self) -> None:
        self.stop = strings("stop", [self.stop] if isinstance(self.stop, str) else self.stop)
        self.bad_words = strings("bad_words", self.bad_words)
        self.stop_token_ids = integers("stop_token_ids", self.stop_token_ids)
        if self.stop and not self.detokenize:
            refuse(
                "stop",
                "stop strings need text, but detokenize is False; "
                "set it to True or use stop_token_ids.",
            )

    def _check_logprobs(self) -> None:
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None:
                value = int(value) if isinstance(value, bool) else integer(name, value)
                setattr(self, name, limits(name, value, low=-1))
        if self.logprob_token_ids is None:
            return
        ids = self.logprob_token_ids = integers("logprob_token_ids", self.logprob_token_ids)
        if not 1 <= len(ids) <= MAX_LOGPROB_TOKEN_IDS:
            refuse(
                "logprob_token_ids",
                f"logprob_token_ids has {len(ids)} ids; it must have 1 to {MAX_LOGPROB_TOKEN_IDS}.",
            )
        if self.logprobs not in (None, len(ids)):
            refuse(
                "logprob_token_ids",
                f"logprob_token_ids has {len(ids)} ids but logprobs is {self.logprobs}; "
                "leave logprobs out.",
            )

    def _check_tokens(self) -> None:
        if self.logit_bias is not None:
            if not isinstance(self.logit_bias, Mapping):
                refuse(
                    "logit_bias",
                    f"logit_bias is {self.logit_bias!r}; it must map token ids to numbers.",
                )
            self.logit_bias = {
                limits("logit_bias", integer("logit_bias", key), low=0): limits(
                    f"logit_bias[{key}]",
                    number(f"logit_bias[{key}]", value),
                    low=-MAX_BIAS,
                    high=MAX_BIAS,
                )
                for key, value in self.logit_bias.items()
            }
        if self.allowed_token_ids is not None:
            self.allowed_token_ids = integers("allowed_token_ids", self.allowed_token_ids)
            if not self.allowed_token_ids:
                refuse(
                    "allowed_token_ids",
                    "allowed_token_ids is empty; give at least one id or leave it out.",
                )
        if not isinstance(self.bad_words_ids, list):
            refuse("bad_words_ids", "bad_words_ids must be a list of lists of token ids.")
        self.bad_words_ids = [integers("bad_words_ids", ids) for ids in self.bad_words_ids]

    def _check_switches(self) -> None:
        for name in (
            "ignore_eos",
            "flat_logprobs",
            "detokenize",
            "skip_special_tokens",
            "spaces_between_special_tokens",
            "include_stop_str_in_output",
            "separates_thinking",
            "skip_clone",
        ):
            truth(name, getattr(self, name))
        if self.skip_reading_prefix_cache is not None:
            truth("skip_reading_prefix_cache", self.skip_reading_prefix_cache)
        if not isinstance(self.output_kind, RequestOutputKind):
            refuse(
                "output_kind", f"output_kind is {shown(self.output_kind)}; use a RequestOutputKind."
            )

    def _check_objects(self) -> None:
        name = "routed_experts_prompt_start"
        limits(name, integer(name, self.routed_experts_prompt_start), low=0)
        args = self.extra_args
        if args is not None and not (
            isinstance(args, dict) and all(isinstance(key, str) for key in args)
        ):
            refuse(
                "extra_args",
                f"extra_args is {shown(args)}; it must be a dict with strings as keys.",
            )
        for name, kind in (
            ("structured_outputs", StructuredOutputsParams),
            ("repetition_detection", RepetitionDetectionParams),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                refuse(name, f"{name} is {shown(value)}; use {kind.__name__}.")


class BeamSearchParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How to search with `beam_width` beams for `max_tokens` tokens."""

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        self.beam_width = limits(
            "beam_width", integer("beam_width", self.beam_width), low=1, high=MAX_SEQUENCES
        )
        self.max_tokens = limits("max_tokens", integer("max_tokens", self.max_tokens), low=1)
        self.temperature = number("temperature", self.temperature)
        limits("temperature", self.temperature, low=0.0, high=MAX_TEMPERATURE)
        self.length_penalty = number("length_penalty", self.length_penalty)


def _token_id(key: Any) -> int:
    if isinstance(key, str) and not (key.isascii() and key.isdigit()):
        refuse("logit_bias", f"logit_bias has the key {key!r}; keys must be token ids.")
    return int(key) if isinstance(key, str) else integer("logit_bias", key)


def _clamped(name: str, value: Any) -> float:
    return min(MAX_OPENAI_BIAS, max(-MAX_OPENAI_BIAS, number(name, value)))
