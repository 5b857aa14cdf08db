"""Quark: what AMD's tool exports in its own layout; integers of 4 and 8 bits, FP8 and
the microscaling formats.

Numbers are made in `quant.decoders`. Source: the layout of the tool's exports (`real_quantized`). Inputs of
floats keep their bits, as in `schemes.float8`.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from quire.quant.formats import PLAIN, Format
from quire.quant.schemes.float8 import scaled
from quire.quant.schemes.inputs import rounded_inputs
from quire.quant.schemes.microscaling import BITS, microscaled
from quire.quant.schemes.parts import Infos, Read, collect, integer_format, member, whole
from quire.quant.stored import StoredTensor

_FLOATS = ("F16", "BF16", "F32")


def quark(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of an export; a layer's settings are those of the first pattern that names it, or of all."""
    export = settings.get("export") or {}
    if export.get("weight_format", "real_quantized") != "real_quantized":
        raise ValueError(
            f"quantization_config: weight_format {export['weight_format']!r} is not read; real_quantized is"
        )
    in_order = export.get("pack_method", "reorder") == "order"
    found = {}
    for name in infos:
        if name.endswith(".weight") and f"{name}_scale" in infos:
            stem = name.removesuffix(".weight")
            found[name] = _layer(infos, read, stem, _settings_of(stem, settings), in_order)
    return collect(infos, found)


def _settings_of(stem: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    named = settings.get("layer_quant_config") or {}
    for pattern, one in named.items():
        if fnmatchcase(stem, pattern) and isinstance(one, dict):
            return one
    one = settings.get("global_quant_config")
    if not isinstance(one, dict):
        raise ValueError("quantization_config lacks global_quant_config")
    return one


def _layer(
    infos: Infos, read: Read, stem: str, settings: Mapping[str, Any], in_order: bool
) -> StoredTensor:
    weight, inputs = settings.get("weight"), settings.get("input_tensors")
    if not isinstance(weight, dict) or not isinstance(inputs or {}, dict):
        raise ValueError(f"{stem}: numbers quantized in several steps are not read")
    kind, scheme = weight.get("dtype"), weight.get("qscheme")
    if kind == "fp8_e4m3" and scheme in ("per_tensor", "per_channel"):
        return scaled(infos, f"{stem}.weight", None)
    if kind in BITS and weight.get("scale_format") == "e8m0" and weight.get("group_size") == 32:
        return microscaled(infos, f"{stem}.weight", f"{stem}.weight_scale", str(kind))
    if kind in ("int4", "uint4") and scheme == "per_group":
        return _four_bits(infos, stem, weight, in_order)
    if kind == "int8" and scheme in ("per_tensor", "per_channel"):
        return _eight_bits(infos, read, stem, weight, inputs or {})
    raise ValueError(
        f"{stem}: weights of the type {kind!r} {scheme!r} are not read; int4 and uint4 per_group, int8 and "
        f"fp8_e4m3 per_tensor and per_channel, and {', '.join(BITS)} with e8m0 scales of 32 are"
    )


def _four_bits(infos: Infos, stem: str, weight: Mapping[str, Any], in_order: bool) -> StoredTensor:
    """Words along the columns [K, N / 8], as AWQ's."""
    depth, words = _matrix(infos, stem)
    size, columns, is_signed = whole(weight, ("group_size",)), words * 8, weight["dtype"] == "int4"
    if size < 1 or depth % size:
        raise ValueError(f"quantization_config: group_size {size} does not divide {depth} inputs")
    members = {
        "codes": member(infos, f"{stem}.weight", (depth, words), ("I32",)),
        "scales": member(infos, f"{stem}.weight_scale", (depth // size, columns), _FLOATS),
    }
    zeros = f"{stem}.weight_zero_point"
    if zeros in infos:
        members["zeros"] = member(infos, zeros, (depth // size, words), ("I32",))
    has_zeros = not (is_signed and weight.get("symmetric")) and zeros in infos
    return StoredTensor(
        (columns, depth),
        members,
        decoder="awq",
        options={"bits": 4, "signed": is_signed, "in_order": in_order},
        format=integer_format(4, depth, size, has_zeros=has_zeros),
    )


def _eight_bits(
    infos: Infos, read: Read, stem: str, weight: Mapping[str, Any], inputs: Mapping[str, Any]
) -> StoredTensor:
    rows, depth = _matrix(infos, stem)
    scale, zeros = f"{stem}.weight_scale", f"{stem}.weight_zero_point"
    given = infos[scale].shape
    member(infos, scale, given if given in ((), (1,)) else (rows,), _FLOATS)
    members = {"codes": member(infos, f"{stem}.weight", (rows, depth), ("I8",)), "scales": scale}
    if zeros in infos:
        members["zeros"] = member(infos, zeros, given, ("I8", "I32"))
    rounding, fixed = rounded_inputs(infos, read, stem, _inputs(inputs))
    return StoredTensor(
        (rows, depth),
        members,
        decoder="bytes",
        options={"bits": 8, "inputs": fixed},
        format=Format("int8", inputs=rounding) if weight.get("symmetric", True) else PLAIN,
    )


def _inputs(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of inputs in the words of compressed-tensors; none where they are not rounded to integers."""
    kind = str(settings.get("dtype", ""))
    if not kind or kind.startswith("fp"):
        return {}
    scheme = str(settings.get("qscheme"))
    return {
        "type": kind.rstrip("0123456789"),
        "num_bits": int(kind.lstrip("uint") or 0),
        "strategy": "tensor" if scheme == "per_tensor" else "token",
        "dynamic": settings.get("is_dynamic", False),
        "symmetric": settings.get("symmetric", True),
    }


def _matrix(infos: Infos, stem: str) -> tuple[int, int]:
    shape = infos[f"{stem}.weight"].shape
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f"tensor {stem + '.weight'!r} has the shape {list(shape)}; a matrix is needed"
        )
    return shape[0], shape[1]
