"""tekken.json, the tokenizer of Mistral's own form, as tokenizer.json.

Tokens are bytes in the order of their ranks behind the special ones; what a token is merged of follows from
the ranks. Source: the layout of mistral-common's files.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from quire.protocol.errors import ModelLoadError

NAME = "tekken.json"
_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
"""Of files that name none."""


def ids_of_ends(folder: Path) -> dict[str, int]:
    """Ids of the tokens that begin and end a text, "bos" and "eos"; empty without a file."""
    if not (folder / NAME).is_file():
        return {}
    special = _special(_read(folder / NAME))
    return {
        end: special.index(token)
        for end, token in (("bos", "<s>"), ("eos", "</s>"))
        if token in special
    }


def files_of(folder: Path) -> dict[str, bytes]:
    """tokenizer.json, and tokenizer_config.json with what the folder's own adds. Raises ModelLoadError."""
    values = _read(folder / NAME)
    config = values["config"]
    special = _special(values)
    room = config["default_vocab_size"] - len(special)
    try:
        tokens = [
            base64.b64decode(one["token_bytes"], validate=True) for one in values["vocab"][:room]
        ]
    except (KeyError, TypeError, binascii.Error) as error:
        raise ModelLoadError(f"{folder / NAME}: its vocabulary is damaged: {error!r}") from error
    ranks = {token: rank for rank, token in enumerate(tokens)}
    if len(ranks) != len(tokens) or any(bytes([byte]) not in ranks for byte in range(256)):
        raise ModelLoadError(
            f"{folder / NAME}: its vocabulary holds a token twice, or lacks a byte"
        )
    letters = _letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocabulary = {token: place for place, token in enumerate(special)}
    vocabulary |= {spelled(token): rank + len(special) for token, rank in ranks.items()}
    made = _file(special, vocabulary, [[*map(spelled, pair)] for pair in _merges(tokens, ranks)])
    made["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": config["pattern"]}
    own = folder / "tokenizer_config.json"
    settings = json.loads(own.read_text(encoding="utf-8")) if own.is_file() else {}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings |= {key: token for key, token in names.items() if token in special}
    return {
        "tokenizer.json": json.dumps(made, ensure_ascii=False).encode(),
        "tokenizer_config.json": json.dumps(settings, ensure_ascii=False).encode(),
    }


def _file(
    special: list[str], vocabulary: dict[str, int], merges: list[list[str]]
) -> dict[str, Any]:
    """What tokenizer.json holds, but for the pattern by which text is cut."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(place, token) for place, token in enumerate(special)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": ""},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": False,
                    "use_regex": False,
                },
            ],
        },
        "post_processor": _begin(special),
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = values["config"]
        sizes = (config["default_vocab_size"], config["default_num_special_tokens"])
        if not all(type(size) is int and size > 0 for size in sizes) or not isinstance(
            config["pattern"], str
        ):
            raise ValueError("its config has no sizes or no pattern")
        if not isinstance(values["vocab"], list):
            raise TypeError("it has no vocabulary")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read as a tekken tokenizer: {error!r}") from error
    return dict(values)


def _special(values: dict[str, Any]) -> list[str]:
    """Special tokens in the order of their ids, with names for those that have none."""
    given = values.get("special_tokens")
    names = {one["rank"]: one["token_str"] for one in given} if given else dict(enumerate(_SPECIAL))
    count = values["config"]["default_num_special_tokens"]
    return [names.get(place, f"<SPECIAL_{place}>") for place in range(count)]


def _merges(tokens: list[bytes], ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """All pairs of tokens that make a token, in the order of what they make and then of their own."""
    found = []
    for token in tokens:
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        found += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return found


def _letters() -> dict[int, str]:
    """The letter of each byte in byte-level vocabularies: itself if it is visible, else one from 256 up."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {
        byte: chr(256 + place) for place, byte in enumerate(hidden)
    }


def _added(place: int, token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": place, "content": token, **flags, "special": True}


def _begin(special: list[str]) -> dict[str, Any] | None:
    """What puts the first token before a text."""
    if "<s>" not in special:
        return None
    first = {"SpecialToken": {"id": "<s>", "type_id": 0}}

    def sequence(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    return {
        "type": "TemplateProcessing",
        "single": [first, sequence("A")],
        "pair": [first, sequence("A"), sequence("B")],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [special.index("<s>")], "tokens": ["<s>"]}},
    }
