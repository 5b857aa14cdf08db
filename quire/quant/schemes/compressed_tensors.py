"""compressed-tensors: what LLM Compressor writes; each layer's numbers follow the group that names it.

Inputs of int8 weights are rounded to 8 bits as the settings say. Others keep their bits: FP8's W8A8 is
computed as W8A16, W4A4 as W4A16.
Unpacking is `quant.decoders`'. Source: the description of the library's formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.quant.formats import PLAIN, Format
from quire.quant.schemes import sparse
from quire.quant.schemes.float8 import FLOATS_OF_8, packed, scaled
from quire.quant.schemes.inputs import rounded_inputs
from quire.quant.schemes.parts import (
    Infos,
    Read,
    collect,
    group_of,
    integer_format,
    member,
    names_layer,
    ordered,
    whole,
)
from quire.quant.schemes.turned import turned
from quire.quant.stored import StoredTensor

_FLOATS = ("F16", "BF16", "F32")
_LINEAR = ("Linear", "LinearBase", "MoEGMM", "FusedMoE")


def compressed_tensors(
    settings: Mapping[str, Any], infos: Infos, read: Read
) -> dict[str, StoredTensor]:
    """The weights of a checkpoint: integers packed or not, 8-bit floats, NVFP4 and the
    microscaling formats, and weights without their zeros."""
    sparsity = settings.get("sparsity_config") or {}
    if sparsity.get("format", "dense") not in ("dense", "", *sparse.MASKED):
        raise ValueError(
            f"quantization_config: the sparse format {sparsity['format']!r} is not read; dense, "
            f"{' and '.join(sparse.MASKED)} are"
        )
    given, infos = infos, sparse.filled(infos, read)
    groups = settings.get("config_groups") or {}
    if not isinstance(groups, dict):
        raise ValueError("quantization_config: config_groups must be an object")
    found = {}
    for name, info in infos.items():
        stem, _, kind = name.rpartition(".")
        if kind == "weight_packed":
            weights, style = _settings_of(stem, groups, settings)
            if f"{stem}.scale_packed" in infos:
                found[f"{stem}.weight"] = _two_of_four(infos, stem, weights)
            elif info.element == "U8":
                found[f"{stem}.weight"] = _floats(infos, stem, weights, style)
            else:
                found[f"{stem}.weight"] = _packed(infos, read, stem, weights)
        elif kind == "weight" and info.element == "I8":
            weights, _ = _settings_of(stem, groups, settings)
            inputs = _settings_of(stem, groups, settings, "input_activations")[0]
            found[name] = _integers(infos, read, stem, weights, inputs)
        elif kind == "weight" and info.element in FLOATS_OF_8:
            weights, _ = _settings_of(stem, groups, settings)
            block = weights.get("block_structure")
            blocks = weights.get("strategy") == "block" and isinstance(block, list)
            found[name] = scaled(infos, name, tuple(block) if blocks else None)  # type: ignore[arg-type]
    left = {
        name: info
        for name, info in infos.items()
        if name in given and not name.endswith(".weight_shape")
    }
    whole_weights = collect(left, sparse.with_masks(infos, found))
    turns = settings.get("transform_config")
    return turned(turns, infos, whole_weights) if turns else whole_weights


def _two_of_four(infos: Infos, stem: str, weights: Mapping[str, Any]) -> StoredTensor:
    """`marlin-24`: whose writer takes the inputs that are left for all, where it asks for groups."""
    names = (f"{stem}.weight_packed", f"{stem}.meta", f"{stem}.scale_packed")
    bits, size = whole(weights, ("num_bits",)), whole(weights, ("group_size",), -1)
    return sparse.marlin_24(infos, names, bits, size, from_groups_of=2)


def _settings_of(
    stem: str, groups: Mapping[str, Any], settings: Mapping[str, Any], part: str = "weights"
) -> tuple[Mapping[str, Any], str]:
    """A part's settings of the group that names a layer, and its format; by name before by class."""
    for by_class in (False, True):
        for group in groups.values():
            targets = group.get("targets", []) if isinstance(group, dict) else []
            for target in targets:
                if target in _LINEAR if by_class else names_layer(str(target), stem):
                    if not isinstance(group.get("weights"), dict):
                        break
                    return group.get(part) or {}, str(
                        group.get("format") or settings.get("format", "")
                    )
    raise ValueError(
        f"no group of quantization_config names the layer {stem!r}, whose weight is quantized"
    )


def _size(weights: Mapping[str, Any], depth: int) -> int:
    """Inputs that share a scale."""
    strategy = weights.get("strategy", "channel")
    if strategy in ("channel", "tensor"):
        return depth
    if strategy not in ("group", "tensor_group"):
        raise ValueError(f"quantization_config: the strategy {strategy!r} of weights is not read")
    size = whole(weights, ("group_size",))
    if size < 1 or depth % size:
        raise ValueError(f"quantization_config: group_size {size} does not divide {depth} inputs")
    return size


def _scales(infos: Infos, stem: str, rows: int, groups: int) -> str:
    """The scales [rows, groups], or a single one."""
    name = f"{stem}.weight_scale"
    given = infos[name].shape if name in infos else ()
    if groups == 1 and given in ((), (1,), (rows,), (1, 1)):
        return member(infos, name, given, _FLOATS)
    return member(infos, name, (rows, groups), _FLOATS)


def _packed(infos: Infos, read: Read, stem: str, weights: Mapping[str, Any]) -> StoredTensor:
    """Integers in words of 32 bits along the inputs."""
    bits = whole(weights, ("num_bits",))
    if bits not in (2, 3, 4, 8) or weights.get("type", "int") != "int":
        raise ValueError(
            f"{stem}: packed weights of {bits} bits, type {weights.get('type')!r}, are not read"
        )
    info = infos[f"{stem}.weight_packed"]
    if len(info.shape) != 2 or info.element != "I32":
        raise ValueError(
            f"tensor {stem + '.weight_packed'!r} is {info.element} {list(info.shape)}; words are needed"
        )
    rows, words = info.shape
    depth, rest = divmod(words * 32, bits)
    if rest:
        raise ValueError(
            f"tensor {stem + '.weight_packed'!r} has {words} words in a row, which are no whole numbers of "
            f"{bits} bits"
        )
    size = _size(weights, depth)
    groups = -(-depth // size)
    symmetric = weights.get("symmetric", True) is not False
    members = {
        "codes": f"{stem}.weight_packed",
        "scales": _scales(infos, stem, rows, groups),
    }
    zeros = f"{stem}.weight_zero_point"
    if not symmetric:
        packed_rows = -(-rows * bits // 32)
        members["zeros"] = member(infos, zeros, (packed_rows, groups), ("I32",))
    format = integer_format(bits, depth, size, has_zeros=not symmetric)
    options: dict[str, Any] = {"bits": bits}
    index = f"{stem}.weight_g_idx"
    if index in infos:
        members["order"] = member(infos, index, (depth,), ("I32", "I64"))
        format, options["order"] = ordered(infos, read, index, format, size)
    return StoredTensor(
        (rows, depth),
        members,
        decoder="packed_rows",
        options=options,
        format=format,
    )


def _integers(
    infos: Infos, read: Read, stem: str, weights: Mapping[str, Any], inputs: Mapping[str, Any]
) -> StoredTensor:
    """Integers of 8 bits, one to a byte."""
    shape = infos[f"{stem}.weight"].shape
    if len(shape) != 2:
        raise ValueError(f"tensor {stem + '.weight'!r} has the shape {list(shape)}")
    rows, depth = shape
    size = _size(weights, depth)
    members = {
        "codes": f"{stem}.weight",
        "scales": _scales(infos, stem, rows, depth // size),
    }
    zeros = f"{stem}.weight_zero_point"
    has_zeros = zeros in infos and weights.get("symmetric", True) is False
    if has_zeros:
        members["zeros"] = member(infos, zeros, infos[members["scales"]].shape, ("I8",))
    elif zeros in infos:
        members["unused"] = zeros
    group = group_of(depth, size)
    rounding, scale = rounded_inputs(infos, read, stem, inputs)
    return StoredTensor(
        (rows, depth),
        members,
        decoder="bytes",
        options={"bits": whole(weights, ("num_bits",), 8), "inputs": scale},
        format=PLAIN
        if group is None
        else Format(
            "int8", group, has_zeros=has_zeros, inputs="" if group or has_zeros else rounding
        ),
    )


def _floats(infos: Infos, stem: str, weights: Mapping[str, Any], style: str) -> StoredTensor:
    """NVFP4, MXFP4 and MXFP6: numbers of 4 or 6 bits, packed in bytes."""
    kind = {4: "fp4", 6: "fp6_e2m3"}.get(whole(weights, ("num_bits",), 4))
    size = whole(weights, ("group_size",), 32)
    if kind is None or size not in (16, 32):
        raise ValueError(
            f"{stem}: {style} weights of groups of {size} are not read; 4 or 6 bits in groups "
            "of 32, and with a global scale of 16, are"
        )
    return packed(infos, f"{stem}.weight_packed", kind)
