"""The fields that both text endpoints know, and checks of them that need no model.

Sampling ranges are `protocol.params`; the fields of one endpoint are in its own file.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import msgspec

from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.server.schema.common import StreamOptions

MAX_NAME = 256
"""Characters of `user` and `request_id`."""
MAX_BIASES = 1024
"""Entries of `logit_bias`."""


class SamplingFields(msgspec.Struct, kw_only=True):
    """Fields as sent; null fields are left out before."""

    INNER: ClassVar[dict[str, type[msgspec.Struct]]] = {"stream_options": StreamOptions}

    model: str | None = None
    n: int = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    response_format: dict[str, Any] | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    length_penalty: float = 1.0
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    truncation_side: str | None = None
    allowed_token_ids: list[int] | None = None
    prompt_logprobs: int | None = None
    bad_words: list[str] | None = None
    logprob_token_ids: list[int] | None = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_json_object: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    guided_whitespace_pattern: Any = None
    guided_decoding_backend: Any = None
    priority: int = 0
    request_id: str | None = None
    session_id: str | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool = False
    cache_salt: str | None = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    vllm_xargs: dict[str, Any] | None = None
    repetition_detection: Any = None
    thinking_token_budget: int | None = None
    stream_interval: int | None = None


_NOT_SERVED = {
    "use_beam_search": "beam search is not served; use n and best_of",
    "kv_transfer_params": "moving cache blocks is not served; leave kv_transfer_params out",
    "ec_transfer_params": "moving encoder outputs is not served; leave ec_transfer_params out",
    "repetition_detection": "repetition detection is not served; leave repetition_detection out",
}


def check_sampling(request: SamplingFields, *, max_choices: int) -> None:
    """Refuses what is not served and combinations that make no sense. Raises InvalidRequestError."""
    refuse_not_served(request, _NOT_SERVED)
    check_choices("n", request.n, max_choices)
    if request.stream and request.prompt_logprobs is not None:
        refuse("prompt_logprobs", "prompt_logprobs cannot be streamed; leave stream or it out")
    shows = getattr(request, "logprobs", None)  # a number in completions, a truth value in chats
    if request.logprob_token_ids is not None and (shows is None or shows is False):
        refuse("logprob_token_ids", "logprob_token_ids need logprobs; set it, or leave them out")
    if not request.stream and request.stream_options is not None:
        refuse("stream_options", "stream_options is only for streams; set stream or leave it out")
    _check_biases(request.logit_bias or {})
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    if stop is not None and "" in stop:
        refuse("stop", "stop has an empty string; leave it out")
    for name in ("user", "request_id", "session_id"):
        value = getattr(request, name)
        if value is not None and len(value) > MAX_NAME:
            refuse(name, f"{name} has {len(value)} characters; the limit is {MAX_NAME}")
    if request.cache_salt is not None and not request.cache_salt.isprintable():
        refuse("cache_salt", "cache_salt holds a control character; use printable characters")


def refuse_not_served(request: SamplingFields, sentences: dict[str, str]) -> None:
    """Raises NotServedError for a field of `sentences` that is set."""
    for name, sentence in sentences.items():
        if getattr(request, name):
            raise NotServedError(sentence, param=name)


def check_choices(name: str, value: int | None, most: int) -> None:
    """Refuses a number of choices that is not between 1 and `most`."""
    if value is not None and not 1 <= value <= most:
        refuse(name, f"{name} is {short(value)}; it must be at least 1 and at most {most}")


def _check_biases(biases: dict[str, float]) -> None:
    if len(biases) > MAX_BIASES:
        refuse("logit_bias", f"logit_bias has {len(biases)} entries; the limit is {MAX_BIASES}")
    for token_id, bias in biases.items():
        if not -100.0 <= bias <= 100.0:
            refuse(
                "logit_bias",
                f"logit_bias[{token_id[:20]}] is {bias:g}; it must be between -100 and 100",
            )


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {bool: "true or false", str: "a string", float: "a fraction", int: "a number"}
    names |= {dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value), "something else")


def short(value: int) -> str:
    """A number as a message shows it."""
    return str(value) if abs(value) < 10**20 else f"a number of {value.bit_length()} bits"


def refuse(param: str, message: str) -> NoReturn:
    """Raises InvalidRequestError for the field `param`."""
    raise InvalidRequestError(message, param=param)
