"""Wire types that several endpoints share.

Which endpoint uses them is said in its own schema.
"""

from __future__ import annotations

import msgspec


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


def usage_of(prompt: int, completion: int, cached: int | None) -> Usage:
    """The usage object; `cached` None leaves the details out."""
    details = None if cached is None else {"cached_tokens": cached}
    return Usage(
        prompt_tokens=prompt,
        total_tokens=prompt + completion,
        completion_tokens=completion,
        prompt_tokens_details=details,
    )
