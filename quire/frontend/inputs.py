"""From what a user asks to an `EngineRequest`: token ids, limits, seed; every check that needs the model.

Ranges of single fields are checked where `protocol.params` makes them; the engine checks nothing again.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from quire.config.plugins import io_processor_class, processor_classes
from quire.config.schema import ParserConfig, Settings
from quire.frontend.chat import ChatRenderer
from quire.frontend.chat_readers import ReaderSource, check_parsers
from quire.frontend.constraints import ConstraintReader
from quire.frontend.custom_args import check_custom
from quire.frontend.data_prompts import DataPrompts
from quire.frontend.encoder_prompts import EncoderPrompts
from quire.frontend.pooling_inputs import PoolingInputs
from quire.frontend.prompts import PromptReader, read_prompt
from quire.frontend.request_limits import Limits, check_sizes, check_vocabulary
from quire.frontend.texts import Texts, open_texts
from quire.frontend.tokenizer import Tokenizer
from quire.models.registry import ModelDescription
from quire.protocol.chat import ChatOptions, ChatPrompt
from quire.protocol.checks import refuse
from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.logits_processors import LogitsProcessor
from quire.protocol.outputs import EngineInfo
from quire.protocol.params import PoolingParams, SamplingParams
from quire.protocol.request import EngineRequest

_SEED_BITS = 53  # a drawn seed goes through JSON readers that know only doubles
_NOT_SERVED_PARAMS = {
    "repetition_detection": "repetition detection is not served; leave the field out",
    "flat_logprobs": "flat logprobs are not served; leave flat_logprobs False for lists of dictionaries",
    "logits_processors": "logits processors of a request are not served; leave the field out",
}


def check_named(settings: Settings) -> None:
    """Raises SettingsError for parsers or an IO processor that are not there, before any weights are read."""
    check_parsers(settings.parsers)
    if settings.model.io_processor_plugin is not None:
        io_processor_class(settings.model.io_processor_plugin)


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What comes with a request beside prompt and params.

    arrival_time         Unix seconds; None is now.
    tokenization_kwargs  add_special_tokens, truncate_prompt_tokens, truncation_side.
    strict               a client asks: sizes are limited by `Limits`.
    """

    priority: int = 0
    arrival_time: float | None = None
    cache_salt: str | None = None
    tokenization_kwargs: Mapping[str, Any] | None = None
    mm_processor_kwargs: Mapping[str, Any] | None = None
    lora_request: Any = None
    trace_headers: Mapping[str, str] | None = None
    strict: bool = False


class InputProcessor:
    """Checks requests against one model and makes them ready for the engine. Safe in several threads.

    `defaults` holds the fields of SamplingParams that the model's generation config sets,
    `eos_token_ids` the tokens that end an answer, `readers` opens what reads answers of chats.

    vocab_size     rows of the model's embedding: every id must be below it.
    max_model_len  prompt and output together, in tokens.
    max_logprobs   most logprobs a position may ask for; -1 is no limit.
    base_seed      where the seeds of requests without one come from, with the number of requests
                   before them; None takes them from the system.
    use_priority   whether the engine orders requests by priority.
    takes_embeds   whether a prompt may be given as embeddings.
    constraints    what bounds outputs; without those of `from_settings` all are refused.
    processors     classes of logits processors that the engine runs; they may refuse params.
    halves         splits the prompts of an encoder-decoder model; None for others.
    """

    def __init__(
        self,
        description: ModelDescription,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        max_model_len: int,
        max_logprobs: int = 20,
        base_seed: int | None = None,
        use_priority: bool = False,
        limits: Limits | None = None,
        chat: ChatRenderer | None = None,
        readers: ReaderSource | None = None,
        takes_embeds: bool = False,
        processors: Sequence[type[LogitsProcessor]] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self._chat = chat
        self.readers = readers or ReaderSource(ParserConfig(), tokenizer)
        self.vocab_size = vocab_size
        self.max_model_len = max_model_len
        self.max_logprobs = max_logprobs
        self._prompts = PromptReader(
            tokenizer,
            vocab_size=vocab_size,
            max_model_len=max_model_len,
            embeds_size=description.spec.hidden_size if takes_embeds else None,
        )
        self.halves: EncoderPrompts | None = None
        if description.spec.encoder is not None:
            self.halves = EncoderPrompts(
                description, tokenizer, vocab_size=vocab_size, max_model_len=max_model_len
            )
        self.pooling = PoolingInputs(
            None if description.pooling is None else description.pooling.pooler,
            tokenizer,
            vocab_size=vocab_size,
            max_model_len=max_model_len,
        )
        self._processors = tuple(processors)
        self._base_seed = base_seed
        self._ordinals = itertools.count()
        self._use_priority = use_priority
        self._limits = limits or Limits()
        names = {"max_new_tokens": "max_tokens"}
        self.defaults = {names.get(k, k): v for k, v in description.generation_defaults.items()}
        ends = dict.fromkeys(description.eos_token_ids)
        if tokenizer is not None and tokenizer.eos_token_id is not None:
            ends[tokenizer.eos_token_id] = None
        self.eos_token_ids = tuple(one for one in ends if one < vocab_size)
        self.constraints = ConstraintReader()
        self.data = DataPrompts()

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        description: ModelDescription,
        info: EngineInfo,
        *,
        base_seed: int | None,
        texts: Texts | None = None,
    ) -> InputProcessor:
        """The checks for an engine as it was started; `texts` is opened if it is None. Raises ModelLoadError."""
        model = settings.model
        tokenizer, chat = texts or open_texts(settings, description)
        inputs = cls(
            description,
            tokenizer,
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            max_logprobs=model.max_logprobs,
            base_seed=base_seed if model.seed is None else model.seed,
            use_priority=settings.scheduler.scheduling_policy == "priority",
            chat=chat,
            readers=ReaderSource(settings.parsers, tokenizer),
            takes_embeds=model.enable_prompt_embeds,
            processors=processor_classes(model.logits_processors),
        )
        inputs.data = DataPrompts.from_settings(settings)
        inputs.constraints = ConstraintReader.from_settings(
            settings,
            model.tokenizer or description.path,
            tokenizer,
            vocab_size=info.vocab_size,
            eos_token_ids=inputs.eos_token_ids,
        )
        return inputs

    def render_prompt(
        self, prompt: Any, how: Mapping[str, Any] | None = None, max_tokens: int | None = None
    ) -> list[int]:
        """The token ids of a prompt, as `process` has them. Raises InvalidRequestError."""
        return self._prompts.token_ids(read_prompt(prompt), how, max_tokens)

    @property
    def chat_template(self) -> str | None:
        """The text of the template that chats are rendered with; None where there is none."""
        try:
            return self._chat.template_text() if self._chat is not None else None
        except InvalidRequestError:
            return None

    def render_chat(
        self, messages: Any, options: ChatOptions | None = None, *, truncates: bool = False
    ) -> ChatPrompt:
        """The prompt of a conversation. Raises InvalidRequestError with the place of what is wrong.

        truncates  whether the prompt will be cut to the context; otherwise a long one is refused early.
        """
        if self._chat is None:
            refuse("messages", "there is no tokenizer (skip_tokenizer_init); send token ids")
        limit = None if truncates else self.max_model_len - 1
        return self._chat.render(messages, options, limit=limit)

    def default_params(self) -> SamplingParams:
        """New params with the sampling values that the model's makers recommend."""
        params = SamplingParams.from_optional(**self.defaults)
        if self.tokenizer is None:
            params.detokenize = False
        return params

    def process(
        self,
        request_id: str,
        prompt: Any,
        params: SamplingParams | PoolingParams | None = None,
        options: RequestOptions | None = None,
    ) -> EngineRequest:
        """The request as the engine takes it, under an id of its own: `request_id`, a dash, 8 hex digits.

        Raises InvalidRequestError (NotServedError for features that are not there), and TypeError for
        a prompt or params of a wrong type. Neither `prompt` nor `params` is modified or kept.
        """
        options = options or RequestOptions()
        if not isinstance(request_id, str):
            raise TypeError(f"request_id must be a string, not {type(request_id).__name__}")
        if isinstance(params, PoolingParams):
            return self._pooled(request_id, prompt, params, options)
        self.pooling.refuse_generation()
        params = self.default_params() if params is None else self._own_params(params)
        how, encoder = options.tokenization_kwargs, None
        if self.halves is not None:
            prompt, encoder = self.halves.split(prompt, how, params)
            how = None
        fields = read_prompt(prompt)
        self._check_options(options, fields)
        fields, embeds, embed_rows = self._prompts.embedded(fields, how)
        if embeds is not None and params.prompt_logprobs is not None:
            refuse(
                "prompt_logprobs",
                "prompt_logprobs need token ids, which prompt_embeds do not have; leave one of them out",
            )
        ids = self._prompts.token_ids(fields, how, params.max_tokens)
        self._fit_context(params, len(ids), options.strict)
        self._check_params(params, options.strict)
        check_custom(params, self._processors, strict=options.strict)
        bounds = self.constraints.fields(params, ids)
        return EngineRequest(
            request_id=f"{request_id}-{secrets.token_hex(4)}",
            prompt_token_ids=ids,
            params=params,
            seed=self._seed(params),
            eos_token_ids=self.eos_token_ids,
            arrival_time=time.time() if options.arrival_time is None else options.arrival_time,
            priority=options.priority,
            cache_salt=options.cache_salt or fields.get("cache_salt"),
            embeds=embeds,
            embed_rows=embed_rows,
            encoder=encoder,
            **bounds,
            trace_headers=dict(options.trace_headers) if options.trace_headers else None,
        )

    def _pooled(
        self, request_id: str, prompt: Any, params: PoolingParams, options: RequestOptions
    ) -> EngineRequest:
        own, fields = self.pooling.own_params(params), read_prompt(prompt)
        self._check_options(options, fields)
        ids, type_from = self.pooling.token_ids(fields, options.tokenization_kwargs)
        return EngineRequest(
            request_id=f"{request_id}-{secrets.token_hex(4)}",
            prompt_token_ids=ids,
            params=own,
            type_from=type_from,
            arrival_time=time.time() if options.arrival_time is None else options.arrival_time,
            priority=options.priority,
            cache_salt=options.cache_salt or fields.get("cache_salt"),
            trace_headers=dict(options.trace_headers) if options.trace_headers else None,
        )

    def _own_params(self, params: SamplingParams) -> SamplingParams:
        """A checked copy, so that a later change by the user has no effect."""
        if not isinstance(params, SamplingParams):
            raise TypeError(f"params must be SamplingParams, not {type(params).__name__}")
        own = msgspec.structs.replace(params)  # runs all of its checks again
        for name, sentence in _NOT_SERVED_PARAMS.items():
            if getattr(own, name, None):
                raise NotServedError(sentence, param=name)
        if (own.extra_args or {}).get("kv_transfer_params"):
            raise NotServedError("moving cache blocks is not served", param="kv_transfer_params")
        return own

    def _check_options(self, options: RequestOptions, fields: Mapping[str, Any]) -> None:
        if options.lora_request is not None:
            raise NotServedError(
                "LoRA adapters are not served; leave lora_request out", param="lora_request"
            )
        if options.mm_processor_kwargs or fields.get("mm_processor_kwargs"):
            raise NotServedError(
                "images, audio and video are not served; leave mm_processor_kwargs out",
                param="mm_processor_kwargs",
            )
        if isinstance(options.priority, bool) or not isinstance(options.priority, int):
            refuse(
                "priority", f"priority must be an integer, not {type(options.priority).__name__}"
            )
        if options.priority and not self._use_priority:
            refuse(
                "priority",
                f"priority is {options.priority}, but requests are served first come, first served; leave it "
                "out or start with --scheduling-policy priority",
            )
        if not -(2**31) <= options.priority < 2**31:
            refuse("priority", "priority must lie between -2**31 and 2**31 - 1")
        for salt in (options.cache_salt, fields.get("cache_salt")):
            if salt is not None and (not isinstance(salt, str) or not salt):
                refuse(
                    "cache_salt",
                    "cache_salt must be a string that is not empty; leave it out for none",
                )
            if salt is not None and options.strict and len(salt) > self._limits.cache_salt_chars:
                refuse(
                    "cache_salt",
                    f"cache_salt has {len(salt)} characters; the limit is {self._limits.cache_salt_chars}",
                )

    def _fit_context(self, params: SamplingParams, prompt_len: int, strict: bool) -> None:
        """Gives max_tokens a number that fits behind the prompt; refuses min_tokens that cannot be had."""
        room = self.max_model_len - prompt_len
        if params.min_tokens > room and (strict or params.max_tokens is None):
            refuse(
                "min_tokens",
                f"min_tokens is {params.min_tokens}, but after {prompt_len} prompt tokens only {room} of "
                f"{self.max_model_len} are free; lower it",
            )
        params.min_tokens = min(params.min_tokens, room)
        params.max_tokens = room if params.max_tokens is None else min(params.max_tokens, room)

    def _check_params(self, params: SamplingParams, strict: bool) -> None:
        most = self.vocab_size if self.max_logprobs == -1 else self.max_logprobs
        for name in ("logprobs", "prompt_logprobs"):
            asked = getattr(params, name)
            if asked is not None and (self.vocab_size if asked == -1 else asked) > most:
                refuse(
                    name,
                    f"{name} is {asked}; the limit is {most} (start with --max-logprobs to raise it)",
                )
        if params.stop and self.tokenizer is None:
            refuse(
                "stop",
                "stop strings need a tokenizer, but skip_tokenizer_init is set; use stop_token_ids",
            )
        if self.tokenizer is None:
            params.detokenize = False
        for name in ("logit_bias", "allowed_token_ids", "stop_token_ids", "logprob_token_ids"):
            check_vocabulary(name, getattr(params, name) or (), self.vocab_size)
        if strict:
            check_sizes(params, self._limits)
        if params.bad_words:
            if self.tokenizer is None:
                refuse("bad_words", "bad_words need a tokenizer, but skip_tokenizer_init is set")
            params.update_from_tokenizer(self.tokenizer)
            for ids in params.bad_words_ids:
                check_vocabulary("bad_words", ids, self.vocab_size)

    def _seed(self, params: SamplingParams) -> int:
        """The request's seed, 0 ≤ seed < 2**64."""
        ordinal = next(self._ordinals)
        if params.seed is not None:
            return params.seed % 2**64
        if self._base_seed is None:
            return secrets.randbits(_SEED_BITS)
        digest = hashlib.sha256(f"{self._base_seed}:{ordinal}".encode()).digest()
        return int.from_bytes(digest[:8], "little") >> (64 - _SEED_BITS)


def at_place(error: InvalidRequestError, place: int) -> InvalidRequestError:
    """The same error, saying which of several prompts it is about."""
    return type(error)(f"prompt {place}: {error}", param=error.param)
