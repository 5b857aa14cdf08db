"""Rewrites a pickle of weights as safetensors: `python -m quire.models.loading.pickled SOURCE TARGET`.

torch's loader takes tensors and containers alone, so nothing in the file can run. For those who ask for it
(`--load-format pt`); everything else reads safetensors.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file


def main(source: str, target: str) -> int:
    """1, with a line on stderr, for a file that is none of weights alone."""
    try:
        found = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        try:  # files of before 2020 cannot be mapped
            found = torch.load(source, map_location="cpu", weights_only=True)
        except Exception:
            print(f"it is no pickle of weights alone ({_first_line(error)})", file=sys.stderr)
            return 1
    while isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(
        isinstance(one, torch.Tensor) for one in found.values()
    ):
        print("it holds something else than tensors by name", file=sys.stderr)
        return 1
    seen: set[tuple[int, int]] = set()
    kept = {}
    for name, tensor in found.items():
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
        kept[name] = tensor.clone() if place in seen else tensor.contiguous()
        seen.add(place)
    save_file(kept, target, metadata={"format": "pt"})
    return 0


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
