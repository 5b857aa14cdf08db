"""Text to token ids and back, over the `tokenizers` library and the files of a checkpoint.

Leaves piecewise text to `frontend.detokenizer`, and the limits of a request to `frontend.inputs`.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import tokenizers

from quire.models.loading.tokenizer_files import class_settings, tokenizer_file
from quire.protocol.errors import InvalidRequestError, ModelLoadError

TruncationSide = Literal["left", "right"]

_KEEPING_NORMALIZERS = frozenset({"Sequence", "Prepend", "Replace"})
_SHRINKING_FACTOR = 4  # bytes per byte: NFC and NFKC join at most about three bytes into one
_SAMPLE_BYTES_PER_TOKEN = (
    8  # a first look at a very long text; English has about four bytes a token
)
_SAMPLE_MARGIN = 256  # tokens by which cutting a text may change the count before the cut
_MODEL_MAX_LIMIT = 1 << 40  # some checkpoints write 1e30 for "no limit"


class Tokenizer:
    """The tokenizer of one checkpoint. Safe to use from several threads.

    Which special tokens a text gets is the post-processor of tokenizer.json; as in Transformers 5,
    add_bos_token and add_eos_token of tokenizer_config.json change nothing beside it.

    special_tokens_around  how many special tokens `encode` puts before and after a text.
    vocab_size        ids below this have a token, added ones included.
    model_max_length  in tokens, as the checkpoint's tokenizer_config.json says, or None.
    has_file          whether a tokenizer.json says all of it.
    """

    has_file = True

    def __init__(self, raw: tokenizers.Tokenizer, settings: dict[str, Any]) -> None:
        raw.no_truncation()
        raw.no_padding()
        self.raw = raw
        self.settings = settings
        _add_missing_tokens(raw, settings)
        self.bos_token = _named_token(settings, "bos_token")
        self.eos_token = _named_token(settings, "eos_token")
        self.pad_token = _named_token(settings, "pad_token")
        self.unk_token = _named_token(settings, "unk_token")
        self.bos_token_id = self._id(self.bos_token)
        self.eos_token_id = self._id(self.eos_token)
        self.pad_token_id = self._id(self.pad_token)
        limit = settings.get("model_max_length")
        self.model_max_length = int(limit) if limit and limit < _MODEL_MAX_LIMIT else None
        added = raw.get_added_tokens_decoder()
        self.all_special_ids = sorted(i for i, token in added.items() if token.special)
        self._added = {i: token.content for i, token in added.items()}
        vocabulary = raw.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self._bytes_per_token = max((len(t.encode()) for t in vocabulary), default=1)
        description = json.loads(raw.to_str())
        self._decoders = set(_types_inside(description.get("decoder")))
        self._byte_of = _byte_level_alphabet() if "ByteLevel" in self._decoders else {}
        keeping = set(_types_inside(description.get("normalizer"))) <= _KEEPING_NORMALIZERS
        if not keeping:
            self._bytes_per_token *= _SHRINKING_FACTOR
        self._token_bytes: dict[int, bytes] = {}
        self.special_tokens_around = self._count_special_tokens()

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer in `folder`: tokenizer.json, or older files, with tokenizer_config.json and the like.

        Raises ModelLoadError if it is missing or cannot be read.
        """
        path = tokenizer_file(folder)
        settings = class_settings(folder) | own_settings(folder)
        try:
            raw = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ModelLoadError(f"{path} is not a tokenizer that can be read: {error}") from error
        return cls(raw, settings)

    def __len__(self) -> int:
        return self.vocab_size

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self.raw.token_to_id(token)

    def _count_special_tokens(self) -> tuple[int, int]:
        """How many special tokens stand before and after a text."""
        inside, whole = self.encode("a", False), self.encode("a", True)
        more = len(whole) - len(inside)
        before = next((n for n in range(more + 1) if whole[n : n + len(inside)] == inside), more)
        return before, more - before

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text, with BOS and the like as the checkpoint says unless switched off.

        Raises InvalidRequestError for text that is not valid Unicode (a lone surrogate).
        """
        try:
            ids: list[int] = self.raw.encode(text, add_special_tokens=add_special_tokens).ids
        except (UnicodeEncodeError, TypeError) as error:
            if not isinstance(text, str):
                raise
            raise InvalidRequestError(
                "the prompt has a lone surrogate and is not valid Unicode; remove it",
                param="prompt",
            ) from error
        return ids

    def encoding(self, text: str) -> tokenizers.Encoding:
        """A text without special tokens, to be cut and `joined`. Raises InvalidRequestError as `encode` does."""
        try:
            return self.raw.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidRequestError(
                "the prompt has a lone surrogate and is not valid Unicode; remove it",
                param="prompt",
            ) from error

    def joined(
        self,
        first: tokenizers.Encoding,
        second: tokenizers.Encoding,
        *,
        add_special_tokens: bool,
    ) -> tokenizers.Encoding:
        """Two texts as one, with the special tokens of a pair."""
        return self.raw.post_process(first, second, add_special_tokens)

    @property
    def num_special_in_pair(self) -> int:
        """Special tokens that a pair of texts gets."""
        return int(self.raw.num_special_tokens_to_add(True))

    def refuse_too_long(self, text: str, limit: int) -> None:
        """Raises InvalidRequestError for a text that surely has more than `limit` tokens.

        Looks at its size first and, for a very long one, at the tokens of its beginning, so that the
        answer is cheap; a text that passes may still be too long.
        """
        if len(text) <= limit * _SAMPLE_BYTES_PER_TOKEN // 4:
            return
        size = len(text.encode("utf-8", "surrogatepass"))
        least = size // self._bytes_per_token
        if least <= limit and size > 2 * limit * _SAMPLE_BYTES_PER_TOKEN:
            start = text[: limit * _SAMPLE_BYTES_PER_TOKEN]
            least = len(self.encode(start, add_special_tokens=False)) - _SAMPLE_MARGIN
        if least > limit:
            raise InvalidRequestError(
                f"prompt is too long: at least {least} prompt tokens ({size} bytes of text), but the limit is "
                f"{limit} tokens; shorten it",
                param="prompt",
            )

    def decode(self, ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of the ids; ids without a token give nothing."""
        text: str = self.raw.decode(
            [ids] if isinstance(ids, int) else list(ids), skip_special_tokens=skip_special_tokens
        )
        return text

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """The vocabulary's own spelling of one id, or of each in a list; None where there is no token."""
        if isinstance(ids, int):
            return self.raw.id_to_token(ids)
        return [self.raw.id_to_token(one) for one in ids]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of one token in the vocabulary's own spelling, or of each in a list."""
        if isinstance(tokens, str):
            return self.raw.token_to_id(tokens)
        return [self.raw.token_to_id(one) for one in tokens]

    def get_vocab(self) -> dict[str, int]:
        """Token -> id, added tokens included."""
        vocabulary: dict[str, int] = self.raw.get_vocab(with_added_tokens=True)
        return vocabulary

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text in which it is not the first; b"" without a token."""
        found = self._token_bytes.get(token_id)
        if found is None:
            found = self._token_bytes[token_id] = self._find_bytes(token_id)
        return found

    def _find_bytes(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self.raw.id_to_token(token_id)
        if token is None:
            return b""
        if self._byte_of and all(char in self._byte_of for char in token):
            return bytes(self._byte_of[char] for char in token)
        if "ByteFallback" in self._decoders and len(token) == 6 and token.startswith("<0x"):
            return bytes([int(token[3:5], 16)])
        # Twice the token: whatever a decoder does to a beginning happens to the first one only.
        once, twice = self.decode([token_id]), self.decode([token_id, token_id])
        return twice[len(once) :].encode()


class PieceDecoder:
    """Text of one token after the other, so that the pieces joined are the whole text.

    A character whose bytes are spread over several tokens belongs to the last of them.
    """

    __slots__ = ("_decoder", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def peek(self, token_id: int) -> str:
        """What `push` would give; nothing is remembered."""
        state = self._decoder.getstate()
        piece = self._decoder.decode(self._tokenizer.token_bytes(token_id))
        self._decoder.setstate(state)
        return piece

    def push(self, token_id: int, *, last: bool = False) -> str:
        """The text that this token completes; with `last`, incomplete bytes too, as U+FFFD."""
        return self._decoder.decode(self._tokenizer.token_bytes(token_id), last)


def own_settings(folder: str | Path) -> dict[str, Any]:
    """What tokenizer_config.json, and older files beside it, say. Raises ModelLoadError if they are damaged."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (Path(folder) / name).is_file():
            found = _read_json(Path(folder) / name)
            settings |= {key: value for key, value in found.items() if value is not None}
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds {type(content).__name__}; it must be a JSON object")
    return content


def _named_token(settings: dict[str, Any], name: str) -> str | None:
    value = settings.get(name)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _add_missing_tokens(raw: tokenizers.Tokenizer, settings: dict[str, Any]) -> None:
    """Adds the tokens that only tokenizer_config.json lists, in the order of their ids."""
    listed = settings.get("added_tokens_decoder") or {}
    known = raw.get_vocab(with_added_tokens=True)
    for _, entry in sorted(
        ((int(key), entry) for key, entry in listed.items()), key=lambda e: e[0]
    ):
        if entry["content"] not in known:
            switches = {k: v for k, v in entry.items() if k not in ("content", "__type")}
            raw.add_tokens([tokenizers.AddedToken(entry["content"], **switches)])


def _types_inside(part: Any) -> Iterable[str]:
    """The `type` of a part of tokenizer.json and of the parts in it."""
    if isinstance(part, dict):
        if isinstance(part.get("type"), str):
            yield part["type"]
        for name in ("normalizers", "decoders", "pretokenizers"):
            for inner in part.get(name) or ():
                yield from _types_inside(inner)


def _byte_level_alphabet() -> dict[str, int]:
    """Character -> byte as in GPT-2's vocabulary: printable bytes as they are, the others from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}
