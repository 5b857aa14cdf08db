"""Older tokenizer files in the form of tokenizer.json: byte pairs, sentencepiece's pieces, word pieces.

What such files mean is partly told by the class that tokenizer_config.json names; a class whose rules are
not known here is refused. Where a made tokenizer.json is kept is `loading.tokenizer_files`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.models.loading.sentencepiece import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER,
    Pieces,
)
from quire.protocol.errors import ModelLoadError

_SPACE = "\u2581"  # what sentencepiece writes for a blank
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_GPT2 = dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_ROBERTA = {
    "bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>",
    "mask": "<mask>",
}  # fmt: skip
_LLAMA = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
_BY_TYPE = {
    **dict.fromkeys(("gpt2", "opt", "gpt_neo", "gptj"), "GPT2Tokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("llama", "mistral", "internlm2", "baichuan"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "gemma3"), "GemmaTokenizer"),
    **dict.fromkeys(("bert", "distilbert"), "BertTokenizer"),
    "roberta": "RobertaTokenizer",
}
"""The class where no tokenizer_config.json names one, by `model_type` of config.json."""
_LIKE_LLAMA = frozenset(
    {"LlamaTokenizer", "GemmaTokenizer", "InternLMTokenizer", "InternLM2Tokenizer", "BaichuanTokenizer",
     "YiTokenizer", "OrionTokenizer"}
)  # fmt: skip
_LIKE_BERT = frozenset({"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"})
_NAMED = {
    **dict.fromkeys(_LIKE_LLAMA, _LLAMA),
    **dict.fromkeys(_LIKE_BERT, _BERT),
    "GPT2Tokenizer": _GPT2,
    "RobertaTokenizer": _ROBERTA,
    "Qwen2Tokenizer": {"eos": "<|endoftext|>", "pad": "<|endoftext|>"},
    "GemmaTokenizer": {"unk": "<unk>", "bos": "<bos>", "eos": "<eos>", "pad": "<pad>"},
}
"""The tokens with a role that a class has where no file says otherwise."""


@dataclass
class OldTokenizer:
    """A folder, and what its small files say: settings, the class of the tokenizer, tokens added later."""

    folder: Path
    settings: dict[str, Any]
    kind: str
    added: dict[int, dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> OldTokenizer:
        """Raises ModelLoadError for files that cannot be read."""
        settings: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            found = _object(folder / name) if (folder / name).is_file() else {}
            settings |= {key: value for key, value in found.items() if value is not None}
        kind = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
        if not kind and (folder / "config.json").is_file():
            kind = _BY_TYPE.get(str(_object(folder / "config.json").get("model_type")), "")
        added: dict[int, dict[str, Any]] = {}
        if (folder / "added_tokens.json").is_file():
            listed = _object(folder / "added_tokens.json")
            added = {int(number): {"content": text} for text, number in listed.items()}
        for number, entry in (settings.get("added_tokens_decoder") or {}).items():
            added[int(number)] = dict(entry)
        return cls(folder, settings, kind, added)

    def named(self) -> dict[str, str]:
        """The tokens that have a role, such as bos or pad: those of the settings, else of the class."""
        found = dict(_NAMED.get(self.kind, {}))
        for role in _ROLES:
            value = self.settings.get(f"{role}_token")
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[role] = text
        return found

    def entries(self, vocabulary: dict[str, int], special: Sequence[str]) -> list[dict[str, Any]]:
        """`added_tokens`: those that a text is searched for before it is cut.

        special  tokens with a role; those that have no id yet get the next ones, as Transformers gives them.
        Raises ModelLoadError for added ids that leave a hole behind the vocabulary.
        """
        listed = dict(self.added)
        ids = vocabulary | {str(entry["content"]): number for number, entry in listed.items()}
        for text in dict.fromkeys(special):
            number = ids.setdefault(text, max(ids.values(), default=-1) + 1)
            listed[number] = {"special": True, **listed.get(number, {"content": text})}
        beyond = sorted(number for number in listed if number >= len(vocabulary))
        if beyond != list(range(len(vocabulary), len(vocabulary) + len(beyond))):
            raise ModelLoadError(
                f"{self.folder}: the added tokens {beyond[:8]} do not follow the {len(vocabulary)} of the "
                "vocabulary; put the model's tokenizer.json there"
            )
        return [_entry(number, one) for number, one in sorted(listed.items())]


def byte_pairs(old: OldTokenizer) -> dict[str, Any]:
    """vocab.json with merges.txt, as GPT-2, OPT, RoBERTa and Qwen 2 have them.

    Raises ModelLoadError for another class, and for files that are damaged.
    """
    if old.kind not in ("GPT2Tokenizer", "Qwen2Tokenizer", "RobertaTokenizer"):
        raise _unknown(old, "vocab.json")
    vocabulary = {
        str(text): int(number) for text, number in _object(old.folder / "vocab.json").items()
    }
    named = old.named()
    added = old.entries(vocabulary, list(named.values()))
    ids = vocabulary | {one["content"]: one["id"] for one in added}
    prefix = bool(old.settings.get("add_prefix_space", False))
    cut: dict[str, Any] = _byte_part(prefix=prefix)
    if old.kind == "Qwen2Tokenizer":
        split = {
            "type": "Split",
            "pattern": {"Regex": _QWEN2},
            "behavior": "Isolated",
            "invert": False,
        }
        cut = {
            "type": "Sequence",
            "pretokenizers": [split, _byte_part(prefix=prefix, use_regex=False)],
        }
    around = None
    if old.kind == "RobertaTokenizer":
        around = _around(ids, [named["cls"]], [named["sep"]], between=[named["sep"]] * 2)
    elif old.settings.get("add_bos_token"):
        around = _around(ids, [named["bos"]], [])
    return _whole(
        added,
        normalizer={"type": "NFC"} if old.kind == "Qwen2Tokenizer" else None,
        pre_tokenizer=cut,
        post_processor=around,
        decoder=_byte_part(prefix=False),
        model={"type": "BPE", "vocab": vocabulary, "merges": _merges_in(old.folder / "merges.txt")},
    )


def word_pieces(old: OldTokenizer) -> dict[str, Any]:
    """vocab.txt, as BERT has it. Raises ModelLoadError for another class."""
    if old.kind not in _LIKE_BERT:
        raise _unknown(old, "vocab.txt")
    lines = _text(old.folder / "vocab.txt").split("\n")
    words = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    vocabulary = {word: number for number, word in enumerate(words)}
    named = old.named()
    added = old.entries(vocabulary, list(named.values()))
    ids = vocabulary | {one["content"]: one["id"] for one in added}
    return _whole(
        added,
        normalizer={
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": bool(old.settings.get("tokenize_chinese_chars", True)),
            "strip_accents": old.settings.get("strip_accents"),
            "lowercase": bool(old.settings.get("do_lower_case", True)),
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor=_around(ids, [named["cls"]], [named["sep"]], between=[named["sep"]]),
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": True},
        model={
            "type": "WordPiece",
            "unk_token": named["unk"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    )


def pieces(old: OldTokenizer, found: Pieces) -> dict[str, Any]:
    """A model of sentencepiece, as Llama 2, Mistral, Gemma and InternLM 2 have it.

    A text begins with a blank where the file says so and it has none, as in Transformers; what follows a
    special token does not, but in a model that joins blanks.
    Raises ModelLoadError for a class that moves ids or writes text otherwise.
    """
    if old.kind not in _LIKE_LLAMA:
        raise _unknown(old, "tokenizer.model")
    vocabulary = found.vocabulary
    for number, (text, _, kind) in enumerate(found.pieces):
        if kind in (CONTROL, USER):
            old.added.setdefault(number, {"content": text, "special": kind == CONTROL})
    named = old.named()
    roles = [text for text in named.values() if text in vocabulary or text not in _LLAMA.values()]
    added = old.entries(vocabulary, roles)
    ids = vocabulary | {one["content"]: one["id"] for one in added}
    begins = old.settings.get("add_bos_token", True) and named["bos"] in ids
    ends = old.settings.get("add_eos_token", False) and named["eos"] in ids
    first = old.settings.get("add_prefix_space")
    prefix = found.adds_prefix if first is None else bool(first)
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    around = _around(ids, [named["bos"]] if begins else [], [named["eos"]] if ends else [])
    return _whole(
        added,
        normalizer=_ready(found),
        pre_tokenizer={
            "type": "Metaspace",
            "replacement": _SPACE,
            # "first" looks at places in the text as it was sent, which the joining of blanks moves
            "prepend_scheme": ("always" if found.joins_blanks else "first") if prefix else "never",
            "split": False,
        },
        post_processor=around,
        decoder={"type": "Sequence", "decoders": decoders},
        model=_model(found),
    )


def _ready(found: Pieces) -> dict[str, Any] | None:
    """How text is changed before it is cut."""
    steps: list[dict[str, Any]] = []
    if found.charsmap:
        table = base64.b64encode(found.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    if found.joins_blanks:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    return {"type": "Sequence", "normalizers": steps} if steps else None


def _model(found: Pieces) -> dict[str, Any]:
    by_bytes = any(kind == BYTE for _, _, kind in found.pieces)
    if found.kind != BPE:
        return {
            "type": "Unigram",
            "unk_id": found.unknown_id,
            "vocab": [[text, score] for text, score, _ in found.pieces],
            "byte_fallback": by_bytes,
        }
    return {
        "type": "BPE",
        "unk_token": found.pieces[found.unknown_id][0],
        "fuse_unk": True,
        "byte_fallback": by_bytes,
        "vocab": found.vocabulary,
        "merges": _merges_of(found),
    }


def _merges_of(found: Pieces) -> list[list[str]]:
    """All pairs of pieces that make a piece, those of the best score first."""
    parts = {text: number for number, (text, _, kind) in enumerate(found.pieces) if kind == NORMAL}
    merges: list[tuple[float, int, int, str, str]] = []
    for text, score, kind in found.pieces:
        if kind not in (NORMAL, UNUSED):
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in parts and right in parts:
                merges.append((-score, parts[left], parts[right], left, right))
    return [[left, right] for *_, left, right in sorted(merges)]


def _merges_in(path: Path) -> list[list[str]]:
    merges = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2:
            raise ModelLoadError(f"{path}: line {number} is no merge of two tokens")
        merges.append(pair)
    return merges


def _byte_part(*, prefix: bool, use_regex: bool = True) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": prefix,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _around(
    ids: dict[str, int],
    before: list[str],
    after: list[str],
    *,
    between: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """What stands around a text, and between two; None for nothing."""

    def marks(texts: Sequence[str], side: int) -> list[dict[str, Any]]:
        return [{"SpecialToken": {"id": text, "type_id": side}} for text in texts]

    if not before and not after:
        return None
    first: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
    second: dict[str, Any] = {"Sequence": {"id": "B", "type_id": 1}}
    middle = marks(between, 0) if between is not None else marks([*after, *before], 1)
    special = {
        text: {"id": text, "ids": [ids[text]], "tokens": [text]}
        for text in (*before, *after, *(between or ()))
    }
    return {
        "type": "TemplateProcessing",
        "single": [*marks(before, 0), first, *marks(after, 0)],
        "pair": [*marks(before, 0), first, *middle, second, *marks(after, 1)],
        "special_tokens": special,
    }


def _entry(number: int, given: dict[str, Any]) -> dict[str, Any]:
    switches = {
        name: bool(given.get(name, False))
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
    }
    return {"id": number, "content": str(given["content"]), **switches}


def _whole(added: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts}


def _unknown(old: OldTokenizer, name: str) -> ModelLoadError:
    what = (
        f"of the class {old.kind!r}"
        if old.kind
        else "without a tokenizer_config.json that says its class"
    )
    return ModelLoadError(
        f"{old.folder / name} is {what}, whose rules are not known; put the model's tokenizer.json there, or "
        "name a folder that has it with --tokenizer"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds {type(content).__name__}; it must be a JSON object")
    return content
