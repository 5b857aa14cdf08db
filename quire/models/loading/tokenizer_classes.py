"""Tokenizers that plug-ins add by a name of `--tokenizer-mode`: what they must offer, and which there are.

What the front makes of one is `frontend.outside_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from quire.config import plugins
from quire.protocol.errors import SettingsError

SETTING = "tokenizer_mode"


class TokenizerLike(Protocol):
    """What a class must offer; vLLM's and Transformers' tokenizers have it too.

    `from_pretrained(folder)` makes one; a class without it is called with the folder. Read where they are there:
    all_special_ids, bos_token, eos_token, pad_token, unk_token (texts of tokens). Methods are called from several
    threads at once.
    """

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of ids; bytes of a character that is not whole yet as U+FFFD, at the end."""

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, of every id that `encode` gives."""


class TokenizerRegistry:
    """Classes of tokenizers by the name that `--tokenizer-mode` gives them."""

    @staticmethod
    def register(mode: str, module: Any, class_name: str | None = None) -> None:
        """Makes a class known: itself, or the module that it is imported from when it is asked for, and its name.

        Raises TypeError for anything else, ValueError for a mode of our own.
        """
        is_class = isinstance(module, type) and class_name is None
        if not is_class and not (isinstance(module, str) and isinstance(class_name, str)):
            raise TypeError(
                f"{mode}: a tokenizer is added as a class, or as a module's name and a class's, not as {module!r}"
            )
        plugins.add(SETTING, mode, module if is_class else f"{module}:{class_name}")

    @staticmethod
    def load_tokenizer_cls(mode: str) -> type:
        """The class of a mode. Raises SettingsError where there is none, or it cannot be imported or used."""
        kind = plugins.added(SETTING, mode)
        if isinstance(kind, str):
            kind = plugins.load(kind)
        if not isinstance(kind, type):
            known = ", ".join(plugins.added_names(SETTING)) or "none"
            raise SettingsError(
                f"no tokenizer class is registered as tokenizer_mode {mode!r}; registered: {known}"
            )
        lost = [one for one in ("encode", "decode", "get_vocab") if not hasattr(kind, one)]
        if lost:
            raise SettingsError(f"the tokenizer class {kind.__name__} has no {', '.join(lost)}")
        return kind


def is_outside(mode: str) -> bool:
    """Whether a mode means a class of a plug-in."""
    return plugins.added(SETTING, mode) is not None
