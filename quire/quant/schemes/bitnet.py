"""BitNet: weights of -1, 0 and 1 with one scale a matrix, packed by fours, or floats that are rounded to such.

Inputs keep their bits: rows of 8 bits, with which these models were trained, are computed as rows of 16.
Numbers are made in `quant.decoders.integers`. Source: arXiv 2402.17764 and how Transformers packs a matrix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quire.quant.formats import Format
from quire.quant.schemes.parts import Infos, Read, collect, member, names_layer
from quire.quant.stored import StoredTensor

_FLOATS = ("F16", "BF16", "F32")
_OF_A_LAYER = re.compile(r"(.*\.)?layers\.\d+\..*_proj\.weight")
_CLASSES = {"bitlinear": "divides", "autobitlinear": "multiplies"}
"""What a scale does to the sum of a row, by `linear_class`."""


def bitnet(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of a checkpoint: those with a scale are packed, or the products of all layers are rounded."""
    kind, mode = settings.get("linear_class", "bitlinear"), settings.get("quantization_mode")
    if kind not in _CLASSES or mode not in (None, "offline", "online"):
        raise ValueError(
            f"quantization_config: linear_class {kind!r} with quantization_mode {mode!r} is not read; "
            f"{' and '.join(_CLASSES)}, offline and online, are"
        )
    if settings.get("use_rms_norm"):
        raise ValueError(
            "quantization_config: use_rms_norm, a norm before each product, is not computed"
        )
    found = {}
    for name, info in infos.items():
        if info.element == "U8" and name.endswith(".weight"):
            found[name] = _packed(infos, name, _CLASSES[kind])
        elif mode == "online" and _OF_A_LAYER.fullmatch(name) and _is_rounded(settings, name):
            shape = infos[name].shape
            members = {"weight": member(infos, name, shape, _FLOATS)}
            found[name] = StoredTensor(shape, members, decoder="ternary", format=Format("int4"))
    return collect(infos, found)


def _is_rounded(settings: Mapping[str, Any], name: str) -> bool:
    """Whether no entry of `modules_to_not_convert` names the layer."""
    stem = name.removesuffix(".weight")
    left = settings.get("modules_to_not_convert") or []
    return not any(names_layer(str(pattern), stem) for pattern in left)


def _packed(infos: Infos, name: str, scale: str) -> StoredTensor:
    shape, scales = infos[name].shape, f"{name}_scale"
    if len(shape) != 2:
        raise ValueError(f"tensor {name!r} is U8 {list(shape)}; rows of four weights are needed")
    given = infos[scales].shape if scales in infos else (1,)
    if given not in ((), (1,), (1, 1)):
        raise ValueError(f"tensor {scales!r} has the shape {list(given)}; one scale is needed")
    return StoredTensor(
        (4 * shape[0], shape[1]),
        {"codes": name, "scales": member(infos, scales, given, _FLOATS)},
        decoder="ternary_bytes",
        options={"scale": scale},
        format=Format("int4"),
    )
