"""The tokenizer.json of a checkpoint: its own, or one made of the older files and kept in the cache.

What is in the older files is read by `loading.tokenizer_forms` and `loading.sentencepiece`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

from quire.config.env import cache_dir
from quire.models.loading.sentencepiece import read_pieces
from quire.models.loading.tokenizer_forms import OldTokenizer, byte_pairs, pieces, word_pieces
from quire.protocol.errors import ModelLoadError

logger = logging.getLogger(__name__)

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
    parent = cache_dir() / "tokenizers"
    path = parent / f"{_digest(folder)}.json"
    if path.is_file():
        return path
    text = json.dumps(_made_of(folder), ensure_ascii=False)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return _written(path, text)
    except OSError as error:
        logger.warning("%s cannot be written (%s); a temporary folder is used", parent, error)
        return _written(Path(tempfile.mkdtemp(prefix="quire-tokenizer-")) / path.name, text)


def class_settings(folder: str | Path) -> dict[str, str]:
    """What the class of older files means beside tokenizer_config.json: `bos_token` and the like.

    Empty where there is a tokenizer.json. Raises ModelLoadError as `tokenizer_file` does.
    """
    if (Path(folder) / NAME).is_file():
        return {}
    named = OldTokenizer.read(Path(folder)).named()
    return {f"{role}_token": text for role, text in named.items()}


def _digest(folder: Path) -> str:
    parts = [_VERSION, os.path.abspath(folder)]
    for name in (*_OLD, *_BESIDE):
        path = folder / name
        if path.is_file():
            status = path.stat()
            parts.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


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


def _written(path: Path, text: str) -> Path:
    """Writes the file under another name and renames it when it is whole."""
    descriptor, unfinished = tempfile.mkstemp(prefix=".part-", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(unfinished, path)
    return path
