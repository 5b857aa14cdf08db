"""MXFP4 as in gpt-oss: the experts of a layer as blocks of 32 numbers of 4 bits, each with a power of two.

Numbers are made in `quant.decoders.floats`. Source: the OCP microscaling formats, version 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.quant.formats import Format
from quire.quant.schemes.parts import Infos, Read, collect, member
from quire.quant.stored import StoredTensor


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
