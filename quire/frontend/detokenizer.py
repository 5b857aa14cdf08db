"""Turns the token ids of one sequence into text piece by piece, without losing or changing any.

Reading tokenizer files is `frontend.tokenizer`, cutting at stop strings `frontend.stops`.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer

from quire.frontend.byte_text import ByteText, is_byte_level

_CONTEXT = 8
"""Tokens kept before new ones: an open character has at most 3 bytes, a leading space needs 1 token."""
_WINDOW = 3 * _CONTEXT
"""Tokens decoded at most before the window is cut back to the context, long byte runs excepted."""
_BROKEN = "\ufffd"


class Detokenizer:
    """Feeds on the output ids of one sequence; pieces joined equal the decoded whole.

    The whole is what `decode(prompt + output)` has beyond `decode(prompt)`, so that the first piece
    has the space that belongs there. Text is held back while a later token could change it: bytes
    of an incomplete character, and runs of byte tokens (`<0x0A>`), which decode as one. Every token
    is decoded a bounded number of times.

    tokenizer      of the `tokenizers` package; its vocabulary must not change any more.
    skip_special_tokens            special tokens give no text.
    spaces_between_special_tokens  False takes out a space that decoding puts between two of them.
    Ids that the tokenizer does not know give no text.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        prompt_ids: list[int],
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._facts = _facts(tokenizer)
        self._skip = skip_special_tokens
        self._joins_special = not (skip_special_tokens or spaces_between_special_tokens)
        self._window = self._tail(prompt_ids)
        self._run: list[int] = []
        text = self._decode(self._window)
        self._done = len(text) - self._open_tail(text)

    def append(self, ids: list[int]) -> str:
        """The new text that is certain once these ids are known; may be empty."""
        if self._joins_special:
            return "".join([self._append_joined(token_id) for token_id in ids])
        is_closed = False
        for token_id in ids:
            is_closed |= self._take(token_id)
        return self._advance() if is_closed else ""

    def finish(self) -> str:
        """The text still held back; bytes that never became a character show as U+FFFD."""
        self._window += self._run
        self._run = []
        text = self._decode(self._window)
        piece, self._done = text[self._done :], len(text)
        return piece

    def _take(self, token_id: int) -> bool:
        """Puts an id in its place; whether it may have given new text."""
        if not self._is_visible(token_id):
            return False
        if token_id in self._facts.byte_ids:
            self._run.append(token_id)
            return False
        self._window += self._run
        self._window.append(token_id)
        self._run = []
        return True

    def _append_joined(self, token_id: int) -> str:
        """Like `append` for one id, without the space between two special tokens."""
        special = self._facts.special_ids
        follows = not self._run and bool(self._window) and self._window[-1] in special
        piece = self._advance() if self._take(token_id) else ""
        if follows and token_id in special and piece.startswith(" "):
            content = self._tokenizer.id_to_token(token_id) or ""
            return piece if content.startswith(" ") else piece[1:]
        return piece

    def _advance(self) -> str:
        text = self._decode(self._window)
        held = 1 if self._is_open(text) else 0
        end = len(text) - held
        piece, self._done = text[self._done : end], end
        if len(self._window) > _WINDOW:
            context = self._window[-_CONTEXT:]
            length = len(self._decode(context))
            if length > held:
                self._window, self._done = context, length - held
        return piece

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False) if ids else ""

    def _is_visible(self, token_id: int) -> bool:
        if self._skip and token_id in self._facts.special_ids:
            return False
        return self._tokenizer.id_to_token(token_id) is not None

    def _tail(self, prompt_ids: list[int]) -> list[int]:
        """The last visible ids of the prompt, at least the context, and all of a byte run at its end."""
        found: list[int] = []
        for token_id in reversed(prompt_ids):
            if not self._is_visible(token_id):
                continue
            if len(found) >= _CONTEXT and found[-1] not in self._facts.byte_ids:
                break
            found.append(token_id)
        return found[::-1]

    def _open_tail(self, prompt_text: str) -> int:
        """Characters at the end of the prompt's text that stand for an unfinished character."""
        if not self._is_open(prompt_text):
            return 0
        run = 0
        while run < len(self._window) and self._window[-1 - run] in self._facts.byte_ids:
            run += 1
        if not run:
            return 1
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            whole = decoder.decode(bytes(self._facts.byte_ids[one] for one in self._window[-run:]))
        except UnicodeDecodeError:
            return 0  # nothing can follow that would make a text of this run
        return run - len(whole)

    def _is_open(self, text: str) -> bool:
        """Whether the window's text ends in bytes of an unfinished character.

        A real U+FFFD looks the same; it is told by its three bytes in byte-level spelling.
        """
        if not text.endswith(_BROKEN):
            return False
        names = "".join([self._tokenizer.id_to_token(one) or "" for one in self._window[-3:]])
        return not names.endswith(("ï¿½", _BROKEN))


def detokenizer_of(
    tokenizer: Tokenizer,
    *,
    prompt_ids: list[int],
    skip_special_tokens: bool = True,
    spaces_between_special_tokens: bool = True,
) -> Detokenizer | ByteText:
    """A detokenizer for the tokenizer, the quicker kind where that is enough; arguments as `Detokenizer`."""
    is_plain = skip_special_tokens or spaces_between_special_tokens
    if is_plain and _facts(tokenizer).is_byte_level:
        return ByteText(tokenizer, prompt_ids=prompt_ids, skips_special=skip_special_tokens)
    return Detokenizer(
        tokenizer,
        prompt_ids=prompt_ids,
        skip_special_tokens=skip_special_tokens,
        spaces_between_special_tokens=spaces_between_special_tokens,
    )


@dataclass(frozen=True)
class _Facts:
    """Ids that a vocabulary treats specially: special tokens, and `<0x00>` to `<0xFF>` by value."""

    special_ids: frozenset[int]
    byte_ids: dict[int, int]
    is_byte_level: bool


@lru_cache(maxsize=4)
def _facts(tokenizer: Tokenizer) -> _Facts:
    added = tokenizer.get_added_tokens_decoder()
    special = frozenset(token_id for token_id, token in added.items() if token.special)
    found = {tokenizer.token_to_id(f"<0x{byte:02X}>"): byte for byte in range(256)}
    byte_ids = {one: byte for one, byte in found.items() if one is not None}
    return _Facts(special, byte_ids, is_byte_level(tokenizer))
