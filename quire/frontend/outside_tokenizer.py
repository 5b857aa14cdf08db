"""A plug-in's tokenizer class in the place of the checkpoint's own.

Text and ids only: constraints on outputs and pairs of texts need a tokenizer.json, and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from quire.frontend.tokenizer import Tokenizer, own_settings
from quire.models.loading.tokenizer_classes import TokenizerRegistry, is_outside
from quire.protocol.errors import InvalidRequestError, ModelLoadError

_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
_UNKNOWN_BYTES = 1 << 20  # of text that one token may stand for, whatever its spelling


class OutsideTokenizer(Tokenizer):
    """A tokenizer whose ids and texts a plug-in's class makes."""

    def __init__(self, made: Any, settings: dict[str, Any]) -> None:
        named = {
            name: text for name in _NAMED if isinstance(text := getattr(made, name, None), str)
        }
        own = {key: value for key, value in settings.items() if key != "added_tokens_decoder"}
        super().__init__(_Raw(made), own | named)  # type: ignore[arg-type]
        self._bytes_per_token = _UNKNOWN_BYTES
        self.has_file = False

    @classmethod
    def of_mode(cls, folder: str | Path, mode: str) -> OutsideTokenizer:
        """The one of a registered mode. Raises SettingsError, and ModelLoadError if the class fails."""
        kind: Any = TokenizerRegistry.load_tokenizer_cls(mode)
        try:
            make = getattr(kind, "from_pretrained", kind)
            return cls(make(str(folder)), own_settings(folder))
        except Exception as error:  # the operator's code may fail in any way
            raise ModelLoadError(
                f"{folder}: the tokenizer of tokenizer_mode {mode!r} failed: {type(error).__name__}: {error}"
            ) from error


def open_tokenizer(folder: str | Path, mode: str = "auto") -> Tokenizer:
    """The tokenizer in a folder, by a plug-in's class if the mode names one. Raises as `Tokenizer.load` does."""
    if is_outside(mode):
        return OutsideTokenizer.of_mode(folder, mode)
    return Tokenizer.load(folder)


class _Encoding:
    """Ids as the `tokenizers` library gives them."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = [int(one) for one in ids]


class _Raw:
    """A class of a plug-in as the library's `Tokenizer`, as far as the front asks."""

    normalizer = pre_tokenizer = decoder = None

    def __init__(self, made: Any) -> None:
        self._made = made
        self._vocabulary = {str(token): int(one) for token, one in made.get_vocab().items()}
        self._names = {one: token for token, one in self._vocabulary.items()}
        special = [int(one) for one in getattr(made, "all_special_ids", ())]
        self._special = {one: self._names[one] for one in special if one in self._names}

    def no_truncation(self) -> None:
        """It cuts nothing."""

    def no_padding(self) -> None:
        """It fills nothing up."""

    def to_str(self) -> str:
        """It has no parts that are known."""
        return "{}"

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        return dict(self._vocabulary)

    def get_added_tokens_decoder(self) -> dict[int, tokenizers.AddedToken]:
        """The special tokens, which are all that stands apart."""
        return {
            one: tokenizers.AddedToken(text, special=True) for one, text in self._special.items()
        }

    def id_to_token(self, one: int) -> str | None:
        return self._names.get(one)

    def token_to_id(self, token: str) -> int | None:
        return self._vocabulary.get(token)

    def encode(self, text: str, add_special_tokens: bool = True) -> _Encoding:
        if not isinstance(text, str):
            raise TypeError(f"text is {type(text).__name__}")
        text.encode()  # a lone surrogate is refused whatever the class would make of it
        return _Encoding(self._made.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        known = [one for one in ids if one in self._names]
        text = self._made.decode(known, skip_special_tokens=skip_special_tokens) if known else ""
        return str(text)

    @property
    def model(self) -> _Raw:
        return self

    def tokenize(self, text: str) -> list[_Token]:
        """The tokens of a text without special ones around it."""
        return [_Token(one) for one in self.encode(text, add_special_tokens=False).ids]

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        return len(self.encode("", add_special_tokens=True).ids)

    def post_process(self, *_: Any) -> Any:
        raise InvalidRequestError(
            "pairs of texts need a tokenizer.json; the tokenizer of this server is a plug-in's class"
        )


class _Token(NamedTuple):
    id: int
