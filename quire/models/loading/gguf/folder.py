"""A GGUF file as a checkpoint folder: config.json and the tokenizer written out, the file itself linked.

So the rest needs to know nothing of GGUF but how to read its tensors, which is `gguf.checkpoint`'s.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from quire.models.loading.gguf.config import config_of
from quire.models.loading.gguf.header import GgufHeader, read_all
from quire.models.loading.gguf.pooling import pooling_files
from quire.models.loading.gguf.tokenizer import (
    end_tokens,
    has_tokenizer,
    settings_of,
    tokenizer_of,
)
from quire.models.loading.made import made_folder, state_of
from quire.protocol.errors import ModelLoadError

LINK = "model.gguf"
"""The file in its folder."""
_VERSION = "2"  # of what is written: another one makes folders anew


def gguf_file(model: str) -> Path | None:
    """The GGUF file that a model's name means: the file, or the only model in a folder without config.json.

    Raises ModelLoadError for a folder with several.
    """
    path = Path(model)
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = [
        one
        for one in sorted(path.glob("*.gguf"))
        if "-of-" not in one.name or "-00001-of-" in one.name
    ]
    found = [one for one in found if not one.name.startswith("mmproj")]
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ModelLoadError(f"{path} holds several models ({names}): give the path of one")
    return found[0] if found else None


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

    def floats(name: str) -> list[float]:
        tensor = header.tensors[name]
        if tensor.kind.name != "F32":
            raise ModelLoadError(
                f"{header.path}: tensor {name!r} must be F32, not {tensor.kind.name}"
            )
        with tensor.path.open("rb") as file:
            file.seek(tensor.begin)
            return list(struct.unpack(f"<{tensor.num_bytes // 4}f", file.read(tensor.num_bytes)))

    config = config_of(header, floats)
    ends = end_tokens(header)
    if ends:
        config["eos_token_id"] = ends
    first = header.values.get("tokenizer.ggml.bos_token_id")
    if first is not None:
        config["bos_token_id"] = first
    files = {"config.json": config, **pooling_files(header)}
    if with_tokenizer and has_tokenizer(header):
        files["tokenizer.json"] = tokenizer_of(header)
        files["tokenizer_config.json"] = settings_of(header)
    return files
