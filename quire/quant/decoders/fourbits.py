"""NVFP4 as super-blocks: numbers of four bits whose scales of 16 are floats of eight bits, as whole numbers.

A scale is m * 2^e with m up to 15. The largest of a super-block is m * 2^4 of its factor, so that all numbers of a
group whose e is at most 4 below the largest one's are exact; of smaller groups they are rounded to whole
factors, which are at most 1/1,536 of what the largest group can hold. Source: NVIDIA's description of NVFP4.
"""

from __future__ import annotations

import torch

from quire.quant.decoders.superblocks import Blocks

_SPREAD = 4
"""Powers of two between the largest scale and the last one that is exact: codes times steps stay below 4,096."""
_MOST = 3
"""Powers of two that a step takes, of which the rest is its code's."""


def four_bit_blocks(doubled: torch.Tensor, scales: torch.Tensor, factor: torch.Tensor) -> Blocks:
    """Super-blocks of a weight [N, K].

    doubled  [N, K] int32: twice the e2m1 numbers. scales [N, K / 16] e4m3. factor: of all, float32.
    """
    bits = scales.view(torch.uint8).to(torch.int32).view(-1, 16)
    exponents = (bits >> 3 & 15).clamp(min=1)
    ones = (bits & 7) + 8 * (bits & 127 >= 8).to(torch.int32)  # [blocks, 16]
    lowest = torch.where(ones > 0, exponents, 1)
    most = lowest.amax(1, keepdim=True)
    shift = _SPREAD - (most - exponents)  # of a group: what its numbers are multiplied with
    is_exact = shift >= 0
    of_step = shift.clamp(min=0, max=_MOST)
    codes = doubled.view(-1, 16, 16) * (1 - 2 * (bits >> 7)).unsqueeze(-1)
    exact = codes << (shift.clamp(min=0) - of_step).unsqueeze(-1)
    products = (codes * ones.unsqueeze(-1)).to(torch.float32)
    rounded = torch.ldexp(products, shift.clamp(max=0).unsqueeze(-1)).round().to(torch.int32)
    codes = torch.where(is_exact.unsqueeze(-1), exact, rounded)
    steps = torch.where(is_exact, ones << of_step, 1)
    factors = torch.ldexp(factor.expand(len(most), 1), most - 10 - _SPREAD)
    factors = torch.where((bits & 127 == 127).any(1, keepdim=True), torch.nan, factors)
    return Blocks(codes.flatten(1), steps, factors)
