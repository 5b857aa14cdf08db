"""The tokenizer.json of a checkpoint: its own, or one made of the older files and kept in the cache.

What is in the older files is read by `loading.tokenizer_forms` and `loading.sentencepiece`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from quire.models.loading.made import made_folder, state_of
from quire.models.loading.sentencepiece import read_pieces
from quire.models.loading.tokenizer_forms import OldTokenizer, byte_pairs, pieces, word_pieces
from quire.protocol.errors import ModelLoadError

NAME = "tokenizer.json"
_OLD = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")
_BESIDE = ("added_tokens.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
_VERSION = "1"  # of what is made: another one makes files anew


def tokenizer_file(folder: str | Path) -> Path:
    """The path of a tokenizer.json for the checkpoint in `folder`.

    Raises ModelLoadError where there is neither one nor older files, and for those that are damaged or
    of a kind whose rules are not known.
    """
    folder = Path(folder)
    own = folder / NAME
    if own.is_file():
        return own
    if not any((folder / name).is_file() for name in _OLD):
        raise ModelLoadError(
            f"no tokenizer.json in {folder}, and no {', '.join(_OLD)}; put the model's tokenizer there, "
            "name another folder with tokenizer=, or set skip_tokenizer_init to use token ids only"
        )
    beside = (folder / name for name in (*_OLD, *_BESIDE))
    seen = [state_of(path) for path in beside if path.is_file()]

    def make(place: Path) -> None:
        text = json.dumps(_made_of(folder), ensure_ascii=False)
        (place / NAME).write_text(text, encoding="utf-8")

    identity = (_VERSION, os.path.abspath(folder), *seen)
    return made_folder("tokenizers", identity, Path.is_dir, make) / NAME


def class_settings(folder: str | Path) -> dict[str, str]:
    """What the class of older files means beside tokenizer_config.json: `bos_token` and the like.

    Empty where there is a tokenizer.json. Raises ModelLoadError as `tokenizer_file` does.
    """
    if (Path(folder) / NAME).is_file():
        return {}
    named = OldTokenizer.read(Path(folder)).named()
    return {f"{role}_token": text for role, text in named.items()}


def _made_of(folder: Path) -> dict[str, object]:
    old = OldTokenizer.read(folder)
    if (folder / "tokenizer.model").is_file():
        return pieces(old, read_pieces(folder / "tokenizer.model"))
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return byte_pairs(old)
    if (folder / "vocab.txt").is_file():
        return word_pieces(old)
    raise ModelLoadError(
        f"{folder} has vocab.json or merges.txt, but not both; put the other there"
    )
