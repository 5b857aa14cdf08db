"""Text of output ids one by one, where every token stands for bytes of its own, whatever stands beside it.

Tokenizers whose decoder does more are `frontend.detokenizer`, which also says what the pieces promise.
"""

from __future__ import annotations

from codecs import utf_8_decode
from functools import lru_cache

from tokenizers import Tokenizer, decoders


class ByteText:
    """As `Detokenizer`, for a tokenizer that `is_byte_level`: a tenth of the work for a token."""

    def __init__(self, tokenizer: Tokenizer, *, prompt_ids: list[int], skips_special: bool) -> None:
        self._table = _table(tokenizer, skips_special)
        self._rest = b""
        tail: list[int] = []
        num_bytes = 0
        for token_id in reversed(prompt_ids):
            num_bytes += len(self._table[token_id])
            tail.append(token_id)
            if num_bytes >= 4:  # the longest character: what is unfinished began in these
                break
        self.append(tail[::-1])

    def append(self, ids: list[int]) -> str:
        """The new text that is certain once these ids are known; may be empty."""
        table = self._table
        data = table[ids[0]] if len(ids) == 1 else b"".join([table[one] for one in ids])
        if self._rest:
            data = self._rest + data
        text, used = utf_8_decode(data, "replace", False)
        self._rest = data[used:]
        return text

    def finish(self) -> str:
        """The text still held back; bytes that never became a character show as U+FFFD."""
        text, _ = utf_8_decode(self._rest, "replace", True)
        self._rest = b""
        return text


def is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether decoding joins the bytes that tokens spell, and does nothing else."""
    return isinstance(tokenizer.decoder, decoders.ByteLevel)


class _Table(dict[int, bytes]):
    """The bytes of each id, read when first asked for; none where it gives no text."""

    def __init__(self, tokenizer: Tokenizer, skips_special: bool) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._skips_special = skips_special
        self._added = tokenizer.get_added_tokens_decoder()

    def __missing__(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        name = self._tokenizer.id_to_token(token_id)
        data = b""
        if name is not None and not (self._skips_special and added is not None and added.special):
            letters = [_BYTES.get(letter) for letter in name]
            spelt = [one for one in letters if one is not None]
            # One letter that spells no byte, and the whole token stands for itself.
            data = bytes(spelt) if len(spelt) == len(letters) else name.encode()
        if name is not None:  # ids beyond the vocabulary are as many as anybody likes
            self[token_id] = data
        return data


@lru_cache(maxsize=8)
def _table(tokenizer: Tokenizer, skips_special: bool) -> _Table:
    return _Table(tokenizer, skips_special)


def _letters() -> dict[str, int]:
    """The byte that each letter of the byte-level spelling stands for.

    Source: GPT-2's bytes_to_unicode: printable bytes stand for themselves, the others in order for the
    characters from U+0100.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    found = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in set(plain)]
    return found | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTES = _letters()
