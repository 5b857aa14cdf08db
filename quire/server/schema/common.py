"""Wire types that several endpoints share.

Which endpoint uses them is said in its own schema.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quire.protocol.results import RequestOutput


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream reports beside text; `continuous_usage_stats` acts only with `include_usage`."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Usage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Tokens of a request over all its prompts and choices."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None


def num_prompt_tokens(output: RequestOutput) -> int:
    """Tokens of its prompt; with one that an encoder reads, of both."""
    return len(output.prompt_token_ids or ()) + len(output.encoder_prompt_token_ids or ())


def usage_of(
    prompt: int, completion: int, cached: int | None, reasoning: int | None = None
) -> Usage:
    """The usage object; `cached` or `reasoning` None leaves the details out."""
    return Usage(
        prompt_tokens=prompt,
        total_tokens=prompt + completion,
        completion_tokens=completion,
        prompt_tokens_details=None if cached is None else {"cached_tokens": cached},
        completion_tokens_details=None if reasoning is None else {"reasoning_tokens": reasoning},
    )


def sum_of(usages: Sequence[Usage]) -> Usage:
    """The usage of several requests together; details where the first has them."""

    def together(name: str) -> dict[str, int] | None:
        parts = [getattr(one, name) for one in usages]
        if parts[0] is None:
            return None
        return {key: sum(part[key] for part in parts) for key in parts[0]}

    return Usage(
        prompt_tokens=sum(one.prompt_tokens for one in usages),
        total_tokens=sum(one.total_tokens for one in usages),
        completion_tokens=sum(one.completion_tokens for one in usages),
        prompt_tokens_details=together("prompt_tokens_details"),
        completion_tokens_details=together("completion_tokens_details"),
    )
