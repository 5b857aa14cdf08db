"""NVFP4 in super-blocks against its numbers in float64, and MXFP8 with a power of two for each row."""

from __future__ import annotations

import pytest
import torch

from quire.quant.decoders.table import decode
from quire.quant.formats import Format, super_format
from quire.quant.stored import StoredTensor

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SUPER = super_format(("int8_k", 0))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("spread", [0, 4, 9])
def test_numbers_of_super_blocks(spread: int, inverse: bool) -> None:
    """Exact where scales of 256 neighbours are within 2^4 of the largest, else near: of the smallest ones too."""
    generator = torch.Generator().manual_seed(spread)
    rows, depth = 24, 512
    codes = torch.randint(0, 256, (rows, depth // 2), generator=generator, dtype=torch.uint8)
    exponents = torch.randint(0, spread + 1, (rows, depth // 16), generator=generator)
    ones = torch.randint(0, 8, (rows, depth // 16), generator=generator)
    bits = (exponents << 3 | ones).to(torch.uint8)
    bits[0] = 0  # groups without a scale
    bits[1, 3] = 0
    factor = torch.tensor([3.0 / 1024])
    members = {"codes": codes, "scales": bits.view(torch.float8_e4m3fn), "factor": factor}
    stored = StoredTensor((rows, depth), {}, "float4", {"inverse": inverse}, SUPER)
    found = decode(members, stored, torch.bfloat16).dequantized().double()

    nibbles = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(1).long()
    numbers = torch.tensor((*VALUES, *(-value for value in VALUES)), dtype=torch.float64)[nibbles]
    scales = bits.view(torch.float8_e4m3fn).double().repeat_interleave(16, 1)
    numbers *= scales / factor.double() if inverse else scales * factor.double()
    largest = numbers.view(-1, 256).abs().amax(1).repeat_interleave(256).view_as(numbers)
    error = (found - numbers).abs()
    if spread <= 4:
        assert bool((error <= numbers.abs() * 1e-7).all())
    assert bool((error <= numbers.abs() * 1e-7 + largest / 1536).all())
    limits = bits.view(-1, 16).to(torch.int16) >> 3
    near = limits.clamp(min=1) + 4 >= limits.amax(1, keepdim=True).clamp(min=1)
    near = near.repeat_interleave(16, 1).view_as(numbers)
    assert bool((error[near] <= numbers.abs()[near] * 1e-7).all())


def test_a_scale_that_is_no_number_is_refused() -> None:
    bits = torch.full((1, 16), 127, dtype=torch.uint8).view(torch.float8_e4m3fn)
    codes = torch.zeros(1, 128, dtype=torch.uint8)
    members = {"codes": codes, "scales": bits, "factor": torch.ones(1)}
    stored = StoredTensor((1, 256), {}, "float4", {"inverse": False}, SUPER)
    with pytest.raises(ValueError, match="not finite"):
        decode(members, stored, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_powers_of_rows(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    codes = (torch.randn(40, 256, generator=generator) * 60).to(dtype)
    powers = torch.randint(118, 123, (40, 8), generator=generator, dtype=torch.uint8)
    codes[0] = 0
    codes[1, 0], powers[1, 0] = 448.0, 122
    kind = "fp8_e4m3" if dtype is torch.float8_e4m3fn else "fp8_e5m2"
    stored = StoredTensor((40, 256), {}, "microscaled", {"kind": kind}, Format("fp8"))
    made = decode({"codes": codes, "scales": powers}, stored, torch.bfloat16)
    wanted = codes.double() * (powers.double() - 127).exp2().repeat_interleave(32, 1)
    error, largest = (
        (made.dequantized().double() - wanted).abs(),
        wanted.abs().amax(1, keepdim=True),
    )
    assert bool((error <= largest * 2.0**-17).all())
    is_large = wanted.abs() >= largest * 2.0**-13
    assert bool((error[is_large] == 0).all())
    assert bool((made.scales.log2() % 1 == 0).all())
    assert float(made.codes.float().abs().amax(1)[1:].min()) > 224
