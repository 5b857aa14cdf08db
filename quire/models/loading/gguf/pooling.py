"""How a model in a GGUF file pools, as the files that sentence-transformers writes beside a checkpoint.

What those mean is `models.sentence_modules`'.
"""

from __future__ import annotations

import json
from typing import Any

from quire.models.loading.gguf.header import BlockTensor, GgufHeader
from quire.protocol.errors import ModelLoadError

_NONE, _RANK = 0, 4
_DENSE = ("dense_2", "dense_3")
"""Products behind the pooling, in order."""
_MODES = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}


def pooling_files(header: GgufHeader) -> dict[str, Any]:
    """modules.json and what it names, bytes where it is no JSON; nothing for a file that does not say how it pools.

    Vectors get length one, as llama.cpp's server gives them. Raises ModelLoadError for another way of pooling.
    """
    name = header.values.get("general.architecture")
    kind = header.values.get(f"{name}.pooling_type", _NONE)
    dense = [layer for layer in _DENSE if f"{layer}.weight" in header.tensors]
    if kind == _NONE and not dense:
        return {}
    if kind not in _MODES:
        what = "a head that ranks" if kind == _RANK else "unknown"
        raise ModelLoadError(
            f"{header.path}: {name}.pooling_type is {kind}, {what}; 0 to 3 (none, mean, first and last token) "
            "are read from GGUF files. Take the model's safetensors files"
        )
    parts = ("Transformer", "Pooling", *["Dense"] * len(dense), "Normalize")
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{part}" if place else "",
            "type": f"sentence_transformers.models.{part}",
        }
        for place, part in enumerate(parts)
    ]
    modes = {f"pooling_mode_{mode}": number == kind for number, mode in _MODES.items()}
    files: dict[str, Any] = {"modules.json": modules, "1_Pooling/config.json": modes}
    for place, layer in enumerate(dense, 2):
        tensor = header.tensors[f"{layer}.weight"]
        files[f"{place}_Dense/config.json"] = {
            "in_features": tensor.shape[-1],
            "out_features": tensor.shape[0],
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        files[f"{place}_Dense/model.safetensors"] = _safetensors(f"{layer}.weight", tensor)
    return files


def _safetensors(name: str, tensor: BlockTensor) -> bytes:
    """A product as a file with one tensor, `linear.weight`."""
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        data = file.read(tensor.num_bytes)
    element = tensor.kind.name
    if element == "Q8_0":
        data, element = _q8_0(data), "F32"
    if element not in ("F32", "F16", "BF16"):
        raise ModelLoadError(
            f"{tensor.path}: tensor {name!r} is of type {element}; of a product behind the pooling F32, F16, "
            "BF16 and Q8_0 are read. Take another file, or the model's safetensors files"
        )
    entry = {"dtype": element, "shape": list(tensor.shape), "data_offsets": [0, len(data)]}
    head = json.dumps({"linear.weight": entry}).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data


def _q8_0(data: bytes) -> bytes:
    """Float32 of blocks of 32 codes behind a float16 scale."""
    import numpy as np  # of few files only

    blocks = np.frombuffer(data, np.uint8).reshape(-1, 34)
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    return (np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32) * scales).tobytes()
