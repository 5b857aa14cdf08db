"""Prompts of encoder-decoder models: what the encoder reads, and how the decoder's text begins.

One prompt is the encoder's; {"encoder_prompt": ..., "decoder_prompt": ...} gives both. Limits of the decoder's
part are `frontend.inputs`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.frontend.prompts import PromptReader, read_pair, read_prompt
from quire.frontend.tokenizer import Tokenizer
from quire.models.registry import ModelDescription
from quire.protocol.errors import NotServedError
from quire.protocol.params import SamplingParams
from quire.protocol.request import EncoderInput


class EncoderPrompts:
    """Splits prompts for one model.

    start  tokens with which a decoder's text begins that nobody gives: the first one begins every text.
    """

    def __init__(
        self,
        description: ModelDescription,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        max_model_len: int,
    ) -> None:
        encoder = description.spec.encoder
        if encoder is None or not description.decoder_start:
            raise ValueError(f"{description.architecture} has no encoder")
        self._start = list(description.decoder_start)
        limit = encoder.limit(max_model_len)
        self._encoder = PromptReader(
            tokenizer, vocab_size=vocab_size, max_model_len=limit, reserved=0
        )
        self._decoder = PromptReader(
            tokenizer, vocab_size=vocab_size, max_model_len=max_model_len, cuts="right"
        )

    def split(
        self, prompt: Any, how: Mapping[str, Any] | None, params: SamplingParams
    ) -> tuple[dict[str, Any], EncoderInput]:
        """The decoder's prompt as token ids with what both have in common, and the encoder's part.

        how  tokenization_kwargs, of the encoder's text.
        Raises InvalidRequestError, and TypeError for a prompt of a wrong type.
        """
        whole, given = read_pair(prompt)
        fields = self._fields(whole, "encoder_prompt")
        ids = self._encoder.token_ids(fields, how, params.max_tokens)
        decoder_ids, text = self._begin(given)
        encoder = EncoderInput(token_ids=ids, text=fields.get("prompt"), decoder_text=text)
        common: dict[str, Any] = {"prompt_token_ids": decoder_ids}
        for key in ("cache_salt", "mm_processor_kwargs"):
            if key in fields:
                common[key] = fields[key]
        return common, encoder

    def _begin(self, given: Any) -> tuple[list[int], str | None]:
        """The ids with which the decoder begins, and what was given as text."""
        if given is None:
            return self._start, None
        fields = self._fields(given, "decoder_prompt")
        # Special tokens around it would say that the text is at its end.
        how = {"add_special_tokens": False}
        is_empty = fields.get("prompt") == "" and fields.get("prompt_token_ids") is None
        ids = [] if is_empty else self._decoder.token_ids(fields, how, None)
        if ids[:1] != self._start[:1]:
            ids = self._start[:1] + ids
        return ids, fields.get("prompt")

    @staticmethod
    def _fields(prompt: Any, name: str) -> dict[str, Any]:
        fields = read_prompt(prompt)
        if fields.get("prompt_embeds") is not None:
            raise NotServedError(
                f"{name} must be text or token ids for an encoder-decoder model, not embeddings",
                param=name,
            )
        return fields
