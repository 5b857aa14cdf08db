"""The forms a prompt may take in the Python interface.

Leaves turning them into token ids, and refusing the forms that are not served, to `frontend.inputs`.
"""

from __future__ import annotations

from typing import Any, TypedDict


class _CommonKeys(TypedDict, total=False):
    """Keys that every form may have. `cache_salt` keeps a prefix from being shared with other salts."""

    multi_modal_data: dict[str, Any] | None
    mm_processor_kwargs: dict[str, Any] | None
    multi_modal_uuids: dict[str, Any] | None
    cache_salt: str | None


class _Text(TypedDict):
    prompt: str


class TextPrompt(_Text, _CommonKeys):
    """A prompt as text."""


class _Tokens(TypedDict):
    prompt_token_ids: list[int]


class TokensPrompt(_Tokens, _CommonKeys, total=False):
    """A prompt as token ids, 0 ≤ id < V; `prompt` is text to be given back with the answer, not read."""

    prompt: str
    token_type_ids: list[int] | None


class _Embeds(TypedDict):
    prompt_embeds: Any


class EmbedsPrompt(_Embeds, _CommonKeys, total=False):
    """A prompt as embeddings [T, hidden], float32, float16 or bfloat16: a tensor, an array, or a file's bytes.

    `prompt` is text to be given back. With `prompt_token_ids` [T] and the mask `prompt_is_token_ids` [T],
    ids whose mask is true stand for themselves.
    """

    prompt: str
    prompt_token_ids: list[int]
    prompt_is_token_ids: list[bool]


PromptType = str | list[int] | TextPrompt | TokensPrompt | EmbedsPrompt
