"""The wire form of the way back from token ids to an answer: the derender routes.

What goes the other way is `server.schema.inference`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quire.protocol.errors import InvalidRequestError
from quire.server.schema.sampling import kind_of, refuse


class GeneratedChoice(msgspec.Struct, kw_only=True):
    """A choice of /inference/v1/generate, as it came."""

    index: int = 0
    token_ids: list[int] = []
    logprobs: dict[str, Any] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    seed: int | None = None


class Generated(msgspec.Struct, kw_only=True):
    """An answer of /inference/v1/generate, or one piece of its stream."""

    request_id: str = ""
    model: str | None = None
    created: int = 0
    choices: list[GeneratedChoice] = []
    usage: dict[str, Any] | None = None


class ChatDerenderRequest(msgspec.Struct, kw_only=True):
    """What came for a chat request. `stream_state` is what the last piece's answer said."""

    stream: bool = False
    model: str | None = None
    generate_response: Any = None
    prompt_tokens: int | None = None
    chat_request: dict[str, Any] | None = None
    stream_state: Any = None


class CompletionDerenderRequest(msgspec.Struct, kw_only=True):
    """What came for a completions request: one answer for each of its prompts, in order."""

    stream: bool = False
    model: str | None = None
    generate_response: Any = None
    generate_responses: Any = None
    prompt_tokens: int | None = None
    completion_request: dict[str, Any] | None = None
    stream_state: Any = None


def read_generated(value: Any, name: str, *, vocab_size: int) -> Generated:
    """One answer. Raises InvalidRequestError."""
    if not isinstance(value, dict):
        refuse(name, f"{name} is {kind_of(value)}; send what /inference/v1/generate answered")
    try:
        found = msgspec.convert(value, Generated)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(f"{name}: {str(error).replace('`', '')}", param=name) from None
    indices = [choice.index for choice in found.choices]
    if len(set(indices)) != len(indices) or any(not 0 <= one < 16384 for one in indices):
        refuse(name, f"{name} has choices whose indices are equal or out of range")
    for choice in found.choices:
        for one in choice.token_ids:
            if not 0 <= one < vocab_size:
                refuse(name, f"{name} has a token id that is not between 0 and {vocab_size - 1}")
    return found
