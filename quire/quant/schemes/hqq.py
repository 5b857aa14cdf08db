"""HQQ: codes of 1 to 8 bits with a scale and a zero point, both floats, for each group.

Unpacking is `quant.decoders.integers`'. Source: how the library writes a layer's state.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from quire.quant.formats import PLAIN, Format
from quire.quant.schemes.parts import Infos, Read, collect, group_of, member, one_number, stems
from quire.quant.stored import StoredTensor

CODES_OF_A_WORD = {8: 1, 4: 2, 3: 10, 2: 4, 1: 8}
"""By their bits; codes of 3 bits are in words of 32, others in bytes."""
_FLOATS = ("F16", "BF16", "F32")


def hqq(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of a checkpoint; groups of neighbours in a row are kept in 8 bits, others as floats."""
    found = {}
    for stem in stems(infos, "W_q"):
        found[f"{stem}.weight"] = _layer(infos, read, stem)
    return collect(infos, found)


def _layer(infos: Infos, read: Read, stem: str) -> StoredTensor:
    def number(name: str) -> int:
        if f"{stem}.{name}" not in infos:
            raise ValueError(f"the checkpoint lacks the tensor {f'{stem}.{name}'!r}, a part of HQQ")
        return int(one_number(infos, read, f"{stem}.{name}"))

    bits, size, axis = number("nbits"), number("group_size"), number("axis")
    odd = [name for name in ("view_as_float", "quant_scale", "quant_zero") if number(name)]
    if odd or bits not in CODES_OF_A_WORD or axis not in (0, 1) or size < 1:
        raise ValueError(
            f"{stem}: HQQ of {bits} bits, groups of {size} along axis {axis}{', ' * bool(odd)}"
            f"{', '.join(odd)} is not read; 1, 2, 3, 4 and 8 bits with scales of floats are"
        )
    rows, depth = struct.unpack("<2q", read(member(infos, f"{stem}.shape", (2,), ("I64",))))
    groups = rows * depth // size
    if min(rows, depth) < 1 or groups * size != rows * depth:
        raise ValueError(f"{stem}: groups of {size} do not fill the shape {[rows, depth]}")
    lines, columns = (groups, size) if axis else (size, groups)
    words = -(-lines // CODES_OF_A_WORD[bits])
    parts = {
        f"also:{name}": name
        for name in infos
        if name.startswith(f"{stem}.") and name != f"{stem}.bias"
    }
    spread = (groups, 1) if axis else (1, groups)
    group = group_of(depth, size) if axis and depth % size == 0 else None
    return StoredTensor(
        (rows, depth),
        parts
        | {
            "codes": member(
                infos, f"{stem}.W_q", (words, columns), ("I32" if bits == 3 else "U8",)
            ),
            "scales": member(infos, f"{stem}.scale", spread, _FLOATS),
            "zeros": member(infos, f"{stem}.zero", spread, _FLOATS),
        },
        decoder="hqq",
        options={"bits": bits, "lines": lines},
        format=PLAIN if group is None else Format("int8", group),
        is_exact=False,
    )
