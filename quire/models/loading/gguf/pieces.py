"""Tokenizers of encoders in GGUF files: WordPiece ("bert") and sentencepiece's unigrams ("t5").

Those that merge are `gguf.tokenizer`'s. Sources: what llama.cpp's converter writes, and Hugging Face's
description of tokenizer.json.
"""

from __future__ import annotations

import base64
from typing import Any

from quire.models.loading.gguf.header import GgufHeader

_PREFIX = "tokenizer.ggml."
_BLANK = "\u2581"
_UNKNOWN, _CONTROL = 2, 3
_BERT_IDS = {"bos": 101, "eos": 102, "unknown": 100}
"""Of files that do not name them."""
_LONGEST_WORD = 100  # longer ones are unknown, as in Transformers


def word_pieces(header: GgufHeader, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    """A file marks what begins a word; elsewhere what does not is marked, by ##."""
    pairs = zip(tokens, kinds, strict=True)
    whole = [token if kind == _CONTROL else _piece(token) for token, kind in pairs]
    first, last, unknown = (
        whole[_number(header, name, _BERT_IDS[name], len(whole))]
        for name in ("bos", "eos", "unknown")
    )
    end = header.values.get(f"{_PREFIX}seperator_token_id")
    if isinstance(end, int) and 0 <= end < len(whole):
        last = whole[end]
    lower = header.values.get(f"{_PREFIX}normalizer.lowercase", True)
    vocab = {token: number for number, token in enumerate(whole)}
    return {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": header.values.get(f"{_PREFIX}normalizer.strip_accents"),
            "lowercase": bool(lower),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _between(vocab, first, [last], [last]),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": _LONGEST_WORD,
            "vocab": vocab,
        },
    }


def _piece(token: str) -> str:
    return token[1:] if token.startswith(_BLANK) else f"##{token}"


def unigrams(
    header: GgufHeader, tokens: list[str], kinds: list[int], scores: list[float]
) -> dict[str, Any]:
    """Pieces of which the likeliest cover a text, as XLM-R, BGE-M3 and T5 have them."""
    table = header.values.get(f"{_PREFIX}precompiled_charsmap")
    normalizers: list[dict[str, Any]] = []
    if isinstance(table, list) and table:
        packed = base64.b64encode(bytes(one & 0xFF for one in table)).decode()
        normalizers.append({"type": "Precompiled", "precompiled_charsmap": packed})
    cuts: list[dict[str, Any]] = []
    if header.values.get(f"{_PREFIX}remove_extra_whitespaces"):
        cuts.append({"type": "WhitespaceSplit"})
    scheme = "always" if header.values.get(f"{_PREFIX}add_space_prefix", True) else "never"
    blanks = {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": scheme, "split": True}
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers} if normalizers else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*cuts, blanks]},
        "decoder": blanks,
        "model": {
            "type": "Unigram",
            "unk_id": kinds.index(_UNKNOWN) if _UNKNOWN in kinds else None,
            "vocab": [[token, score] for token, score in zip(tokens, scores, strict=True)],
            "byte_fallback": False,
        },
        **_framed(header, tokens),
    }


def _framed(header: GgufHeader, tokens: list[str]) -> dict[str, Any]:
    """XLM-R's pairs are parted by two ends; files that begin no text leave this to the settings."""
    values = header.values
    first, last = (values.get(f"{_PREFIX}{name}_token_id") for name in ("bos", "eos"))
    if not values.get(f"{_PREFIX}add_bos_token") or not isinstance(first, int):
        return {}
    if not isinstance(last, int) or not 0 <= max(first, last) < len(tokens):
        return {}
    end = tokens[last]
    vocab = {tokens[first]: first, end: last}
    return {"post_processor": _between(vocab, tokens[first], [end], [end, end])}


def _between(
    vocab: dict[str, int], first: str, ends: list[str], parting: list[str]
) -> dict[str, Any]:
    """A text behind `first` and before `ends`; of two the second has type 1, and `parting` before it."""
    is_bert = parting == ends

    def special(token: str, kind: int = 0) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    second = 1 if is_bert else 0
    start = [special(first), {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": [*start, *map(special, ends)],
        "pair": [
            *start,
            *map(special, parting),
            {"Sequence": {"id": "B", "type_id": second}},
            *(special(end, second) for end in ends),
        ],
        "special_tokens": {
            token: {"id": token, "ids": [vocab[token]], "tokens": [token]}
            for token in (first, *ends)
        },
    }


def _number(header: GgufHeader, name: str, default: int, count: int) -> int:
    number = header.values.get(f"{_PREFIX}{name}_token_id", default)
    return number if isinstance(number, int) and 0 <= number < count else 0
