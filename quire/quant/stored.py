"""A weight as its checkpoint keeps it: which tensors it is made of, who reads them, and what is made of it.

Which checkpoint means what is for `quant.schemes`, reading for `quant.decoders`. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quire.quant.formats import BLOCK_COLUMNS, PLAIN, Format, super_format, super_runs


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file: its element type as the file's format names it, and its shape.

    meant  the shape of the weight that it is a part of, where the file tells it.
    """

    element: str
    shape: tuple[int, ...]
    meant: tuple[int, ...] = ()


@dataclass(frozen=True)
class StoredTensor:
    """Numbers of `shape` under the name that they have in a checkpoint of plain floats.

    members   names in the checkpoint by role; a plain tensor has one, "weight".
    decoder   who makes numbers of them, a key of `quant.decoders.table.DECODERS` or a plug-in's method; "" if they are
              plain.
    options   what the decoder must know besides.
    format    what it can be kept as; PLAIN is floats of the model's dtype.
    is_exact  whether that format holds exactly what is stored; else it is rounded, as plain floats may be.
    """

    shape: tuple[int, ...]
    members: Mapping[str, str]
    decoder: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    format: Format = PLAIN
    is_exact: bool = True


def plain(name: str, shape: tuple[int, ...]) -> StoredTensor:
    """A tensor of floats."""
    return StoredTensor(shape, {"weight": name})


def stacked_format(parts: Iterable[tuple[Format, int]]) -> Format | None:
    """The format that holds weights of these formats and numbers of columns, one under the other, exactly.

    None if there is none: super-blocks of several kinds must meet at whole blocks of columns.
    """
    parts = list(parts)
    if any(format.kind != "super" for format, _ in parts):
        return joined_format(format for format, _ in parts)
    found = super_format(*((format.runs[0][0], count) for format, count in parts))
    try:
        list(super_runs(found, sum(count for _, count in parts)))
    except ValueError:
        return None
    return found


def joined_format(formats: Iterable[Format]) -> Format | None:
    """The format that holds weights of all these formats exactly, None if there is none.

    Rows are rounded to 8 bits only where all have them so. Of formats with an order it must be the same one.
    """
    found = set(formats)
    if len(found) == 1:
        return found.pop()
    half = all(format.half_scales for format in found)
    found = {replace(format, inputs="", half_scales=half) for format in found}
    if len(found) == 1:
        return found.pop()
    if any(format.has_order for format in found):
        if not all(format.has_order for format in found):
            return None
        one = joined_format(replace(format, has_order=False) for format in found)
        return None if one is None else replace(one, has_order=True)
    groups = {format.group for format in found}
    kinds = {format.kind for format in found}
    if len(groups) != 1 or not kinds <= {"int4", "int8"}:
        return Format("fp8", groups.pop()) if kinds == {"fp8"} and len(groups) == 1 else None
    if kinds == {"int4"}:
        return Format("int4", groups.pop(), has_zeros=True)
    zeros = any(format.kind == "int8" and format.has_zeros for format in found)
    return Format("int8", groups.pop(), has_zeros=zeros, half_scales=half and not zeros)


def experts_format(gate_up: set[Format], down: set[Format]) -> Format | None:
    """The format of the experts of a layer by those of their weights; None for floats.

    Super-blocks may be of one kind in all of gate and up, and of another in all of down.
    """
    formats = {*gate_up, *down}
    if all(format.kind == "super" and len(format.runs) == 1 for format in formats):
        if len(gate_up) == len(down) == 1:
            kinds = (next(iter(gate_up)).runs[0][0], next(iter(down)).runs[0][0])
            return super_format(*((kind, BLOCK_COLUMNS) for kind in kinds))
        return None
    found = joined_format(formats)
    return None if found == PLAIN else found
