"""Floats of 8 and 4 bits, and numbers of a table, as codes with scales or as floats.

What a scheme calls the parts is in `quant.schemes`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders.fourbits import four_bit_blocks
from quire.quant.decoders.gguf import half_power
from quire.quant.decoders.superblocks import weight_of
from quire.quant.stored import StoredTensor

Members = Mapping[str, torch.Tensor]
_FOUR_BIT = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def float8(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """e4m3 codes [N, K] with one scale, one for each row, or one for each square."""
    codes, scales = members["codes"], members["scales"].to(torch.float32)
    (rows, depth), block = stored.shape, stored.options["block"]
    if block is None:
        scales = scales.reshape(-1, 1).expand(rows, 1)
    else:
        scales = scales.flatten(1).repeat_interleave(block[0], 0)[:rows]
    if stored.format.bits is not None:
        return QuantizedWeight(stored.format, codes, scales.contiguous(), dtype)
    if block is not None:
        scales = scales.repeat_interleave(block[1], 1)[:, :depth]
    return codes.to(torch.float32) * scales


def float4(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """NVFP4: e2m1 numbers times an e4m3 scale of 16 of them, times or by one factor."""
    factor = members["factor"].to(torch.float32).reshape(())
    if stored.format.runs:
        doubled = (_named(members["codes"]) * 2.0).to(torch.int32)
        size = torch.reciprocal(factor) if stored.options["inverse"] else factor
        blocks = four_bit_blocks(doubled, members["scales"], size * 0.5)
        return weight_of(blocks, (stored.shape[0], stored.shape[1]), stored.format, dtype)
    scales = members["scales"].to(torch.float32)
    scales = scales / factor if stored.options["inverse"] else scales * factor
    return _named(members["codes"]) * scales.repeat_interleave(16, 1)


def microscaled(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Numbers of a kind of `schemes.microscaling.BITS`, packed [N, bytes], times a power of two for 32 of them."""
    kind, codes = stored.options["kind"], members["codes"]
    scales = half_power(members["scales"].view(torch.uint8))
    if kind.startswith("fp8"):
        numbers = codes.to(torch.float32) * (2.0 * scales).repeat_interleave(32, 1)
        return numbers if stored.format.bits is None else _by_row(numbers, stored, dtype)
    if kind == "fp4":
        numbers = _named(codes) * 2.0
    else:
        numbers, scales = _six_bits(codes, kind) * 8.0, scales / 4.0
    if stored.format.bits is None:
        return numbers * scales.repeat_interleave(32, 1)
    return QuantizedWeight(stored.format, numbers.to(torch.int8), scales, dtype)


def _by_row(numbers: torch.Tensor, stored: StoredTensor, dtype: torch.dtype) -> QuantizedWeight:
    """As e4m3 codes with a power of two for each row, of which the largest magnitude is at most 448.

    What is below 2^-13 of that may lose bits: at most 2^-17 of it.
    """
    limits = numbers.abs().amax(1, keepdim=True)
    powers = torch.frexp(limits / 448.0).exponent.clamp(min=-126, max=127)
    powers = powers - (torch.ldexp(torch.full_like(limits, 224.0), powers) >= limits).to(
        torch.int32
    )
    steps = torch.ldexp(torch.ones_like(limits), powers)
    codes = (numbers / steps).to(torch.float8_e4m3fn)
    return QuantizedWeight(stored.format, codes, steps, dtype)


def mxfp4_experts(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Blocks [rows, blocks, 16] of one expert as codes [rows, K], or as floats [K, rows]."""
    numbers = _named(members["codes"].flatten(-2)) * 2.0
    scales = half_power(members["scales"])
    if stored.format.bits is not None:
        return QuantizedWeight(stored.format, numbers.to(torch.int8), scales, dtype)
    return (numbers * scales.repeat_interleave(32, -1)).transpose(-1, -2)


def table_blocks(members: Members, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of a table of 16, the high half first, times the largest magnitude of their block.

    Those magnitudes may be numbers of a table too, with magnitudes of their own and a mean.
    """
    options, scales = stored.options, members["scales"]
    if options["inner_block"]:
        inner = members["inner_scales"].repeat_interleave(options["inner_block"])[: len(scales)]
        scales = members["inner_table"][scales.long()] * inner + options["offset"]
    codes = members["codes"].flatten()
    places = torch.stack((codes >> 4, codes & 15), dim=1).flatten().long()
    count = stored.shape[0] * stored.shape[1]
    spread = scales.to(torch.float32).repeat_interleave(options["block"])[:count]
    return (members["table"][places[:count]] * spread).view(stored.shape)


def _six_bits(packed: torch.Tensor, kind: str) -> torch.Tensor:
    """[N, 3n] bytes as [N, 4n] float32 e2m3 or e3m2 numbers, the lowest bits first."""
    low, middle, high = packed.view(len(packed), -1, 3).to(torch.int32).unbind(-1)
    words = (low | middle << 8 | high << 16).unsqueeze(-1)
    codes = (words >> torch.arange(0, 24, 6) & 63).flatten(1)
    mantissa, bias = {"fp6_e2m3": (3, 1), "fp6_e3m2": (2, 3)}[kind]
    places = torch.arange(32)
    exponents = places >> mantissa
    ones = (places & (1 << mantissa) - 1) + (exponents.clamp(max=1) << mantissa)
    values = torch.ldexp(ones.float(), exponents.clamp(min=1) - bias - mantissa)
    return torch.cat((values, -values))[codes]


def _named(packed: torch.Tensor) -> torch.Tensor:
    """[.., n] bytes as [.., 2n] float32 e2m1 numbers, the low half first."""
    table = torch.tensor((*_FOUR_BIT, *(-value for value in _FOUR_BIT)))
    halves = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
    return table[halves.long()]
