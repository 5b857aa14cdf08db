"""The tokenizer in a GGUF file as tokenizer.json and tokenizer_config.json.

Byte-level BPE with merges ("gpt2") is read here, and characters that are merged by scores ("llama", which is
sentencepiece's BPE) or as the file tells ("gemma4"); those of encoders are in `gguf.pieces`. How text is cut
before merging is told by name only, so a name that is not known is refused. Sources: the ggml project's
description, and Hugging Face's of tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from quire.models.loading.gguf.cuts import COMPOSED, CUTS, WHOLE_WORDS, cut_parts
from quire.models.loading.gguf.header import GgufHeader
from quire.models.loading.gguf.pieces import unigrams, word_pieces
from quire.protocol.errors import ModelLoadError

_PREFIX = "tokenizer.ggml."
_UNKNOWN, _CONTROL, _USER, _BYTE = 2, 3, 4, 6  # kinds of tokens; 1 is a plain one
_ENDS = frozenset(
    {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<EOT>"}
)
"""Tokens that end a turn whatever the file names as the end."""

Reader = Callable[[GgufHeader, list[str], list[int]], dict[str, Any]]


def has_tokenizer(header: GgufHeader) -> bool:
    """Whether a file holds a vocabulary."""
    return header.values.get(f"{_PREFIX}model", "none") != "none" or _whole(header) is not None


def tokenizer_of(header: GgufHeader) -> dict[str, Any]:
    """tokenizer.json of a file that has a vocabulary.

    Raises ModelLoadError for a kind, or a rule of cutting, that is not read.
    """
    whole = _whole(header)
    if whole is not None:
        try:
            found = json.loads(whole)
        except (ValueError, RecursionError) as error:
            raise ModelLoadError(
                f"{header.path}: tokenizer.huggingface.json is not JSON: {error}"
            ) from error
        if not isinstance(found, dict):
            raise ModelLoadError(f"{header.path}: tokenizer.huggingface.json holds no object")
        return found
    kind = header.values[f"{_PREFIX}model"]
    readers: dict[str, Reader] = {
        "gpt2": _byte_level,
        "llama": _with_scores,
        "gemma4": _with_merges,
        "bert": word_pieces,
        "t5": _unigrams,
    }
    if kind not in readers:
        raise _refuse(
            header, f"its tokenizer is of the kind {kind!r}; read are {', '.join(readers)}"
        )
    tokens = _texts(header, "tokens")
    if len(set(tokens)) != len(tokens):
        raise _refuse(header, "its vocabulary holds a token twice")
    kinds = header.values.get(f"{_PREFIX}token_type") or [1] * len(tokens)
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        raise _refuse(header, "tokenizer.ggml.token_type is not one kind for each token")
    parts = readers[kind](header, tokens, kinds)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, kinds),
        "post_processor": _around(
            header, tokens, default_bos=kind == "llama", default_eos=kind == "t5"
        ),
        **parts,
    }


def settings_of(header: GgufHeader) -> dict[str, Any]:
    """tokenizer_config.json: named tokens and chat templates."""
    values = header.values
    tokens = values.get(f"{_PREFIX}tokens") or []
    found: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        number = values.get(f"{_PREFIX}{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            found[f"{name}_token"] = tokens[number]
    named = [
        {"name": key.removeprefix("tokenizer.chat_template."), "template": text}
        for key, text in values.items()
        if key.startswith("tokenizer.chat_template.")
    ]
    plain = values.get("tokenizer.chat_template")
    if plain is not None:
        found["chat_template"] = plain
        if named:
            found["chat_template"] = [{"name": "default", "template": plain}, *named]
    return found


def end_tokens(header: GgufHeader) -> list[int]:
    """The ids that end a text or a turn, the one that the file names first."""
    values = header.values
    named = [values.get(f"{_PREFIX}{key}_token_id") for key in ("eos", "eot", "eom")]
    tokens = values.get(f"{_PREFIX}tokens") or []
    kinds = values.get(f"{_PREFIX}token_type") or []
    if named[0] is not None:
        pairs = zip(tokens, kinds, strict=False)
        named += [i for i, (text, kind) in enumerate(pairs) if text in _ENDS and kind == _CONTROL]
    return list(dict.fromkeys(number for number in named if isinstance(number, int)))


def _whole(header: GgufHeader) -> str | None:
    text = header.values.get("tokenizer.huggingface.json")
    return text if isinstance(text, str) else None


def _byte_level(header: GgufHeader, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    name = header.values.get(f"{_PREFIX}pre", "default")
    if name not in CUTS:
        raise _refuse(header, f"its rule of cutting text, {name!r}, is not known")
    cuts, is_gpt2 = cut_parts(name)
    cuts.append(_byte_part(use_regex=is_gpt2))
    return {
        "normalizer": {"type": "NFC"} if name in COMPOSED else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
        "decoder": _byte_part(use_regex=True),
        "model": {
            "type": "BPE",
            "ignore_merges": name in WHOLE_WORDS,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": _told_merges(header),
        },
    }


def _told_merges(header: GgufHeader) -> list[list[str]]:
    merges = [text.split(" ") for text in _texts(header, "merges")]
    odd = next((pair for pair in merges if len(pair) != 2), None)
    if odd is not None:
        raise _refuse(header, f"{' '.join(odd)!r} is no merge of two tokens")
    return merges


def _byte_part(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _unigrams(header: GgufHeader, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    return unigrams(header, tokens, kinds, _scores(header, len(tokens)))


def _with_merges(header: GgufHeader, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    """Gemma 4's: characters of whole texts are merged, with blanks made visible, in the order that the file tells."""
    return _of_characters(tokens, kinds, _told_merges(header), has_prefix=False)


def _with_scores(header: GgufHeader, tokens: list[str], kinds: list[int]) -> dict[str, Any]:
    scores = _scores(header, len(tokens))
    vocab = {token: number for number, token in enumerate(tokens)}
    prefix = header.values.get(f"{_PREFIX}add_space_prefix", True)
    merges = _merges(vocab, scores, kinds)
    return _of_characters(tokens, kinds, merges, has_prefix=bool(prefix))


def _of_characters(
    tokens: list[str], kinds: list[int], merges: list[list[str]], *, has_prefix: bool
) -> dict[str, Any]:
    """Merges of characters, where bytes stand for those that are no tokens. has_prefix: texts begin with a blank."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    normalizers = [{"type": "Prepend", "prepend": "\u2581"}] * has_prefix + [replace]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if has_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN]
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "unk_token": unknown[0] if unknown else None,
            "fuse_unk": True,
            "byte_fallback": _BYTE in kinds,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _scores(header: GgufHeader, count: int) -> list[float]:
    scores = header.values.get(f"{_PREFIX}scores")
    if not isinstance(scores, list) or len(scores) != count:
        raise _refuse(header, "tokenizer.ggml.scores is not one score for each token")
    return scores


def _merges(vocab: dict[str, int], scores: list[float], kinds: list[int]) -> list[list[str]]:
    """All pairs of tokens that make a token, those of the best score first."""
    found: list[tuple[float, int, int, str, str]] = []
    for token, number in vocab.items():
        if kinds[number] in (_UNKNOWN, _CONTROL, _USER, _BYTE):
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocab and right in vocab:
                found.append((-scores[number], vocab[left], vocab[right], left, right))
    return [[left, right] for *_, left, right in sorted(found)]


def _added(tokens: list[str], kinds: list[int]) -> list[dict[str, Any]]:
    """Tokens that are found in text before it is cut."""
    return [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != _USER,
        }
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER) or (kind == _UNKNOWN and token)
    ]


def _around(
    header: GgufHeader, tokens: list[str], *, default_bos: bool, default_eos: bool
) -> dict[str, Any] | None:
    """The first token of a text, and its last, if the file asks for them."""
    asked = (("bos", default_bos), ("eos", default_eos))
    single: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    special: dict[str, Any] = {}
    for name, default in asked:
        number = header.values.get(f"{_PREFIX}{name}_token_id")
        if not header.values.get(f"{_PREFIX}add_{name}_token", default) or number is None:
            continue
        if not isinstance(number, int) or not 0 <= number < len(tokens):
            raise _refuse(header, f"tokenizer.ggml.{name}_token_id {number!r} is no token")
        token = tokens[number]
        special[token] = {"id": token, "ids": [number], "tokens": [token]}
        part = {"SpecialToken": {"id": token, "type_id": 0}}
        single = [part, *single] if name == "bos" else [*single, part]
    if not special:
        return None
    both = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": single, "pair": both, "special_tokens": special}


def _texts(header: GgufHeader, name: str) -> list[str]:
    values = header.values.get(f"{_PREFIX}{name}")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _refuse(header, f"tokenizer.ggml.{name} is not a list of texts")
    return values


def _refuse(header: GgufHeader, why: str) -> ModelLoadError:
    return ModelLoadError(
        f"{header.path}: {why}; give the folder of the model's tokenizer.json with --tokenizer"
    )
