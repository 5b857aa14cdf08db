"""The wire form of /v1/completions: every field a request may have, and checks that need no model.

Sampling ranges are `protocol.params`; how the answer is written is `server.completion_output`.
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


class CompletionRequest(msgspec.Struct, kw_only=True):
    """A request as sent. `prompt` is checked by `read_prompts`; null fields are left out before."""

    INNER: ClassVar[dict[str, type[msgspec.Struct]]] = {"stream_options": StreamOptions}

    model: str | None = None
    prompt: Any = None
    prompt_embeds: Any = None
    max_tokens: int | None = None
    n: int = 1
    best_of: int | None = None
    echo: bool = False
    logprobs: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logit_bias: dict[str, float] | None = None
    suffix: str | None = None
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
    add_special_tokens: bool = True
    structured_outputs: Any = None
    priority: int = 0
    request_id: str | None = None
    session_id: str | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool = False
    cache_salt: str | None = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    vllm_xargs: Any = None
    repetition_detection: Any = None
    thinking_token_budget: int | None = None
    stream_interval: int | None = None


_NOT_SERVED = {
    "prompt_embeds": "prompts given as embeddings are not served; send text or token ids",
    "suffix": "text before a suffix is not served; leave suffix out",
    "use_beam_search": "beam search is not served; use n and best_of",
    "structured_outputs": "output constraints are not served; leave structured_outputs out",
    "kv_transfer_params": "moving cache blocks is not served; leave kv_transfer_params out",
    "ec_transfer_params": "moving encoder outputs is not served; leave ec_transfer_params out",
    "vllm_xargs": "arguments of plug-ins are not served; leave vllm_xargs out",
    "repetition_detection": "repetition detection is not served; leave repetition_detection out",
    "thinking_token_budget": "a budget of thinking tokens is not served; leave it out",
}


def check(request: CompletionRequest, *, max_choices: int) -> None:
    """Refuses what is not served and combinations that make no sense. Raises InvalidRequestError."""
    for name, sentence in _NOT_SERVED.items():
        if getattr(request, name):
            raise NotServedError(sentence, param=name)
    kind = (request.response_format or {}).get("type", "text")
    if kind != "text":
        raise NotServedError(
            f"response_format of type {str(kind)[:32]!r} is not served; leave it out",
            param="response_format",
        )
    for name in ("n", "best_of"):
        value = getattr(request, name)
        if value is not None and not 1 <= value <= max_choices:
            _refuse(
                name, f"{name} is {_short(value)}; it must be at least 1 and at most {max_choices}"
            )
    if request.best_of is not None and request.best_of < request.n:
        _refuse(
            "best_of", f"best_of is {request.best_of}, less than n, which is {request.n}; raise it"
        )
    _check_stream(request)
    _check_output(request)
    for name in ("user", "request_id", "session_id"):
        value = getattr(request, name)
        if value is not None and len(value) > MAX_NAME:
            _refuse(name, f"{name} has {len(value)} characters; the limit is {MAX_NAME}")
    if request.cache_salt is not None and not request.cache_salt.isprintable():
        _refuse("cache_salt", "cache_salt holds a control character; use printable characters")


def _check_stream(request: CompletionRequest) -> None:
    if not request.stream:
        if request.stream_options is not None:
            _refuse(
                "stream_options", "stream_options is only for streams; set stream or leave it out"
            )
        return
    if request.best_of is not None and request.best_of > request.n:
        _refuse(
            "best_of", "the best of several answers cannot be streamed; leave stream or best_of out"
        )
    if request.prompt_logprobs is not None:
        _refuse("prompt_logprobs", "prompt_logprobs cannot be streamed; leave stream or it out")


def _check_output(request: CompletionRequest) -> None:
    if request.logprobs is not None and request.logprobs < 0:
        _refuse("logprobs", f"logprobs is {_short(request.logprobs)}; it must be at least 0")
    if request.max_tokens == 0 and not request.echo:
        _refuse("max_tokens", "max_tokens is 0; it must be at least 1, or echo must be set")
    if len(request.logit_bias or ()) > MAX_BIASES:
        _refuse(
            "logit_bias",
            f"logit_bias has {len(request.logit_bias or ())} entries; the limit is {MAX_BIASES}",
        )
    for token_id, bias in (request.logit_bias or {}).items():
        if not -100.0 <= bias <= 100.0:
            _refuse(
                "logit_bias",
                f"logit_bias[{token_id[:20]}] is {bias:g}; it must be between -100 and 100",
            )
    if request.stop is not None and "" in (
        [request.stop] if isinstance(request.stop, str) else request.stop
    ):
        _refuse("stop", "stop has an empty string; leave it out")


def read_prompts(value: Any, *, max_prompts: int) -> list[str | list[int]]:
    """The prompts of a request: text, token ids, or a list of either. Raises InvalidRequestError."""
    if isinstance(value, str):
        return [value]
    if value is None:
        _refuse("prompt", "prompt is missing; send text, token ids, or a list of either")
    if not isinstance(value, list):
        _refuse(
            "prompt", f"prompt is {_kind(value)}; it must be text, token ids, or a list of either"
        )
    if not value:
        _refuse("prompt", "prompt is an empty list; send at least one prompt")
    if isinstance(value[0], int):
        return [_token_ids(value, "prompt")]
    if len(value) > max_prompts:
        _refuse("prompt", f"prompt has {len(value)} entries; the limit is {max_prompts}")
    if isinstance(value[0], str):
        for place, one in enumerate(value):
            if not isinstance(one, str):
                _refuse(
                    "prompt", f"prompt[{place}] is {_kind(one)}, but prompt[0] is text; do not mix"
                )
        return list(value)
    found: list[str | list[int]] = []
    for place, one in enumerate(value):
        if not isinstance(one, list):
            _refuse(
                "prompt", f"prompt[{place}] is {_kind(one)}; it must be text or a list of token ids"
            )
        found.append(_token_ids(one, f"prompt[{place}]"))
    return found


def _token_ids(values: list[Any], place: str) -> list[int]:
    if not values:
        _refuse("prompt", f"{place} is an empty list; send at least one token id")
    for index, one in enumerate(values):
        if type(one) is not int:
            _refuse("prompt", f"{place}[{index}] is {_kind(one)}; it must be a token id")
        if not 0 <= one < 2**31:
            _refuse(
                "prompt", f"{place}[{index}] is {_short(one)}; it must be a token id of the model"
            )
    return values


def _kind(value: Any) -> str:
    names = {bool: "true or false", str: "a string", float: "a fraction", int: "a number"}
    names |= {dict: "an object", list: "a list", type(None): "null"}
    return names.get(type(value), "something else")


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**20 else f"a number of {value.bit_length()} bits"


def _refuse(param: str, message: str) -> NoReturn:
    raise InvalidRequestError(message, param=param)
