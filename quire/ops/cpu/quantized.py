"""Weights of fewer bits for the native library: their blocks, and the call that multiplies them.

The definition is in `ops.quantized`; kernels are csrc/ops/quantized.cpp.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

import torch

from quire.ops.cpu.library import library, native, refuses
from quire.ops.cpu.memory import Take, allocate
from quire.ops.cpu.structs import DTYPES, NUMBERS, STRUCTS
from quire.ops.formats import (
    BLOCK_COLUMNS,
    FROM_CHECKPOINTS,
    KNOWN,
    SHORT_FORMATS,
    SUPER_DEPTH,
    SUPER_FORMATS,
    SUPER_KINDS,
    Format,
    Inputs,
    super_index_bytes,
    super_runs,
)
from quire.ops.quantized import QuantizedWeight, SuperBlocks
from quire.ops.registry import Signature

LINEAR_QUANTIZED = NUMBERS["linear_quantized"]
Args = STRUCTS["linear_quantized"]
FORMATS = tuple(
    format.name for format in (*KNOWN, *FROM_CHECKPOINTS, *SUPER_FORMATS, *SHORT_FORMATS)
)
"""The formats that the kernels multiply, beside those of several kinds of super-blocks."""

_CODES = {"int8": 1, "int4": 2, "fp8": 4, "super": 8}
_WITH_ZEROS = {"int8": 9, "int4": 3}
_HALF_SCALES, _SHORT_ROWS = 16, 32  # added to the number of a format
_BYTE_ROWS: dict[Inputs, int] = {"row": 5, "row_zp": 6, "fixed": 7}
_MOST_DEPTH = 65536  # inputs of rows of 8 bits, whose sums have 32
_SUPER_NUMBERS = {kind: number for number, kind in enumerate(SUPER_KINDS)}
_TYPES = {"int8": torch.int8, "int4": torch.uint8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True)
class PackedQuantized:
    """A weight [N, K] of fewer bits in blocks of 32 columns, and all of a call's arguments but x and out.

    data  the blocks as bytes; bias  [N] float32 or None; order  of the inputs, [K] int32 or None.
    """

    num_columns: int
    data: torch.Tensor
    bias: torch.Tensor | None
    order: torch.Tensor | None
    args: ctypes.Structure

    @property
    def parts(self) -> list[torch.Tensor]:
        """All that makes it this weight, as bytes."""
        return [self.data] if self.order is None else [self.data, self.order.view(torch.uint8)]


def accepted(name: str) -> tuple[str, ...]:
    """ "plain" and the formats that the kernels multiply, with the one of this name if it is of several kinds."""
    return ("plain", *FORMATS, name) if "+" in name else ("plain", *FORMATS)


def code_of(format: Format) -> int:
    """The kernels' number of a format; 0 for plain floats."""
    if format.inputs in _BYTE_ROWS:
        return _BYTE_ROWS[format.inputs]
    code = _WITH_ZEROS[format.kind] if format.has_zeros else _CODES.get(format.kind, 0)
    return code + _HALF_SCALES * format.half_scales + _SHORT_ROWS * (format.inputs == "part")


def pack_into(data: torch.Tensor, weight: QuantizedWeight) -> None:
    """Rearranges a weight [N, K] for the kernels in `data`, uint8 of `Format.num_bytes`."""
    num_columns, depth = weight.codes.shape
    codes = weight.codes if weight.codes.stride(1) == 1 else weight.codes.contiguous()
    if weight.inner is not None:
        return _pack_super(data, weight, weight.inner, codes)
    scales = weight.scales.contiguous()
    zeros = None if weight.zeros is None else weight.zeros.contiguous()
    native().run(
        NUMBERS["pack_quantized"],
        STRUCTS["pack_quantized"](
            codes=codes.data_ptr(),
            scales=scales.data_ptr(),
            zeros=None if zeros is None else zeros.data_ptr(),
            out=data.data_ptr(),
            N=num_columns,
            K=depth,
            stride=codes.stride(0),
            format=code_of(weight.format),
            group=weight.format.group,
            step=weight.step,
            shift=weight.shift,
        ),
    )


def refuses_format(signature: Signature, *depths: int) -> str | None:
    """Why weights of a signature cannot be multiplied, or None. depths  of its products."""
    refusal = refuses(signature, formats=accepted(signature.format))
    if refusal is None and "_rows8" in signature.format and max(depths, default=0) > _MOST_DEPTH:
        refusal = f"rows of 8 bits have at most {_MOST_DEPTH} inputs here, not {max(depths)}"
    return refusal


def _pack_super(
    data: torch.Tensor, weight: QuantizedWeight, inner: SuperBlocks, codes: torch.Tensor
) -> None:
    """Super-blocks, each run of a kind behind the one before, and the places of all blocks before them."""
    num_columns, depth = codes.shape
    place, supers = super_index_bytes(num_columns), depth // SUPER_DEPTH
    for kind, columns in super_runs(weight.format, num_columns):
        parts = (weight.scales, inner.floors, inner.steps, inner.minima)
        factors, floors, steps, minima = (part[columns].contiguous() for part in parts)
        count = columns.stop - columns.start
        native().run(
            NUMBERS["pack_super"],
            STRUCTS["pack_super"](
                codes=codes[columns].data_ptr(),
                factors=factors.data_ptr(),
                floors=floors.data_ptr(),
                steps=steps.data_ptr(),
                minima=minima.data_ptr(),
                out=data.data_ptr(),
                N=count,
                K=depth,
                stride=codes.stride(0),
                first=columns.start // BLOCK_COLUMNS,
                place=place,
                kind=_SUPER_NUMBERS[kind],
                format=code_of(weight.format),
            ),
        )
        place += -(-count // BLOCK_COLUMNS) * supers * SUPER_KINDS[kind].block_bytes


def pack(weight: QuantizedWeight, bias: torch.Tensor | None) -> PackedQuantized:
    """A weight [N, K] for the kernels; bias [N] is kept in float32."""
    num_columns, depth = weight.codes.shape
    packed = room(num_columns, depth, weight.dtype, weight.format, bias)
    pack_into(packed.data, weight)
    if packed.order is not None:
        assert weight.order is not None, f"{weight.format.name} comes without its order"
        packed.order.copy_(weight.order)
    return packed


def room(
    num_columns: int,
    depth: int,
    dtype: torch.dtype,
    stored: Format,
    bias: torch.Tensor | None,
    take: Take = allocate,
) -> PackedQuantized:
    """A weight [N, K] that multiplies rows of `dtype`, in memory of `take` that is filled or to be."""
    data = take(replace(stored, has_order=False).num_bytes(num_columns, depth, dtype.itemsize))
    order = take(4 * depth).view(torch.int32) if stored.has_order else None
    bias = None if bias is None else bias.to(torch.float32).contiguous()
    args = Args(
        weight=data.data_ptr(),
        order=None if order is None else order.data_ptr(),
        bias=None if bias is None else bias.data_ptr(),
        N=num_columns,
        K=depth,
        dtype=DTYPES[str(dtype).removeprefix("torch.")],
        format=code_of(stored),
        group=stored.group,
    )
    return PackedQuantized(num_columns, data, bias, order, args)


def is_there() -> bool:
    """Whether this machine has the library."""
    return library() is not None


def round_weight(
    weight: torch.Tensor, format: Format, limits: torch.Tensor | None
) -> QuantizedWeight:
    """Weight [N, K] rounded as `quant.rounding.round_weight` does; limits [N, groups] float32 or None."""
    if weight.stride(1) != 1:
        weight = weight.contiguous()
    num_columns, depth = weight.shape
    groups = format.num_groups(depth)
    codes = torch.empty(num_columns, depth, dtype=_TYPES[format.kind])
    scales = torch.empty(num_columns, groups)
    zeros = torch.empty(num_columns, groups, dtype=torch.uint8) if format.has_zeros else None
    native().run(
        NUMBERS["round_weight"],
        STRUCTS["round_weight"](
            weight=weight.data_ptr(),
            limits=None if limits is None else limits.data_ptr(),
            codes=codes.data_ptr(),
            scales=scales.data_ptr(),
            zeros=None if zeros is None else zeros.data_ptr(),
            N=num_columns,
            K=depth,
            stride=weight.stride(0),
            dtype=DTYPES[str(weight.dtype).removeprefix("torch.")],
            format=code_of(format),
            group=format.group,
        ),
    )
    return QuantizedWeight(format, codes, scales, weight.dtype, zeros)
