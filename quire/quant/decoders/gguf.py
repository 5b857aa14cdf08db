"""Blocks of GGUF files as numbers: codes with scales where they fit in a format, else floats.

Which type is kept as what is `quant.schemes.gguf`'s. Sums and products are in float32 and in the order
in which ggml makes them, so that floats come out with its bits.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch

from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders.fields import NONLINEAR, half, halves, named
from quire.quant.decoders.pieces import empty, put_rows
from quire.quant.decoders.superblocks import SUPER, weight_of
from quire.quant.formats import PLAIN, Format
from quire.quant.rounding import quantize
from quire.quant.schemes.gguf import TYPES

Coded = tuple[torch.Tensor, torch.Tensor]
"""codes [blocks, n] int8 and scales [blocks, n / 32] float32."""

_CHUNK = (
    1 << 22
)  # numbers that are decoded at a time: floats of them are many times the file's bytes
_FOUR_BIT_FLOATS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice e2m1
_BLOCK_BYTES = {kind.name: kind.num_bytes for kind in TYPES.values()}
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def decode(
    data: torch.Tensor, kind: str, shape: tuple[int, ...], format: Format, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """The tensor [..., K] whose rows of blocks `data` [bytes] uint8 holds.

    For a format of fewer bits a QuantizedWeight: exact if the blocks fit in it, else their floats rounded.
    For the plain one floats in `dtype`, each rounded once, or floats as they are stored.
    """
    if kind in _FLOATS:
        return data.view(_FLOATS[kind]).view(shape)
    depth, numbers = shape[-1], prod(shape[:-1])
    rows = data.view(numbers, -1)
    floats = torch.empty(numbers if format.bits is None else 0, depth, dtype=dtype)
    room = None if format.bits is None else empty(format, (numbers, depth), dtype)
    step = max(_CHUNK // depth, 1)
    for start in range(0, numbers, step):
        piece = rows[start : start + step]
        blocks = piece.reshape(-1, _BLOCK_BYTES[kind])
        if room is None:
            floats[start : start + step] = _floats(blocks, kind).view(len(piece), depth)
        else:
            put_rows(room, start, _quantized(blocks, kind, (len(piece), depth), format, dtype))
    return floats.view(shape) if room is None else room


def _quantized(
    blocks: torch.Tensor, kind: str, shape: tuple[int, int], format: Format, dtype: torch.dtype
) -> QuantizedWeight:
    """Some rows in a format of fewer bits."""
    if kind in SUPER and format.kind == "super":
        return weight_of(SUPER[kind](blocks), shape, format, dtype)
    is_group = format.group == 32 and not format.has_zeros
    if kind == "Q4_0" and format.kind == "int4" and is_group:
        codes = halves(blocks[:, 2:]).view(shape)
        return QuantizedWeight(format, codes, half(blocks, 0).view(shape[0], -1), dtype)
    if kind in CODED and format.kind == "int8" and is_group:
        codes, scales = CODED[kind](blocks)
        scales = scales.reshape(shape[0], -1)
        return QuantizedWeight(format, codes.to(torch.int8).view(shape), scales, dtype)
    return quantize(_floats(blocks, kind).view(shape), format)


def _floats(blocks: torch.Tensor, kind: str) -> torch.Tensor:
    """[blocks, n] float32."""
    if kind in SUPER:
        shape = (len(blocks), 256)
        return weight_of(SUPER[kind](blocks), shape, PLAIN, torch.float32).dequantized()
    if kind in FLOATING:
        return FLOATING[kind](blocks)
    codes, scales = CODED[kind](blocks)
    group = codes.shape[1] // scales.shape[1]
    return codes.to(torch.float32) * scales.repeat_interleave(group, dim=1)


def _fifth_bits(blocks: torch.Tensor, place: int) -> torch.Tensor:
    """[blocks, 32] of 32 bits at a byte, the lowest first."""
    bits = blocks[:, place : place + 4].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)
    return (bits & 1).flatten(1)


def _q4_0(blocks: torch.Tensor) -> Coded:
    return halves(blocks[:, 2:]).to(torch.int16) - 8, half(blocks, 0)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return half(blocks, 0) * halves(blocks[:, 4:]).to(torch.float32) + half(blocks, 2)


def _q5_0(blocks: torch.Tensor) -> Coded:
    codes = halves(blocks[:, 6:]) | _fifth_bits(blocks, 2) << 4
    return codes.to(torch.int16) - 16, half(blocks, 0)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    codes = halves(blocks[:, 8:]) | _fifth_bits(blocks, 4) << 4
    return half(blocks, 0) * codes.to(torch.float32) + half(blocks, 2)


def _q8_0(blocks: torch.Tensor) -> Coded:
    return blocks[:, 2:].contiguous().view(torch.int8).to(torch.int16), half(blocks, 0)


def _iq4_nl(blocks: torch.Tensor) -> Coded:
    return named(halves(blocks[:, 2:]), NONLINEAR), half(blocks, 0)


def _mxfp4(blocks: torch.Tensor) -> Coded:
    return named(halves(blocks[:, 1:]), _FOUR_BIT_FLOATS), half_power(blocks[:, :1])


def _nvfp4(blocks: torch.Tensor) -> torch.Tensor:
    """Four times 16 numbers, each with an unsigned e4m3 scale; its code of no number is zero."""
    scales = blocks[:, :4] & 0x7F
    scales = torch.where(scales == 0x7F, 0, scales).view(torch.float8_e4m3fn).to(torch.float32)
    codes = named(halves(blocks[:, 4:].reshape(-1, 4, 8)), _FOUR_BIT_FLOATS)
    return (codes * (scales * 0.5).unsqueeze(-1)).flatten(1)


def half_power(exponents: torch.Tensor) -> torch.Tensor:
    """2^(e - 128) in float32 of bytes e: half of what e8m0 stands for, as the codes are doubled."""
    powers = exponents.to(torch.int32) - 128
    return torch.ldexp(torch.ones_like(powers, dtype=torch.float32), powers)


CODED: dict[str, Callable[[torch.Tensor], Coded]] = {
    "Q4_0": _q4_0,
    "Q5_0": _q5_0,
    "Q8_0": _q8_0,
    "IQ4_NL": _iq4_nl,
    "MXFP4": _mxfp4,
}
"""Types whose blocks [blocks, bytes] are codes of 8 bits with a scale for each 32."""

FLOATING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Q4_1": _q4_1,
    "Q5_1": _q5_1,
    "NVFP4": _nvfp4,
}
"""Types whose blocks are made floats [blocks, n]; those of super-blocks are `superblocks.SUPER`'s."""
