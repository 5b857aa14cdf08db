"""How a model in a GGUF file pools, as the files that sentence-transformers writes beside a checkpoint.

What those mean is `models.sentence_modules`'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quire.models.head_layers import HEAD_FOLDER
from quire.models.loading.gguf.family import Family
from quire.models.loading.gguf.header import BlockTensor, GgufHeader
from quire.models.loading.gguf.mixers import Settings
from quire.protocol.errors import ModelLoadError

_NONE, _RANK = 0, 4
_DENSE = ("dense_2", "dense_3")
"""Products behind the pooling, in order."""
_MODES = {1: "mean_tokens", 2: "cls_token", 3: "lasttoken"}


def has_classes(header: GgufHeader, family: Family) -> bool:
    """Whether a file has a head that makes classes or ranks, of a family of which that is read."""
    return "cls.output" in family.top and "cls.output.weight" in header.tensors


def classes_of(header: GgufHeader, family: Family, read: Settings) -> dict[str, Any]:
    """What config.json says of a head of classes; nothing for a file without.

    Of Qwen3-Reranker it is two rows, of "yes" and "no", of which the first one's share ranks.
    Raises ModelLoadError for a head that is not whole.
    """
    labels = read.each("classifier.output_labels")
    if not has_classes(header, family):
        return {}
    if "cls" in family.top and "cls.weight" not in header.tensors:
        raise ModelLoadError(
            f"{header.path} has cls.output.weight, but not cls.weight: llama.cpp's converter leaves out the product "
            "between a BERT and its classes. Take the model's safetensors files"
        )
    if family.architecture == "BertModel" and "token_types.weight" not in header.tensors:
        raise ModelLoadError(
            f"{header.path}: heads of DistilBERT are not read from GGUF files. Take the model's safetensors files"
        )
    if family.architecture == "Qwen3ForCausalLM":
        if header.tensors["cls.output.weight"].shape[0] != 2:
            raise ModelLoadError(
                f"{header.path}: cls.output.weight must have two rows, of yes and of no"
            )
        return {"method": "from_2_way_softmax", "num_labels": 1, "label_rows": [1, 0]}
    return (
        {"id2label": {str(place): str(one) for place, one in enumerate(labels)}} if labels else {}
    )


def _head_files(header: GgufHeader, family: Family) -> dict[str, Any]:
    """The head's tensors as a file in a folder of their own."""
    found = {
        f"{family.top[stem]}.{kind}": header.tensors[f"{stem}.{kind}"]
        for stem in ("cls", "cls.norm", "cls.output")
        for kind in ("weight", "bias")
        if stem in family.top and f"{stem}.{kind}" in header.tensors
    }
    return {f"{HEAD_FOLDER}/model.safetensors": _safetensors(found)}


def pooling_files(header: GgufHeader, family: Family) -> dict[str, Any]:
    """modules.json and what it names, bytes where it is no JSON; nothing for a file that does not say how it pools.

    Vectors get length one, as llama.cpp's server gives them. Raises ModelLoadError for another way of pooling.
    """
    if has_classes(header, family):
        return _head_files(header, family)
    name = header.values.get("general.architecture")
    kind = header.values.get(f"{name}.pooling_type", _NONE)
    dense = [layer for layer in _DENSE if f"{layer}.weight" in header.tensors]
    if kind == _NONE and not dense:
        return {}
    if kind not in _MODES:
        what = "a head that ranks, which is not in the file" if kind == _RANK else "unknown"
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
        files[f"{place}_Dense/model.safetensors"] = _safetensors({"linear.weight": tensor})
    return files


def _safetensors(tensors: Mapping[str, BlockTensor]) -> bytes:
    """Tensors as one file, by their names in it."""
    entries: dict[str, Any] = {}
    blobs: list[bytes] = []
    begin = 0
    for name, tensor in tensors.items():
        data, element = _floats(tensor)
        place = [begin, begin + len(data)]
        entries[name] = {"dtype": element, "shape": list(tensor.shape), "data_offsets": place}
        begin += len(data)
        blobs.append(data)
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    return b"".join((len(head).to_bytes(8, "little"), head, *blobs))


def _floats(tensor: BlockTensor) -> tuple[bytes, str]:
    """The numbers of a tensor above the decoder, and their type."""
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        data = file.read(tensor.num_bytes)
    element = tensor.kind.name
    if element == "Q8_0":
        return _q8_0(data), "F32"
    if element not in ("F32", "F16", "BF16"):
        raise ModelLoadError(
            f"{tensor.path}: a tensor of {list(tensor.shape)} behind the pooling is of type {element}; F32, F16, "
            "BF16 and Q8_0 are read. Take another file, or the model's safetensors files"
        )
    return data, element


def _q8_0(data: bytes) -> bytes:
    """Float32 of blocks of 32 codes behind a float16 scale."""
    import numpy as np  # of few files only

    blocks = np.frombuffer(data, np.uint8).reshape(-1, 34)
    scales = np.ascontiguousarray(blocks[:, :2]).view(np.float16).astype(np.float32)
    return (np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32) * scales).tobytes()
