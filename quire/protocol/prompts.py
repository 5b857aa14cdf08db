"""The forms a prompt may take in the Python interface.

Leaves turning them into token ids, and refusing the forms that are not served, to `frontend.inputs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any, TypedDict

from quire.protocol.errors import NotServedError


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


SingletonPrompt = str | list[int] | TextPrompt | TokensPrompt | EmbedsPrompt


class ExplicitEncoderDecoderPrompt(TypedDict):
    """Both prompts of an encoder-decoder model; without a `decoder_prompt` the text begins as the model's do."""

    encoder_prompt: SingletonPrompt
    decoder_prompt: SingletonPrompt | None


PromptType = SingletonPrompt | ExplicitEncoderDecoderPrompt


def build_explicit_enc_dec_prompt(
    encoder_prompt: SingletonPrompt,
    decoder_prompt: SingletonPrompt | None,
    mm_processor_kwargs: Mapping[str, Any] | None = None,
) -> ExplicitEncoderDecoderPrompt:
    """Both prompts in one; options of media processing, which is not served, must be empty."""
    if mm_processor_kwargs:
        raise NotServedError(
            "images, audio and video are not served; leave mm_processor_kwargs out",
            param="mm_processor_kwargs",
        )
    return {"encoder_prompt": encoder_prompt, "decoder_prompt": decoder_prompt}


def zip_enc_dec_prompts(
    enc_prompts: Iterable[SingletonPrompt],
    dec_prompts: Iterable[SingletonPrompt | None],
    mm_processor_kwargs: Iterable[Mapping[str, Any]] | Mapping[str, Any] | None = None,
) -> list[ExplicitEncoderDecoderPrompt]:
    """The prompts pairwise, as many as the shorter one has; options for all, or for each."""
    if mm_processor_kwargs is None or isinstance(mm_processor_kwargs, Mapping):
        mm_processor_kwargs = repeat(mm_processor_kwargs or {})
    return [
        build_explicit_enc_dec_prompt(encoder, decoder, options)
        for encoder, decoder, options in zip(
            enc_prompts, dec_prompts, mm_processor_kwargs, strict=False
        )
    ]


def to_enc_dec_tuple_list(
    enc_dec_prompts: Iterable[ExplicitEncoderDecoderPrompt],
) -> list[tuple[SingletonPrompt, SingletonPrompt | None]]:
    """(encoder's prompt, decoder's prompt) of each."""
    return [(one["encoder_prompt"], one["decoder_prompt"]) for one in enc_dec_prompts]
