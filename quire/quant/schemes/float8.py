"""Checkpoints of 8-bit floats, and all of modelopt's: a scale for all, a column or a square.

Numbers are made in `quant.decoders`. Scales of inputs are left out but for integers': inputs keep their bits here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.quant.formats import PLAIN, SUPER_DEPTH, Format, super_format
from quire.quant.schemes.inputs import rounded_inputs
from quire.quant.schemes.microscaling import POWERS, microscaled
from quire.quant.schemes.parts import Infos, Read, collect, member
from quire.quant.stored import StoredTensor

_FLOATS = ("F32", "BF16", "F16")
FLOATS_OF_8 = {"F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e5m2"}
"""Types of tensors, and what microscaling calls their numbers."""


def float8(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of `fp8`, `fbgemm_fp8`, `ptpc_fp8` and modelopt's FP8, NVFP4, int8 and microscaling
    checkpoints."""
    block = settings.get("weight_block_size")
    if block is not None and (
        not isinstance(block, list)
        or len(block) != 2
        or not all(isinstance(size, int) and size > 0 for size in block)
    ):
        raise ValueError(
            f"quantization_config: weight_block_size is {block!r}; two whole numbers are needed"
        )
    found = {}
    for name, info in infos.items():
        stem, _, kind = name.rpartition(".")
        if kind == "weight_packed" and info.element == "U8":
            found[f"{stem}.weight"] = packed(infos, name)
        elif kind != "weight":
            continue
        elif info.element in FLOATS_OF_8:
            found[name] = scaled(infos, name, tuple(block) if block else None)
        elif info.element == "U8" and f"{name}_scale_2" in infos:
            found[name] = four_bits(infos, name, f"{name}_scale_2", inverse=False)
        elif info.element == "U8" and f"{name}_scale" in infos:
            found[name] = microscaled(infos, name, f"{name}_scale", "fp4")
        elif info.element == "I8" and f"{name}_scale" in infos:
            found[name] = _integers(infos, read, stem)
    return collect(infos, found)


def _integers(infos: Infos, read: Read, stem: str) -> StoredTensor:
    """modelopt's int8 [N, K] with a scale for each row, and for inputs of 8 bits one for all."""
    shape, name, fixed = (
        infos[f"{stem}.weight"].shape,
        f"{stem}.weight_scale",
        f"{stem}.input_scale",
    )
    if len(shape) != 2 or f"{stem}.pre_quant_scale" in infos:
        raise ValueError(
            f"{stem}: int8 weights {list(shape)} are not read; a matrix whose inputs have no factors is"
        )
    given = infos[name].shape
    scales = member(infos, name, given if given in ((), (1,)) else shape[:1], _FLOATS)
    inputs = {"strategy": "tensor"} if fixed in infos else {}
    rounding, scale = rounded_inputs(infos, read, stem, inputs)
    return StoredTensor(
        (shape[0], shape[1]),
        {"codes": f"{stem}.weight", "scales": scales},
        decoder="bytes",
        options={"bits": 8, "inputs": scale},
        format=Format("int8", inputs=rounding),
    )


def packed(infos: Infos, name: str, kind: str = "fp4") -> StoredTensor:
    """NVFP4 where there is a scale for all, which numbers are divided by; else microscaled ones of a kind."""
    stem = name.removesuffix("_packed")
    if f"{stem}_global_scale" in infos:
        return four_bits(infos, name, f"{stem}_global_scale", inverse=True)
    return microscaled(infos, name, f"{stem}_scale", kind)


def scaled(infos: Infos, name: str, block: tuple[int, int] | None) -> StoredTensor:
    """A weight of numbers of 8 bits with the scales beside it. block  of squares, if that is how they are.

    e5m2 numbers, and those with a power of two for 32, become floats. Scales [rows, 1, inputs, 1] are modelopt's,
    of squares of 128.
    """
    shape = infos[name].shape
    if len(shape) != 2:
        raise ValueError(f"tensor {name!r} has the shape {list(shape)}; a matrix is needed")
    scale = next(
        (f"{name}{end}" for end in ("_scale", "_scale_inv") if f"{name}{end}" in infos), None
    )
    if scale is None:
        raise ValueError(f"the checkpoint lacks the tensor {name + '_scale'!r}")
    given, kind = infos[scale].shape, infos[name].element
    rows, depth = shape
    if infos[scale].element in POWERS and given == (rows, depth // 32):
        return microscaled(infos, name, scale, FLOATS_OF_8[kind])
    is_spread = len(given) == 4
    if is_spread:
        block = (128, 128)
    if block is not None:
        down, across = -(-rows // block[0]), -(-depth // block[1])
        wanted = (down, 1, across, 1) if is_spread else (down, across)
        member(infos, scale, wanted, _FLOATS)
        format = Format("fp8", 128) if block == (128, 128) else PLAIN
    else:
        known = ((), (1,), (1, 1), (rows,), (rows, 1))
        if given not in known:
            raise ValueError(
                f"tensor {scale!r} has the shape {list(given)}; one scale or one for each of {rows} rows is "
                "needed, or weight_block_size in quantization_config"
            )
        member(infos, scale, given, _FLOATS)
        format = Format("fp8")
    return StoredTensor(
        (rows, depth),
        {"codes": name, "scales": scale},
        decoder="float8",
        options={"block": block},
        format=format if kind == "F8_E4M3" else PLAIN,
    )


def four_bits(infos: Infos, name: str, factor: str, *, inverse: bool) -> StoredTensor:
    """A weight of e2m1 numbers, two to a byte, with e4m3 scales of 16 and one float32 for all.

    inverse  whether numbers are divided by that one.
    Rows of whole super-blocks are kept in them, as `decoders.fourbits` says; others become floats.
    """
    rows, half = infos[name].shape if len(infos[name].shape) == 2 else (0, 0)
    scales = name.removesuffix("_packed") + "_scale"
    member(infos, name, (rows, half), ("U8",))
    return StoredTensor(
        (rows, 2 * half),
        {
            "codes": name,
            "scales": member(infos, scales, (rows, half // 8), ("F8_E4M3",)),
            "factor": factor,
        },
        decoder="float4",
        options={"inverse": inverse},
        format=PLAIN if 2 * half % SUPER_DEPTH else super_format(("int8_k", 0)),
        is_exact=False,
    )
