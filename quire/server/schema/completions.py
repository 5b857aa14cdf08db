"""The wire form of /v1/completions: every field a request may have, and checks that need no model.

Fields shared with chat are `server.schema.sampling`; the answer's form is `server.completion_output`.
"""

from __future__ import annotations

from typing import Any

from quire.server.schema.sampling import (
    SamplingFields,
    check_choices,
    check_sampling,
    kind_of,
    refuse,
    refuse_not_served,
    short,
)


class CompletionRequest(SamplingFields, kw_only=True):
    """A request as sent. `prompt` is checked by `read_prompts`; null fields are left out before."""

    prompt: Any = None
    prompt_embeds: Any = None
    max_tokens: int | None = None
    best_of: int | None = None
    echo: bool = False
    logprobs: int | None = None
    suffix: str | None = None
    add_special_tokens: bool = True


Prompt = str | list[int] | dict[str, str]
"""Text, token ids, or {"prompt_embeds": a file as base64}."""

_NOT_SERVED = {
    "suffix": "text before a suffix is not served; leave suffix out",
}


def check(request: CompletionRequest, *, max_choices: int) -> None:
    """Refuses what is not served and combinations that make no sense. Raises InvalidRequestError."""
    refuse_not_served(request, _NOT_SERVED)
    check_sampling(request, max_choices=max_choices)
    check_choices("best_of", request.best_of, max_choices)
    if request.best_of is not None and request.best_of < request.n:
        refuse(
            "best_of", f"best_of is {request.best_of}, less than n, which is {request.n}; raise it"
        )
    if request.stream and request.best_of is not None and request.best_of > request.n:
        refuse(
            "best_of", "the best of several answers cannot be streamed; leave stream or best_of out"
        )
    if request.logprobs is not None and request.logprobs < 0:
        refuse("logprobs", f"logprobs is {short(request.logprobs)}; it must be at least 0")
    if request.max_tokens == 0 and not request.echo:
        refuse("max_tokens", "max_tokens is 0; it must be at least 1, or echo must be set")


def prompts_of(request: CompletionRequest, *, max_prompts: int) -> list[Prompt]:
    """Prompts given as embeddings, then the others. Raises InvalidRequestError.

    max_prompts  how many there may be; with several choices for each, how many answers in all.
    """
    found = _all_prompts(request, max_prompts)
    choices = max(request.n, request.best_of or 1)
    if len(found) > 1 and len(found) * choices > max_prompts:
        refuse(
            "prompt",
            f"prompt has {len(found)} entries with {choices} choices each; the limit is {max_prompts} answers "
            "of one request; send fewer at a time, or start with a larger --max-num-prompts",
        )
    return found


def _all_prompts(request: CompletionRequest, max_prompts: int) -> list[Prompt]:
    embeds = request.prompt_embeds
    if embeds is None:
        return list(read_prompts(request.prompt, max_prompts=max_prompts))
    files = embeds if isinstance(embeds, list) else [embeds]
    for place, one in enumerate(files):
        if not isinstance(one, str) or not one:
            refuse(
                "prompt_embeds",
                f"prompt_embeds[{place}] is {kind_of(one)}; it must be a safetensors or .npy file as base64",
            )
    if not files or len(files) > max_prompts:
        refuse("prompt_embeds", f"prompt_embeds has {len(files)} entries; send 1 to {max_prompts}")
    if request.echo or request.prompt_logprobs is not None:
        refuse(
            "prompt_embeds",
            "echo and prompt_logprobs need token ids, which prompt_embeds do not have; leave them out",
        )
    found: list[Prompt] = [{"prompt_embeds": one} for one in files]
    if request.prompt:  # clients that must send a prompt send an empty one beside embeddings
        found += read_prompts(request.prompt, max_prompts=max_prompts - len(files))
    return found


def read_prompts(value: Any, *, max_prompts: int) -> list[str | list[int]]:
    """The prompts of a request: text, token ids, or a list of either. Raises InvalidRequestError."""
    if isinstance(value, str):
        return [value]
    if value is None:
        refuse("prompt", "prompt is missing; send text, token ids, or a list of either")
    if not isinstance(value, list):
        refuse(
            "prompt", f"prompt is {kind_of(value)}; it must be text, token ids, or a list of either"
        )
    if not value:
        refuse("prompt", "prompt is an empty list; send at least one prompt")
    if isinstance(value[0], int):
        return [_token_ids(value, "prompt")]
    if len(value) > max_prompts:
        refuse("prompt", f"prompt has {len(value)} entries; the limit is {max_prompts}")
    if isinstance(value[0], str):
        for place, one in enumerate(value):
            if not isinstance(one, str):
                refuse(
                    "prompt",
                    f"prompt[{place}] is {kind_of(one)}, but prompt[0] is text; do not mix",
                )
        return list(value)
    found: list[str | list[int]] = []
    for place, one in enumerate(value):
        if not isinstance(one, list):
            refuse(
                "prompt",
                f"prompt[{place}] is {kind_of(one)}; it must be text or a list of token ids",
            )
        found.append(_token_ids(one, f"prompt[{place}]"))
    return found


def _token_ids(values: list[Any], place: str) -> list[int]:
    if not values:
        refuse("prompt", f"{place} is an empty list; send at least one token id")
    for index, one in enumerate(values):
        if type(one) is not int:
            refuse("prompt", f"{place}[{index}] is {kind_of(one)}; it must be a token id")
        if not 0 <= one < 2**31:
            refuse(
                "prompt", f"{place}[{index}] is {short(one)}; it must be a token id of the model"
            )
    return values
