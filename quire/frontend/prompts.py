"""What a prompt is: its forms, its token ids, truncation, and whether it fits in the context.

Leaves everything else about a request to `frontend.inputs`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

from quire.frontend.tokenizer import Tokenizer
from quire.protocol.checks import refuse, shown
from quire.protocol.errors import NotServedError
from quire.protocol.request import TensorRef

_TOKENIZATION_KEYS = ("add_special_tokens", "truncate_prompt_tokens", "truncation_side")
_PROMPT_KEYS = frozenset(
    {"prompt", "prompt_token_ids", "cache_salt", "mm_processor_kwargs", "prompt_pair"}
    | {"prompt_embeds", "prompt_is_token_ids"}
)
_PAIR_KEYS = ("encoder_prompt", "decoder_prompt")
_NOT_SERVED_KEYS = {
    "encoder_prompt": "this model has no encoder; send one prompt of text or token ids",
    "decoder_prompt": "this model has no encoder; send one prompt of text or token ids",
    "data": "prompts for an IO processor are not served; send text or token ids",
    "multi_modal_data": "images, audio and video are not served; send text or token ids",
    "multi_modal_uuids": "images, audio and video are not served; send text or token ids",
    "token_type_ids": "token type ids belong to cross-encoders, which are not served; leave them out",
}


def read_prompt(prompt: Any) -> dict[str, Any]:
    """The prompt in its dictionary form; checks its form and keys, and tokenises nothing."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if isinstance(prompt, (list, tuple)):
        return {"prompt_token_ids": prompt}
    if not isinstance(prompt, Mapping):
        raise TypeError(
            f"a prompt is a string, a list of token ids or a dictionary, not {type(prompt).__name__}"
        )
    for key, sentence in _NOT_SERVED_KEYS.items():
        if prompt.get(key):
            raise NotServedError(sentence, param=key)
    unknown = [key for key in prompt if key not in _PROMPT_KEYS and key not in _NOT_SERVED_KEYS]
    if unknown:
        refuse(
            "prompt",
            f"the prompt has an unknown key {unknown[0]!r}; use prompt or prompt_token_ids",
        )
    text: Any = prompt.get("prompt")
    ids: Any = prompt.get("prompt_token_ids")
    if text is None and ids is None and prompt.get("prompt_embeds") is None:
        refuse("prompt", "the prompt has neither text (prompt) nor token ids (prompt_token_ids)")
    if text is not None and not isinstance(text, str):
        refuse("prompt", f"prompt must be text, not {type(text).__name__}")
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    pair: Any = prompt.get("prompt_pair")
    if pair is not None and not (isinstance(pair, str) and isinstance(text, str)):
        refuse("prompt", "prompt_pair is the second of two texts; give it as text, beside prompt")
    if ids is not None and (isinstance(ids, (str, bytes)) or not isinstance(ids, Sequence)):
        refuse("prompt", f"prompt_token_ids must be a list of integers, not {type(ids).__name__}")
    return dict(prompt, prompt_token_ids=ids)


def read_pair(prompt: Any) -> tuple[Any, Any]:
    """The encoder's prompt and the decoder's, which may be None; one prompt alone is the encoder's.

    Raises InvalidRequestError for a pair of a wrong form; what is inside is not looked at.
    """
    if not isinstance(prompt, Mapping) or not any(key in prompt for key in _PAIR_KEYS):
        return prompt, None
    others = [key for key in prompt if key not in _PAIR_KEYS]
    if others:
        refuse("prompt", f"a prompt with encoder_prompt has {others[0]!r} too; leave it out")
    if prompt.get("encoder_prompt") is None:
        refuse("encoder_prompt", "the prompt has no encoder_prompt, which the encoder reads")
    return prompt["encoder_prompt"], prompt.get("decoder_prompt")


def prompt_text(prompt: Any) -> str | None:
    """The text of a prompt, where it has one."""
    if isinstance(prompt, str):
        return prompt
    return prompt.get("prompt") if isinstance(prompt, Mapping) else None


def chars_to_read(prompt: Any) -> int:
    """Characters of a prompt's text, or of the file of its embeddings: what reading it takes grows with them."""
    if isinstance(prompt, str):
        return len(prompt)
    if not isinstance(prompt, Mapping):
        return 0
    found = (prompt.get("prompt"), prompt.get("prompt_embeds"))
    own = sum(len(one) for one in found if isinstance(one, (str, bytes)))
    return own + sum(chars_to_read(prompt[key]) for key in _PAIR_KEYS if key in prompt)


class PromptReader:
    """Makes token ids of prompts for one model; its arguments are those of `InputProcessor`.

    embeds_size  width of a row of prompt_embeds; None where they are not taken.
    reserved     tokens of the context that a prompt must leave free.
    cuts         the side that truncation cuts unless a request says otherwise: left or right.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        max_model_len: int,
        embeds_size: int | None = None,
        reserved: int = 1,
        cuts: str = "left",
    ) -> None:
        self.reserved = reserved
        self._cuts = cuts
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.max_model_len = max_model_len
        self._embeds_size = embeds_size

    def embedded(
        self, fields: dict[str, Any], how: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], TensorRef | None, tuple[int, ...]]:
        """The fields with ids in the place of prompt_embeds, the rows, and the positions they replace.

        Without prompt_embeds there are no rows. Raises InvalidRequestError.
        """
        value = fields.get("prompt_embeds")
        if value is None:
            return fields, None, ()
        if self._embeds_size is None:
            raise NotServedError(
                "prompts as embeddings are not served; start with --enable-prompt-embeds, or send text",
                param="prompt_embeds",
            )
        if (how or {}).get("truncate_prompt_tokens") is not None:
            refuse("truncate_prompt_tokens", "prompt_embeds cannot be truncated; send fewer rows")
        # numpy, which the front needs for nothing else, takes 0.1 s to import
        embeds = importlib.import_module("quire.frontend.embeds")
        rows = embeds.read_embeds(
            value, hidden_size=self._embeds_size, max_rows=self.max_model_len - 1
        )
        ids, places = embeds.placeholders(fields, len(rows))
        tensor = embeds.tensor_of(rows[list(places)]) if places else None
        return dict(fields, prompt_token_ids=ids), tensor, places

    def token_ids(
        self, fields: Mapping[str, Any], how: Mapping[str, Any] | None, max_tokens: int | None
    ) -> list[int]:
        """The ids of a prompt from `read_prompt`: at least one, and `reserved` fewer than max_model_len.

        how         tokenization_kwargs: add_special_tokens, truncate_prompt_tokens, truncation_side.
        max_tokens  for truncation to what the context has room for.
        Raises InvalidRequestError.
        """
        how = how or {}
        if fields.get("prompt_pair") is not None:
            refuse("prompt", "pairs of texts are for pooling requests; send one text")
        keep, side = self.truncation(how, max_tokens)
        given = fields.get("prompt_token_ids")
        special = how.get("add_special_tokens") is not False
        if given is not None:
            ids = self._checked_ids(given)
            special = False
        else:
            limit = self.max_model_len - self.reserved
            ids = self._encode(fields["prompt"], special, None if keep else limit)
        if keep is not None and len(ids) > keep:
            ids = truncated(ids, keep, side, self.tokenizer if special else None)
        self.check_length(ids)
        return ids

    def check_length(self, ids: Sequence[int]) -> None:
        """Raises InvalidRequestError for no ids, or more than a prompt may have."""
        if not ids:
            refuse("prompt", "the prompt is empty; give at least one token")
        if len(ids) > self.max_model_len - self.reserved:
            free = " and at least one must be free" if self.reserved else ""
            refuse(
                "prompt",
                # Agents shorten their history, and gateways go on, where they read either phrase.
                f"prompt is too long: it has {len(ids)} prompt tokens, but the limit is "
                f"{self.max_model_len - self.reserved}; this model's maximum context length is "
                f"{self.max_model_len} tokens{free}; shorten it, or set truncate_prompt_tokens",
            )

    def truncation(self, how: Mapping[str, Any], max_tokens: int | None) -> tuple[int | None, str]:
        """Tokens to keep, None for all, and the side that is cut. Raises InvalidRequestError."""
        for key in how:
            if key not in _TOKENIZATION_KEYS:
                refuse(
                    key,
                    f"tokenization_kwargs has {key!r}; known keys: {', '.join(_TOKENIZATION_KEYS)}",
                )
        side = how.get("truncation_side") or self._cuts
        if side not in ("left", "right"):
            refuse("truncation_side", f"truncation_side is {side!r}; it must be left or right")
        return self._tokens_to_keep(how.get("truncate_prompt_tokens"), max_tokens), side

    def _tokens_to_keep(self, keep: Any, max_tokens: int | None) -> int | None:
        """Tokens that truncation leaves, or None for no truncation; -1 leaves what the context has room for."""
        if keep is None:
            return None
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < -1 or keep == 0:
            refuse(
                "truncate_prompt_tokens",
                f"truncate_prompt_tokens is {keep!r}; it must be -1 or at least 1",
            )
        if keep > self.max_model_len:
            refuse(
                "truncate_prompt_tokens",
                f"truncate_prompt_tokens is {keep}, but the context holds {self.max_model_len} tokens; use less",
            )
        if keep != -1:
            return int(keep)
        return max(1, self.max_model_len - (max_tokens or self.reserved))

    def _encode(self, text: str, special: bool, limit: int | None) -> list[int]:
        if self.tokenizer is None:
            refuse("prompt", "there is no tokenizer (skip_tokenizer_init); send token ids")
        if limit is not None:
            self.tokenizer.refuse_too_long(text, limit)
        ids = self.tokenizer.encode(text, special)
        if ids and max(ids) >= self.vocab_size:
            refuse(
                "prompt",
                f"the tokenizer made the id {max(ids)}, but the model has {self.vocab_size} tokens; use the "
                "tokenizer that belongs to the model",
            )
        return ids

    def _checked_ids(self, given: Sequence[Any]) -> list[int]:
        ids = list(given)
        if not all(type(one) is int for one in ids):
            try:
                if any(isinstance(one, bool) for one in ids):
                    raise TypeError
                ids = [index(one) for one in ids]
            except TypeError:
                refuse("prompt", "prompt token ids must all be integers")
        if ids and (min(ids) < 0 or max(ids) >= self.vocab_size):
            place = next(p for p, one in enumerate(ids) if not 0 <= one < self.vocab_size)
            refuse(
                "prompt",
                f"prompt token {place} is {shown(ids[place])}; ids must lie between 0 and {self.vocab_size - 1}",
            )
        return ids


def truncated(ids: list[int], keep: int, side: str, tokenizer: Tokenizer | None) -> list[int]:
    """`keep` of the ids: the last ones, or the first for side "right".

    With a tokenizer, the special tokens that it puts around a text are kept and counted.
    """
    before, after = (0, 0) if tokenizer is None else tokenizer.special_tokens_around
    room = keep - before - after
    if room <= 0:
        before, after, room = 0, 0, keep
    inside = ids[before : len(ids) - after]
    kept = inside[:room] if side == "right" else inside[-room:]
    return ids[:before] + kept + ids[len(ids) - after :]
