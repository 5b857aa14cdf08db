"""Numbers of 4, 6 and 8 bits with a power of two for each 32: by weight, and as the experts of gpt-oss are.

Numbers are made in `quant.decoders.floats`. Source: the OCP microscaling formats, version 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.quant.formats import PLAIN, Format
from quire.quant.schemes.parts import Infos, Read, collect, member
from quire.quant.stored import StoredTensor

BITS = {"fp4": 4, "fp6_e2m3": 6, "fp6_e3m2": 6, "fp8_e4m3": 8, "fp8_e5m2": 8}
"""Of the kinds of numbers."""
_FORMATS = {
    **dict.fromkeys(("fp4", "fp6_e2m3"), Format("int8", 32)),
    **dict.fromkeys(("fp8_e4m3", "fp8_e5m2"), Format("fp8")),
}
"""What needs fewer than 8 bits as a whole number, and what is a float of 8 bits with the power of its row; others
become floats."""
_ELEMENTS = {"fp8_e4m3": "F8_E4M3", "fp8_e5m2": "F8_E5M2"}
POWERS = ("U8", "F8_E8M0")
"""Types of tensors of powers of two, less 127."""


def microscaled(infos: Infos, codes: str, scales: str, kind: str) -> StoredTensor:
    """A weight of such numbers. codes, scales  names of tensors. kind  a key of BITS."""
    shape, bits = infos[codes].shape, BITS[kind]
    if len(shape) != 2 or shape[1] * 8 % (32 * bits):
        raise ValueError(
            f"tensor {codes!r} {list(shape)} is no matrix of whole groups of 32 numbers of {bits} bits"
        )
    rows, depth = shape[0], shape[1] * 8 // bits
    return StoredTensor(
        (rows, depth),
        {
            "codes": member(infos, codes, shape, (_ELEMENTS.get(kind, "U8"),)),
            "scales": member(infos, scales, (rows, depth // 32), POWERS),
        },
        decoder="microscaled",
        options={"kind": kind},
        format=_FORMATS.get(kind, PLAIN),
        is_exact=not kind.startswith("fp8"),
    )


def mxfp4(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of a checkpoint whose experts are in blocks; codes are [E, out, in], floats turned."""
    found = {}
    for name, info in infos.items():
        if not name.endswith("_blocks") or info.element != "U8" or len(info.shape) != 4:
            continue
        stem = name.removesuffix("_blocks")
        experts, rows, blocks, each = info.shape
        if each != 16:
            raise ValueError(f"tensor {name!r} has blocks of {2 * each} numbers; 32 are needed")
        found[stem] = StoredTensor(
            (experts, blocks * 32, rows),
            {
                "codes": name,
                "scales": member(infos, f"{stem}_scales", (experts, rows, blocks), ("U8",)),
            },
            decoder="mxfp4_experts",
            options={"is_turned": True},
            format=Format("int8", 32),
        )
    return collect(infos, found)
