"""A GGUF file as a checkpoint folder: config.json and the tokenizer written out, the file itself linked.

So the rest needs to know nothing of GGUF but how to read its tensors, which is `gguf.checkpoint`'s.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from quire.models.loading.gguf.config import config_of, family_of
from quire.models.loading.gguf.header import GgufHeader, floats_of, read_all
from quire.models.loading.gguf.pooling import pooling_files
from quire.models.loading.gguf.tokenizer import (
    end_tokens,
    has_tokenizer,
    settings_of,
    tokenizer_of,
)
from quire.models.loading.made import made_folder, state_of

LINK = "model.gguf"
"""The file in its folder."""
_VERSION = "2"  # of what is written: another one makes folders anew


def folder_of(path: Path, *, with_tokenizer: bool = True) -> Path:
    """The folder of a file, made if it is not there; it lies in the cache, and is small.

    with_tokenizer  False leaves the tokenizer out: another one is given.
    Raises ModelLoadError for a file that is damaged or of a kind that is not read.
    """
    path = Path(os.path.abspath(path))  # links kept: the hub's cache has the names of parts in them
    identity = (_VERSION, str(path), state_of(path), str(with_tokenizer))

    def make(place: Path) -> None:
        for name, values in _files(read_all(path), with_tokenizer).items():
            (place / name).parent.mkdir(exist_ok=True)
            is_json = not isinstance(values, bytes)
            data = json.dumps(values, ensure_ascii=False).encode() if is_json else values
            (place / name).write_bytes(data)
        (place / LINK).symlink_to(path)

    return made_folder("gguf", identity, lambda folder: (folder / LINK).exists(), make)


def _files(header: GgufHeader, with_tokenizer: bool) -> dict[str, Any]:
    """What the folder's files hold."""

    config = config_of(header, partial(floats_of, header))
    ends = end_tokens(header)
    if ends:
        config["eos_token_id"] = ends
    first = header.values.get("tokenizer.ggml.bos_token_id")
    if first is not None:
        config["bos_token_id"] = first
    files = {"config.json": config, **pooling_files(header, family_of(header))}
    if with_tokenizer and has_tokenizer(header):
        files["tokenizer.json"] = tokenizer_of(header)
        files["tokenizer_config.json"] = settings_of(header)
    return files
