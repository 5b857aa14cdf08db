"""Weights of fewer bits put together: rows taken, one format made of another, several stacked.

Everything here is exact; rounding is `quant.rounding`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from quire.ops.quantized import QuantizedWeight, SuperBlocks
from quire.quant.formats import Format

_CODES = {
    "int8": torch.int8,
    "int4": torch.uint8,
    "fp8": torch.float8_e4m3fn,
    "super": torch.int8,
}

_ZEROS = {"int8": torch.int8, "int4": torch.uint8}


def map_rows(
    weight: QuantizedWeight, change: Callable[[torch.Tensor], torch.Tensor]
) -> QuantizedWeight:
    """A weight [N, K] whose rows `change` takes, cuts or reorders; it must leave columns alone."""
    codes = weight.codes
    if codes.dtype == torch.float8_e4m3fn:  # not all ways of indexing know it
        changed = change(codes.view(torch.uint8)).view(torch.float8_e4m3fn)
    else:
        changed = change(codes)
    zeros = None if weight.zeros is None else change(weight.zeros)
    inner = weight.inner
    if inner is not None:
        inner = SuperBlocks(change(inner.floors), change(inner.steps), change(inner.minima))
    return replace(weight, codes=changed, scales=change(weight.scales), zeros=zeros, inner=inner)


def as_format(weight: QuantizedWeight, format: Format) -> QuantizedWeight:
    """The same numbers in another format: int4 as int8, with the zero points that it implies, or wider scales.

    Super-blocks as one run of several: which columns that is, is for whoever puts them together.

    Raises ValueError for formats of which this is not possible.
    """
    if weight.format == format:
        return weight
    source = replace(weight.format, half_scales=format.half_scales and weight.format.half_scales)
    if source.runs and any(source.runs[0][0] == kind for kind, _ in format.runs):
        return replace(weight, format=format)
    if source == replace(format, inputs=source.inputs):
        return replace(weight, format=format)
    if source.kind == "fp8" == format.kind and source.group == format.group:
        return replace(weight, format=format)
    if source.kind == "int4" and source.group == format.group:
        zeros = weight.zeros
        if zeros is None:
            zeros = torch.full_like(weight.scales, 8, dtype=torch.uint8)
        if format.kind == "int4" and format.has_zeros:
            return replace(weight, format=format, zeros=zeros)
        if format.kind == "int8":
            kept = torch.zeros_like(zeros, dtype=torch.int8) if format.has_zeros else None
            width = weight.codes.shape[1]
            spread = zeros.repeat_interleave(format.group or width, dim=1)[:, :width]
            codes = weight.codes.to(torch.int8) - spread.to(torch.int8)
            return replace(weight, format=format, codes=codes, zeros=kept)
    if source.kind == "int8" == format.kind and source.group == format.group and format.has_zeros:
        zeros = torch.zeros_like(weight.scales, dtype=torch.int8)
        return replace(weight, format=format, zeros=zeros)
    raise ValueError(f"a weight in {source.name} cannot be kept as {format.name}")


def empty(format: Format, shape: tuple[int, int], dtype: torch.dtype) -> QuantizedWeight:
    """Room for a weight [N, K]."""
    groups = format.num_groups(shape[1])
    inner = None
    if format.runs:
        groups, steps = shape[1] // 256, (shape[0], shape[1] // 16)
        inner = SuperBlocks(
            torch.empty(shape[0], groups),
            torch.empty(steps, dtype=torch.int8),
            torch.empty(steps, dtype=torch.uint8),
        )
    return QuantizedWeight(
        format,
        torch.empty(shape, dtype=_CODES[format.kind]),
        torch.empty(shape[0], groups),
        dtype,
        torch.empty(shape[0], groups, dtype=_ZEROS[format.kind]) if format.has_zeros else None,
        inner=inner,
    )


def put_rows(room: QuantizedWeight, begin: int, weight: QuantizedWeight) -> None:
    """Copies a weight of the same format into rows from `begin` on."""
    rows = slice(begin, begin + weight.codes.shape[0])
    room.codes[rows] = weight.codes
    room.scales[rows] = weight.scales
    if room.zeros is not None and weight.zeros is not None:
        room.zeros[rows] = weight.zeros
    if room.inner is not None and weight.inner is not None:
        room.inner.floors[rows] = weight.inner.floors
        room.inner.steps[rows] = weight.inner.steps
        room.inner.minima[rows] = weight.inner.minima
