"""Rewrites pickles of weights as safetensors: `python -m quire.models.loading.pickled SOURCE [SOURCE...] TARGET`.

torch's loader takes tensors and containers alone, so nothing in the file can run. For those who ask for it
(`--load-format pt`); everything else reads safetensors. Several sources are fairseq2's files of one device each.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from safetensors.torch import save_file

_BY_COLUMNS = ("output_proj",)
"""Ends of names of fairseq2's matrices that devices share by columns; other matrices are shared by rows."""

_DEEPEST = 4  # dictionaries around the tensors; one may hold itself


class Unreadable(Exception):
    """What is wrong with a file, in a line."""


def main(*paths: str) -> int:
    """1, with a line on stderr, for a file that is none of weights alone."""
    *sources, target = paths
    try:
        shards = [weights_of(source) for source in sources]
        found = shards[0] if len(shards) == 1 else _joined(shards)
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 1
    seen: set[tuple[int, int]] = set()
    kept = {}
    for name, tensor in found.items():
        place = (tensor.untyped_storage().data_ptr(), int(tensor.storage_offset()))
        kept[name] = tensor.clone() if place in seen else tensor.contiguous()
        seen.add(place)
    save_file(kept, target, metadata={"format": "pt"})
    return 0


def weights_of(source: str) -> dict[str, torch.Tensor]:
    """The tensors of a file by name. Raises Unreadable."""
    found: Any
    try:
        found = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        try:  # files of before 2020 cannot be mapped
            found = torch.load(source, map_location="cpu", weights_only=True)
        except Exception:
            raise Unreadable(f"it is no pickle of weights alone ({_first_line(error)})") from error
    for _ in range(_DEEPEST):
        key = found.get("model_key", "state_dict") if isinstance(found, dict) else None
        if not isinstance(key, str) or not isinstance(found.get(key), dict):
            break
        found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(one, torch.Tensor) for one in found.values()
    ):
        raise Unreadable("it holds something else than tensors by name")
    return found


def _joined(shards: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Whole tensors of those that each device had; what all have alike, they had whole. Raises Unreadable."""
    names = {frozenset(shard) for shard in shards}
    if len(names) != 1:
        raise Unreadable(f"the files of {len(shards)} devices hold different tensors")
    found = {}
    for name, first in shards[0].items():
        parts = [shard[name] for shard in shards]
        stem = name.removesuffix(".weight")
        inside = stem.endswith("_proj") and not stem.startswith("final_proj")
        if not inside and all(torch.equal(first, part) for part in parts):
            found[name] = first
            continue
        axis = int(stem.endswith(_BY_COLUMNS) and first.dim() == 2)
        if len({(part.dtype, *part.shape) for part in parts}) != 1 or not first.dim():
            raise Unreadable(f"the parts of {name!r} do not fit together")
        found[name] = torch.cat(parts, dim=axis)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
