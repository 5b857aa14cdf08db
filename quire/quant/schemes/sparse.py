"""Checkpoints that leave zeros out: which tensors a weight is made of then. Filling in is `quant.decoders.sparse`'s.

Sources: compressed-tensors' `sparse-bitmask`, `sparse-24-bitmask` and `marlin-24`, and GPTQ's `marlin_24`.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from quire.quant.schemes.parts import Infos, Read, integer_format, member, stems
from quire.quant.stored import StoredTensor, TensorInfo

_FLOATS = ("F16", "BF16", "F32")
MASKED = ("sparse-bitmask", "sparse-24-bitmask")
"""Names of the formats with a mask."""


def filled(infos: Infos, read: Read) -> dict[str, TensorInfo]:
    """The tensors as if the weights with a mask were there whole, under `<layer>.weight`.

    Raises ValueError for a mask that is not of the shape beside it.
    """
    found = dict(infos)
    for stem in stems(infos, "bitmask"):
        if f"{stem}.compressed" not in infos:
            raise ValueError(f"the checkpoint lacks the tensor {stem + '.compressed'!r}")
        shape = _shape(infos, read, f"{stem}.shape")
        member(infos, f"{stem}.bitmask", (shape[0], -(-shape[1] // 8)), ("U8",))
        found[f"{stem}.weight"] = TensorInfo(infos[f"{stem}.compressed"].element, shape)
        for part in ("shape", "row_offsets"):
            found.pop(f"{stem}.{part}", None)
    return found


def with_masks(infos: Infos, weights: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Weights that were described as if they were whole, with the tensors that are there instead.

    weights  is added to: those of floats with a mask are not among them.
    """
    found = dict(weights)
    for stem in stems(infos, "bitmask"):
        name = f"{stem}.weight"
        parts = {"codes": f"{stem}.compressed", "mask": f"{stem}.bitmask"}
        if name in found:
            members = {**found[name].members, **parts}
            found[name] = replace(found[name], members=members)
        elif infos[f"{stem}.compressed"].element in _FLOATS:
            found[name] = StoredTensor(infos[name].shape, parts, decoder="spread")
        else:
            raise ValueError(
                f"tensor {stem + '.compressed'!r} is {infos[stem + '.compressed'].element}, which nothing "
                "in quantization_config explains"
            )
    return found


def _shape(infos: Infos, read: Read, name: str) -> tuple[int, int]:
    info = infos.get(name)
    if info is None or info.element != "I64" or info.shape not in ((2,), (2, 1)):
        raise ValueError(f"tensor {name!r}, the shape of a weight with a mask, is not there")
    rows, depth = struct.unpack("<2q", read(name))
    if rows < 1 or depth < 1:
        raise ValueError(f"tensor {name!r} is {[rows, depth]}; two sizes are needed")
    return rows, depth


def marlin_24(
    infos: Infos, names: tuple[str, str, str], bits: int, size: int, *, from_groups_of: int
) -> StoredTensor:
    """A 2:4 sparse weight in the layout of its kernels.

    names  of codes, places and scales. size  inputs with one scale, below 1 all.
    from_groups_of  times `size`: inputs beyond which scales are in the order of groups.
    """
    codes, places, scales = names
    info = infos[codes]
    if bits not in (4, 8) or len(info.shape) != 2 or info.element != "I32":
        raise ValueError(
            f"tensor {codes!r} is {info.element} {list(info.shape)} of {bits} bits; words of 4 or 8 bits are read"
        )
    rows, depth = info.shape[1] * (32 // bits) // 16, info.shape[0] * 32
    if rows % 64 or (size > 0 and depth % size):
        raise ValueError(f"tensor {codes!r} is a weight {[rows, depth]}, which has no whole tiles")
    groups = depth // size if size > 0 else 1
    options: dict[str, Any] = {"bits": bits}
    options["scales_in_eights"] = size > 0 and size * from_groups_of < depth
    return StoredTensor(
        (rows, depth),
        {
            "codes": codes,
            "places": member(infos, places, (depth // 32, rows * 2), ("I16",)),
            "scales": member(infos, scales, (groups, rows), _FLOATS),
        },
        decoder="marlin_24",
        options=options,
        format=integer_format(bits, depth, size, has_zeros=False),
    )
