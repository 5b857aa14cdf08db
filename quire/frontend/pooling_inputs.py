"""Checks of pooling requests against what the model pools, and their token ids, pairs of texts too.

What all requests have in common is `frontend.inputs`; fields alone are checked in `protocol.pooling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from quire.frontend.prompts import PromptReader
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.checks import refuse, shown
from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.params import PoolingParams
from quire.protocol.pooler import Pooler

_MAX_EMBED_LEN = 3_072_000  # tokens of a text that is embedded in pieces, if nothing else is said


class PoolingInputs:
    """The pooling side of one model's front. Safe in several threads.

    pooler  None for a model that generates: every request is refused.
    """

    def __init__(
        self,
        pooler: Pooler | None,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        max_model_len: int,
    ) -> None:
        self.pooler = pooler
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._prompts = PromptReader(
            tokenizer, vocab_size=vocab_size, max_model_len=max_model_len, reserved=0, cuts="right"
        )

    def refuse_generation(self) -> None:
        """Raises InvalidRequestError if the model gives no text."""
        if self.pooler is not None:
            raise InvalidRequestError(
                f"this model does not generate text; it serves {', '.join(self.pooler.tasks)}: use "
                "/v1/embeddings, /pooling, /classify or /score, or PoolingParams"
            )

    def own_params(self, params: PoolingParams) -> PoolingParams:
        """A checked copy with its task filled in. Raises InvalidRequestError."""
        if self.pooler is None:
            raise NotServedError(
                "this model generates text, and no pooling is served; start with --runner pooling, and "
                "--convert embed or classify",
                param="task",
            )
        pooler = self.pooler
        own = msgspec.structs.replace(params)
        own.task = own.task or pooler.tasks[0]
        if own.task not in pooler.tasks:
            advice = "; --convert embed makes embeddings of it" if own.task == "embed" else ""
            refuse(
                "task",
                f"task is {own.task!r}, but this model serves {', '.join(pooler.tasks)} only{advice}",
            )
        self._check_dimensions(pooler, own)
        self._check_classes(pooler, own)
        if pooler.reads_whole_prompt(own.task):
            own.skip_reading_prefix_cache = True
        return own

    @staticmethod
    def _check_dimensions(pooler: Pooler, params: PoolingParams) -> None:
        wanted = params.dimensions
        if wanted is None:
            return
        if params.task not in ("embed", "token_embed"):
            refuse("dimensions", f"dimensions are of embeddings; leave them out for {params.task}")
        if pooler.matryoshka is None:
            refuse(
                "dimensions",
                f"dimensions is {shown(wanted)}, but this model was not trained for shorter embeddings than its "
                f"{pooler.width}; leave it out, or start with --hf-overrides '{{\"is_matryoshka\": true}}'",
            )
        if wanted > pooler.width:
            refuse(
                "dimensions",
                f"dimensions is {shown(wanted)}, but embeddings of this model have {pooler.width}",
            )
        if pooler.matryoshka and wanted not in pooler.matryoshka:
            refuse(
                "dimensions",
                f"dimensions is {shown(wanted)}; this model was trained for {list(pooler.matryoshka)}",
            )

    @staticmethod
    def _check_classes(pooler: Pooler, params: PoolingParams) -> None:
        for one in params.returned_token_ids or ():
            if not 0 <= one < len(pooler.labels):
                refuse(
                    "returned_token_ids",
                    f"returned_token_ids has {shown(one)}; it must be below {len(pooler.labels)}, the number of "
                    "classes",
                )

    def token_ids(
        self, fields: Mapping[str, Any], how: Mapping[str, Any] | None
    ) -> tuple[list[int], int | None]:
        """The ids of a prompt from `read_prompt`, and where a second text begins. Raises InvalidRequestError."""
        if fields.get("prompt_embeds") is not None:
            raise NotServedError("prompt_embeds cannot be pooled; send text", param="prompt_embeds")
        if fields.get("prompt_pair") is None:
            ids = self._prompts.token_ids(fields, how, None)
            self._check_instruction(ids)
            return ids, None
        if self._tokenizer is None:
            refuse("prompt", "pairs of texts need a tokenizer, but skip_tokenizer_init is set")
        return self._pair_ids(self._tokenizer, fields["prompt"], fields["prompt_pair"], how or {})

    def _check_instruction(self, ids: list[int]) -> None:
        marks = self.pooler.instruction if self.pooler is not None else None
        if marks is not None and marks.length(ids) == len(ids):
            refuse(
                "prompt",
                f"all {len(ids)} tokens are the instruction's; put the text behind <|embed|> and a line's end",
            )

    def all_ids(self, fields: Mapping[str, Any], how: Mapping[str, Any] | None) -> list[int]:
        """The ids of a prompt however long it is, up to max_embed_len. Raises InvalidRequestError."""
        longest = self.pooler.max_embed_len if self.pooler is not None else None
        reader = PromptReader(
            self._tokenizer,
            vocab_size=self._vocab_size,
            max_model_len=longest or _MAX_EMBED_LEN,
            reserved=0,
        )
        return reader.token_ids(fields, how, None)

    def _pair_ids(
        self, tokenizer: Tokenizer, first: str, second: str, how: Mapping[str, Any]
    ) -> tuple[list[int], int | None]:
        """Both texts as the tokenizer joins them; what is too long is cut from the longer one."""
        special = how.get("add_special_tokens") is not False
        keep, side = self._prompts.truncation(how, None)
        limit = self._prompts.max_model_len
        for text in (first, second):
            if keep is None:
                tokenizer.refuse_too_long(text, limit)
        encoded = [tokenizer.encoding(text) for text in (first, second)]
        if keep is not None:
            room = max(0, keep - (tokenizer.num_special_in_pair if special else 0))
            lengths = _longest_first(len(encoded[0].ids), len(encoded[1].ids), room)
            for one, length in zip(encoded, lengths, strict=True):
                one.truncate(length, direction=side)
        joined = tokenizer.joined(*encoded, add_special_tokens=special)
        ids: list[int] = list(joined.ids)
        self._prompts.check_length(ids)
        if max(ids) >= self._vocab_size:
            refuse(
                "prompt",
                f"the tokenizer made the id {max(ids)}, but the model has {self._vocab_size} tokens; use the "
                "tokenizer that belongs to the model",
            )
        types: list[int] = list(joined.type_ids)
        return ids, types.index(1) if 1 in types else None


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths of two texts that share `room` tokens: the longer one gives first."""
    if first + second <= room:
        return first, second
    half = room // 2
    if first <= half:
        return first, room - first
    if second <= half:
        return room - second, second
    return room - half, half
