"""From the fields of a completions request to sampling params and jobs for the engine.

The fields are `server.schema.completions`; ranges are checked where SamplingParams is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.server.generation import Job
from quire.server.schema.completions import CompletionRequest, Prompt
from quire.server.schema.constraints import constraint_in
from quire.server.schema.sampling import SamplingFields

DEFAULT_MAX_TOKENS = 16
_FROM_MODEL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_AS_SENT = (
    "frequency_penalty", "presence_penalty", "seed", "stop", "stop_token_ids", "ignore_eos",
    "min_tokens", "include_stop_str_in_output", "skip_special_tokens",
    "spaces_between_special_tokens", "logit_bias", "allowed_token_ids", "bad_words",
    "logprob_token_ids", "stream_interval", "thinking_token_budget",
)  # fmt: skip


def common_fields(request: SamplingFields, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of SamplingParams that both text endpoints know, defaults filled in."""
    fields: dict[str, Any] = {name: getattr(request, name) for name in _AS_SENT}
    for name in _FROM_MODEL:
        given = getattr(request, name)
        fields[name] = defaults.get(name) if given is None else given
    fields["extra_args"] = request.vllm_xargs or None
    return fields


def tokenization_kwargs(request: SamplingFields) -> dict[str, Any]:
    """How a prompt is to be cut, as the engine takes it."""
    how: dict[str, Any] = {}
    if request.truncate_prompt_tokens is not None:
        how["truncate_prompt_tokens"] = request.truncate_prompt_tokens
    if request.truncation_side is not None:
        how["truncation_side"] = request.truncation_side
    return how


def sampling_params(request: CompletionRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """What the engine is asked for. Raises InvalidRequestError.

    defaults  fields that the model's generation config sets; its max_tokens caps every request.
    """
    wanted = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    if request.max_tokens == 0:
        wanted = 1  # the prompt is scored by a step that also samples; what it samples is dropped
    cap = defaults.get("max_tokens")
    best_of = request.best_of or request.n
    logprobs = request.logprobs
    if logprobs is None and best_of > request.n:
        logprobs = 0  # the best are chosen by their log-probability
    prompt_logprobs = request.prompt_logprobs
    if prompt_logprobs is None and request.echo:
        prompt_logprobs = request.logprobs
    return SamplingParams.from_optional(
        **common_fields(request, defaults),
        n=best_of,
        max_tokens=wanted if cap is None else min(wanted, cap),
        logprobs=logprobs if request.logprob_token_ids is None else None,
        prompt_logprobs=prompt_logprobs,
        structured_outputs=constraint_in(request),
        output_kind=RequestOutputKind.DELTA,
    )


def jobs_of(
    request: CompletionRequest,
    prompts: list[Prompt],
    params: SamplingParams,
    request_id: str,
    priority: int,
) -> list[Job]:
    """One job for each prompt, called `{request_id}-{place}`."""
    how = tokenization_kwargs(request)
    if not request.add_special_tokens:
        how["add_special_tokens"] = False
    return [
        Job(
            prompt=prompt,
            params=params,
            request_id=f"{request_id}-{place}",
            max_tokens_given=request.max_tokens is not None,
            priority=priority,
            cache_salt=request.cache_salt,
            tokenization_kwargs=how or None,
        )
        for place, prompt in enumerate(prompts)
    ]
