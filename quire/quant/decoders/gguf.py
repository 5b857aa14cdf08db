"""Blocks of GGUF files as numbers: codes with scales where they fit in a format, else floats.

Which type is kept as what is `quant.schemes.gguf`'s. Sums and products are in float32 and in the order
in which ggml makes them, so that floats come out with its bits.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch

from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders.pieces import empty, put_rows
from quire.quant.formats import Format
from quire.quant.rounding import quantize
from quire.quant.schemes.gguf import TYPES

Coded = tuple[torch.Tensor, torch.Tensor]
"""codes [blocks, n] int8 and scales [blocks, n / 32] float32."""

_CHUNK = (
    1 << 22
)  # numbers that are decoded at a time: floats of them are many times the file's bytes
_NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
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
    if kind == "Q4_0" and format == Format("int4", 32):
        codes = _nibbles(blocks[:, 2:]).view(shape)
        return QuantizedWeight(format, codes, _half(blocks, 0).view(shape[0], -1), dtype)
    if kind in CODED and format == Format("int8", 32):
        codes, scales = CODED[kind](blocks)
        scales = scales.reshape(shape[0], -1)
        return QuantizedWeight(format, codes.to(torch.int8).view(shape), scales, dtype)
    return quantize(_floats(blocks, kind).view(shape), format)


def _floats(blocks: torch.Tensor, kind: str) -> torch.Tensor:
    """[blocks, n] float32."""
    if kind in FLOATING:
        return FLOATING[kind](blocks)
    codes, scales = CODED[kind](blocks)
    group = codes.shape[1] // scales.shape[1]
    return codes.to(torch.float32) * scales.repeat_interleave(group, dim=1)


def _half(blocks: torch.Tensor, place: int) -> torch.Tensor:
    """The float16 at a byte of each block: [blocks, 1] float32."""
    return blocks[:, place : place + 2].contiguous().view(torch.float16).to(torch.float32)


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, n] bytes as [blocks, 2n] uint8: all low halves, then all high ones."""
    return torch.cat((packed & 15, packed >> 4), dim=1)


def _fifth_bits(blocks: torch.Tensor, place: int) -> torch.Tensor:
    """[blocks, 32] of 32 bits at a byte, the lowest first."""
    bits = blocks[:, place : place + 4].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)
    return (bits & 1).flatten(1)


def _q4_0(blocks: torch.Tensor) -> Coded:
    return _nibbles(blocks[:, 2:]).to(torch.int16) - 8, _half(blocks, 0)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]).to(torch.float32) + _half(blocks, 2)


def _q5_0(blocks: torch.Tensor) -> Coded:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2) << 4
    return codes.to(torch.int16) - 16, _half(blocks, 0)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4) << 4
    return _half(blocks, 0) * codes.to(torch.float32) + _half(blocks, 2)


def _q8_0(blocks: torch.Tensor) -> Coded:
    return blocks[:, 2:].contiguous().view(torch.int8).to(torch.int16), _half(blocks, 0)


def _two_bits(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 64] bytes as [blocks, 256]: of each 32 bytes the lowest two bits, then the next, and so on."""
    parts = packed.view(-1, 2, 1, 32) >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8).view(-1, 1)
    return (parts & 3).view(-1, 256)


def _q2_k(blocks: torch.Tensor) -> torch.Tensor:
    scales = blocks[:, :16]
    step = _half(blocks, 80) * (scales & 15).to(torch.float32)
    least = _half(blocks, 82) * (scales >> 4).to(torch.float32)
    codes = _two_bits(blocks[:, 16:80].contiguous()).view(-1, 16, 16).to(torch.float32)
    return (step.unsqueeze(-1) * codes - least.unsqueeze(-1)).flatten(1)


def _q3_k_parts(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """codes [blocks, 16, 16] from -4 to 3 and their scales [blocks, 16] from -32 to 31."""
    high = blocks[:, None, :32] >> torch.arange(8, dtype=torch.uint8).view(-1, 1)
    low = _two_bits(blocks[:, 32:96].contiguous()).to(torch.int16)
    codes = low - 4 * (1 - (high & 1).flatten(1).to(torch.int16))
    packed = blocks[:, 96:108]
    first = _nibbles(packed[:, :8])
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8).view(-1, 1)
    upper = (packed[:, None, 8:] >> shifts & 3).flatten(1)
    return codes.view(-1, 16, 16), (first | upper << 4).to(torch.int16) - 32


def _q3_k(blocks: torch.Tensor) -> Coded:
    codes, scales = _q3_k_parts(blocks)
    both = (codes * scales.unsqueeze(-1)).view(-1, 8, 32)
    # -4 at the scale -32 is 128, one more than 8 bits hold, but never -128: there both signs are turned.
    signs = torch.where(both.amax(-1) == 128, -1, 1)
    both = both * signs.unsqueeze(-1)
    return both.flatten(1), _half(blocks, 108) * signs.to(torch.float32)


def _q3_k_floats(blocks: torch.Tensor) -> torch.Tensor:
    codes, scales = _q3_k_parts(blocks)
    step = _half(blocks, 108) * scales.to(torch.float32)
    return (step.unsqueeze(-1) * codes.to(torch.float32)).flatten(1)


def _six_bit_scales(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and minima [blocks, 8] of Q4_K and Q5_K, with their float16 multiplied."""
    packed = blocks[:, 4:16]
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat((low & 63, high & 15 | low >> 2 & 48), dim=1)
    minima = torch.cat((middle & 63, high >> 4 | middle >> 2 & 48), dim=1)
    step = _half(blocks, 0) * scales.to(torch.float32)
    return step.unsqueeze(-1), (_half(blocks, 2) * minima.to(torch.float32)).unsqueeze(-1)


def _halves(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 128] bytes as [blocks, 8, 32]: of each 32 bytes the low halves, then the high ones."""
    parts = packed.reshape(-1, 4, 1, 32) >> torch.tensor([0, 4], dtype=torch.uint8).view(-1, 1)
    return (parts & 15).view(-1, 8, 32)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    step, least = _six_bit_scales(blocks)
    return (step * _halves(blocks[:, 16:]).to(torch.float32) - least).flatten(1)


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    step, least = _six_bit_scales(blocks)
    high = blocks[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8).view(-1, 1)
    codes = _halves(blocks[:, 48:]) | (high & 1) << 4
    return (step * codes.to(torch.float32) - least).flatten(1)


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> torch.tensor([0, 4], dtype=torch.uint8).view(
        -1, 1
    )
    codes = (low & 15).view(-1, 256) | _two_bits(blocks[:, 128:192].contiguous()) << 4
    scales = blocks[:, 192:208].contiguous().view(torch.int8).to(torch.float32)
    step = _half(blocks, 208) * scales
    numbers = (codes.to(torch.int16) - 32).view(-1, 16, 16).to(torch.float32)
    return (step.unsqueeze(-1) * numbers).flatten(1)


def _named(codes: torch.Tensor, values: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int16)[codes.long()]


def _iq4_nl(blocks: torch.Tensor) -> Coded:
    return _named(_nibbles(blocks[:, 2:]), _NONLINEAR), _half(blocks, 0)


def _iq4_xs(blocks: torch.Tensor) -> Coded:
    high = blocks[:, 2:4].contiguous().view(torch.int16).to(torch.int32) & 0xFFFF
    high = high >> torch.arange(0, 16, 2) & 3
    shifts = torch.tensor([0, 4], dtype=torch.uint8)
    low = (blocks[:, 4:8].unsqueeze(-1) >> shifts & 15).flatten(1)
    scales = (low.to(torch.int32) | high << 4) - 32
    parts = blocks[:, 8:].reshape(-1, 8, 16)
    codes = torch.cat((parts & 15, parts >> 4), dim=-1).flatten(1)
    return _named(codes, _NONLINEAR), _half(blocks, 0) * scales.to(torch.float32)


def _mxfp4(blocks: torch.Tensor) -> Coded:
    return _named(_nibbles(blocks[:, 1:]), _FOUR_BIT_FLOATS), half_power(blocks[:, :1])


def half_power(exponents: torch.Tensor) -> torch.Tensor:
    """2^(e - 128) in float32 of bytes e: half of what e8m0 stands for, as the codes are doubled."""
    powers = exponents.to(torch.int32) - 128
    return torch.ldexp(torch.ones_like(powers, dtype=torch.float32), powers)


def _tq1_0(blocks: torch.Tensor) -> Coded:
    """Numbers -1, 0 and 1: five to a byte, and at the end four."""
    powers = torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8).view(-1, 1)
    parts = [
        (blocks[:, None, begin:end] * powers[:count]).flatten(1)
        for begin, end, count in ((0, 32, 5), (32, 48, 5), (48, 52, 4))
    ]
    codes = torch.cat(parts, dim=1).to(torch.int16) * 3 >> 8
    return codes - 1, _half(blocks, 52).repeat(1, 8)


def _tq2_0(blocks: torch.Tensor) -> Coded:
    codes = _two_bits(blocks[:, :64].contiguous()).to(torch.int16) - 1
    return codes, _half(blocks, 64).repeat(1, 8)


CODED: dict[str, Callable[[torch.Tensor], Coded]] = {
    "Q4_0": _q4_0,
    "Q5_0": _q5_0,
    "Q8_0": _q8_0,
    "Q3_K": _q3_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
}
"""Types whose blocks [blocks, bytes] are codes of 8 bits with a scale for each 32."""

FLOATING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Q4_1": _q4_1,
    "Q5_1": _q5_1,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k_floats,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
"""Types whose blocks are made floats [blocks, n]."""
