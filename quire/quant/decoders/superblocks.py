"""Blocks of 256 numbers of GGUF files: the K types, IQ1 to IQ4_XS, and the ternary ones.

A number is factor * step * code - floor * minimum, with one step for 16 neighbours here, also where the
file has one for 32. Source: the ggml project's description of its types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from quire.ops.quantized import QuantizedWeight, SuperBlocks
from quire.quant.decoders.fields import (
    NONLINEAR,
    four_bits,
    half,
    halves,
    named,
    one_bits,
    shifted,
    two_bits,
    words,
)
from quire.quant.decoders.gguf_grids import grid
from quire.quant.formats import Format


class Blocks(NamedTuple):
    """codes [blocks, 256] and steps [blocks, 16] as whole numbers, factors [blocks, 1] float32.

    minima [blocks, 16] and floors [blocks, 1] likewise, where there are some.
    """

    codes: torch.Tensor
    steps: torch.Tensor
    factors: torch.Tensor
    minima: torch.Tensor | None = None
    floors: torch.Tensor | None = None


def weight_of(
    found: Blocks, shape: tuple[int, int], format: Format, dtype: torch.dtype
) -> QuantizedWeight:
    """The weight [N, K] whose rows are these blocks, one after the other."""
    rows, factors = shape[0], found.factors.view(shape[0], -1)
    floors, minima = torch.zeros_like(factors), torch.zeros(rows, shape[1] // 16, dtype=torch.uint8)
    if found.minima is not None and found.floors is not None:
        floors, minima = found.floors.view(rows, -1), found.minima.to(torch.uint8).view(rows, -1)
    steps = found.steps.to(torch.int8).reshape(rows, -1)
    inner = SuperBlocks(floors, steps, minima)
    codes = found.codes.to(torch.int8).reshape(shape)
    return QuantizedWeight(format, codes, factors, dtype, inner=inner)


def _for_16(steps: torch.Tensor) -> torch.Tensor:
    """Of 32 neighbours each, [blocks, 8], as of 16."""
    return steps.repeat_interleave(2, dim=1)


def _q2_k(blocks: torch.Tensor) -> Blocks:
    scales = blocks[:, :16]
    factors, floors = half(blocks, 80), half(blocks, 82)
    return Blocks(two_bits(blocks[:, 16:80]), scales & 15, factors, scales >> 4, floors)


def _q3_k(blocks: torch.Tensor) -> Blocks:
    low = two_bits(blocks[:, 32:96]).to(torch.int16)
    codes = low - 4 * (1 - one_bits(blocks[:, :32]).to(torch.int16))
    packed = blocks[:, 96:108]
    upper = (shifted(packed[:, 8:], 0, 2, 4, 6).transpose(1, 2) & 3).flatten(1)
    steps = (halves(packed[:, :8]) | upper << 4).to(torch.int16) - 32
    return Blocks(codes, steps, half(blocks, 108))


def _six_bits(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps and minima [blocks, 16] of Q4_K and Q5_K."""
    low, middle, high = (blocks[:, begin : begin + 4] for begin in (4, 8, 12))
    steps = torch.cat((low & 63, high & 15 | low >> 2 & 48), dim=1)
    minima = torch.cat((middle & 63, high >> 4 | middle >> 2 & 48), dim=1)
    return _for_16(steps), _for_16(minima)


def _q4_k(blocks: torch.Tensor) -> Blocks:
    steps, minima = _six_bits(blocks)
    return Blocks(four_bits(blocks[:, 16:]), steps, half(blocks, 0), minima, half(blocks, 2))


def _q5_k(blocks: torch.Tensor) -> Blocks:
    steps, minima = _six_bits(blocks)
    codes = four_bits(blocks[:, 48:]) | one_bits(blocks[:, 16:48]) << 4
    return Blocks(codes, steps, half(blocks, 0), minima, half(blocks, 2))


def _q6_k(blocks: torch.Tensor) -> Blocks:
    low = halves(blocks[:, :128].reshape(-1, 2, 64)).flatten(1)
    codes = (low | two_bits(blocks[:, 128:192]) << 4).to(torch.int16) - 32
    return Blocks(codes, blocks[:, 192:208].contiguous().view(torch.int8), half(blocks, 208))


def _iq4_xs(blocks: torch.Tensor) -> Blocks:
    high = shifted(words(blocks, 2, 4, 2), *range(0, 16, 2)).flatten(1) & 3
    low = (shifted(blocks[:, 4:8], 0, 4) & 15).flatten(1)
    codes = named(halves(blocks[:, 8:].reshape(-1, 8, 16)).flatten(1), NONLINEAR)
    return Blocks(codes, _for_16((low | high << 4) - 32), half(blocks, 0))


def _signed(codes: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """codes [blocks, 256], those negative whose bit in signs [blocks, 32] is set, the lowest first."""
    is_negative = (shifted(signs, *range(8)) & 1).flatten(1)
    return codes.flatten(1).to(torch.int16) * (1 - 2 * is_negative.to(torch.int16))


def _even(signs: torch.Tensor) -> torch.Tensor:
    """Seven signs and the eighth, which makes the number of negative ones even."""
    parity = signs
    for shift in (4, 2, 1):
        parity = parity ^ parity >> shift
    return signs | (parity & 1) << 7


def _odd(scales: torch.Tensor) -> torch.Tensor:
    return 2 * scales.to(torch.int64) + 1


def _iq2_xxs(blocks: torch.Tensor) -> Blocks:
    tail = words(blocks, 2, 66, 4)[:, 1::2]  # [blocks, 8]
    places = blocks[:, 2:].reshape(-1, 8, 8)[..., :4].flatten(1)
    signs = _even((shifted(tail, 0, 7, 14, 21) & 127).flatten(1))
    codes = _signed(grid("IQ2_XXS")[places.long()], signs)
    return Blocks(codes, _for_16(_odd(tail >> 28)), half(blocks, 0) / 8)


def _iq2_xs(blocks: torch.Tensor) -> Blocks:
    places = words(blocks, 2, 66, 2)  # [blocks, 32]
    codes = _signed(grid("IQ2_XS")[places & 511], _even(places >> 9))
    scales = (shifted(blocks[:, 66:], 0, 4) & 15).flatten(1)
    return Blocks(codes, _odd(scales), half(blocks, 0) / 8)


def _iq2_s(blocks: torch.Tensor) -> Blocks:
    high = (shifted(blocks[:, 66:74], 0, 2, 4, 6) & 3).flatten(1).long()
    codes = grid("IQ2_S")[blocks[:, 2:34].long() | high << 8]
    scales = (shifted(blocks[:, 74:], 0, 4) & 15).flatten(1)
    return Blocks(_signed(codes, blocks[:, 34:66]), _odd(scales), half(blocks, 0) / 8)


def _iq3_xxs(blocks: torch.Tensor) -> Blocks:
    tail = words(blocks, 66, 98, 4)  # [blocks, 8]
    signs = _even((shifted(tail, 0, 7, 14, 21) & 127).flatten(1))
    codes = _signed(grid("IQ3_XXS")[blocks[:, 2:66].long()], signs)
    return Blocks(codes, _for_16(_odd(tail >> 28)), half(blocks, 0) / 4)


def _iq3_s(blocks: torch.Tensor) -> Blocks:
    high = (shifted(blocks[:, 66:74], *range(8)) & 1).flatten(1).long()
    codes = grid("IQ3_S")[blocks[:, 2:66].long() | high << 8]
    scales = (shifted(blocks[:, 106:], 0, 4) & 15).flatten(1)
    return Blocks(_signed(codes, blocks[:, 74:106]), _for_16(_odd(scales)), half(blocks, 0))


def _moved(places: torch.Tensor, is_down: torch.Tensor) -> torch.Tensor:
    """Rows of IQ1's grid times 8, and 1 more or less: [blocks, 256] of places and is_down [blocks, 32]."""
    rows = grid("IQ1_S")[places].to(torch.int16) * 8
    return (rows + (1 - 2 * is_down.to(torch.int16)).unsqueeze(-1)).flatten(1)


def _iq1_s(blocks: torch.Tensor) -> Blocks:
    high = words(blocks, 34, 50, 2)  # [blocks, 8]
    places = blocks[:, 2:34].long() | (shifted(high, 0, 3, 6, 9) & 7).flatten(1) << 8
    codes = _moved(places, (high >> 15).repeat_interleave(4, dim=1))
    return Blocks(codes, _for_16(_odd(high >> 12 & 7)), half(blocks, 0) / 8)


def _iq1_m(blocks: torch.Tensor) -> Blocks:
    scales = words(blocks, 48, 56, 2)  # [blocks, 4], the factor's bits in their upper quarters
    bits = (scales >> 12 << torch.tensor([0, 4, 8, 12])).sum(1, keepdim=True).to(torch.int16)
    high = shifted(blocks[:, 32:48], 0, 4).flatten(1).long()  # [blocks, 32]
    codes = _moved(blocks[:, :32].long() | (high & 7) << 8, high >> 3 & 1)
    steps = _odd((shifted(scales, 0, 3, 6, 9) & 7).flatten(1))
    return Blocks(codes, steps, bits.view(torch.float16).to(torch.float32) / 8)


def _tq1_0(blocks: torch.Tensor) -> Blocks:
    """Numbers -1, 0 and 1: five to a byte, and at the end four."""
    powers = torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8).view(-1, 1)
    parts = [
        (blocks[:, None, begin:end] * powers[:count]).flatten(1)
        for begin, end, count in ((0, 32, 5), (32, 48, 5), (48, 52, 4))
    ]
    codes = torch.cat(parts, dim=1).to(torch.int16) * 3 >> 8
    return _ternary(codes, half(blocks, 52))


def _tq2_0(blocks: torch.Tensor) -> Blocks:
    return _ternary(two_bits(blocks[:, :64]).to(torch.int16), half(blocks, 64))


def _ternary(codes: torch.Tensor, factors: torch.Tensor) -> Blocks:
    return Blocks(codes - 1, torch.ones(len(codes), 16, dtype=torch.int8), factors)


SUPER: dict[str, Callable[[torch.Tensor], Blocks]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
    "IQ1_S": _iq1_s,
    "IQ1_M": _iq1_m,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
}
"""Types whose blocks [blocks, bytes] are super-blocks."""
