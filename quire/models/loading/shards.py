"""Saves a checkpoint of floats as vLLM's `sharded_state`: parts of one device, neighbouring weights as one tensor.

Reading such folders is `models.loading.forms`' and `models.names`'.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from quire.models.fused_names import FUSED
from quire.models.loading.checkpoint import read_checkpoint
from quire.models.loading.floats import floats_of
from quire.models.loading.forms import SHARDS, WEIGHT_ENDS
from quire.protocol.errors import ModelLoadError, SettingsError

DEFAULT_BYTES = 5 << 30
"""Of one file, as vLLM has it."""
_NAME = re.compile(r"(.*\.(?:self_attn|mlp)\.)(q|k|v|gate|up)_proj\.(weight|bias)")


def save_sharded_state(
    folder: Path,
    config: Mapping[str, Any],
    path: str | Path,
    pattern: str | None = None,
    max_size: int | None = None,
) -> list[Path]:
    """Writes the weights of a folder under `path`, with its config and tokenizer; the files of weights.

    pattern  of names, with {rank} and {part}; None is vLLM's. max_size  bytes of one file; None is 5 GiB.
    Raises ModelLoadError for a quantized checkpoint, SettingsError for a pattern or size that cannot be.
    """
    pattern, room = pattern or SHARDS, DEFAULT_BYTES if max_size is None else max_size
    if "{rank}" not in pattern or "{part}" not in pattern or "/" in pattern or room < 1:
        raise SettingsError(
            f"pattern is {pattern!r} and max_size {room}; the pattern needs {{rank}} and {{part}}, the size a byte"
        )
    if read_checkpoint(folder, config).method is not None:
        raise ModelLoadError(
            f"{folder} is quantized; sharded_state is saved of checkpoints of floats"
        )
    target = Path(path)
    target.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    part: dict[str, torch.Tensor] = {}

    def write() -> None:
        made.append(target / pattern.format(rank=0, part=len(made)))
        save_file(part, made[-1], metadata={"format": "pt"})
        part.clear()

    size = 0
    for name, tensor in _fused(floats_of(folder, config)):
        if part and size + tensor.nbytes > room:
            write()
            size = 0
        part[name] = tensor.contiguous()
        size += tensor.nbytes
    write()
    for file in folder.iterdir():
        if file.is_file() and not file.name.endswith(WEIGHT_ENDS):
            shutil.copy(file, target / file.name)
    return made


def _fused(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Neighbouring parts as one tensor as soon as all of them were there; what stays alone comes last."""
    waiting: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors:
        match = _NAME.fullmatch(name)
        if match is None:
            yield name, tensor
            continue
        whole = next(one for one, parts in FUSED.items() if f"{match[2]}_proj" in parts)
        key = f"{match[1]}{whole}.{match[3]}"
        waiting.setdefault(key, {})[f"{match[2]}_proj"] = tensor
        if len(waiting[key]) == len(FUSED[whole]):
            found = waiting.pop(key)
            yield key, torch.cat([found[part] for part in FUSED[whole]])
    for key, found in waiting.items():
        for part, tensor in found.items():
            stem, _, end = key.rpartition(".")
            yield f"{stem.rpartition('.')[0]}.{part}.{end}", tensor
