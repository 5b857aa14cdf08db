"""Weights made of fewer bits: what is lost, and the same codes with and without the native library."""

from __future__ import annotations

import math

import pytest
import torch

from quire.ops.cpu import library, quantized
from quire.ops.formats import KNOWN, Format, parse
from quire.ops.quantized import QuantizedWeight
from quire.quant.rounding import quantize, round_weight, shared_limits
from tests.ops.cases import DTYPES, noise

LOST = {"int8": 0.0085, "int8_g32": 0.0055, "int4": 0.16, "int4_g128": 0.115, "int4_g64": 0.105}
LOST |= {"int4_g32": 0.09, "int4_g32_zp": 0.085, "fp8": 0.03, "fp8_tensor": 0.03, "fp8_g128": 0.03}


def same(left: QuantizedWeight, right: QuantizedWeight) -> bool:
    return (
        torch.equal(left.codes.view(torch.uint8), right.codes.view(torch.uint8))
        and torch.equal(left.scales.nan_to_num(-7.0), right.scales.nan_to_num(-7.0))
        and (left.zeros is right.zeros or torch.equal(left.zeros, right.zeros))  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_of_normal_numbers(name: str) -> None:
    weight = noise(96, 1024)
    back = quantize(weight, parse(name)).dequantized()
    lost = float((back - weight).norm() / weight.norm())
    assert 0.3 * LOST[name] < lost < LOST[name]


@pytest.mark.skipif(library.library() is None, reason="no native library here")
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize(
    "format", [one for one in KNOWN if not one.inputs], ids=lambda format: format.name
)
def test_the_native_library_makes_the_same_codes(
    format: Format, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for depth, columns in ((64, 48), (97, 33), (300, 130)):
        weight = (noise(columns, depth) * depth**-0.5).to(dtype)
        weight[3], weight[5, :40], weight[9] = 0.0, weight[5, 0], weight[9] * 1e-6
        for poison in (None, math.nan, math.inf):
            if poison is not None:
                weight[7, 9] = poison
            shared = format.kind == "fp8" and (format.group or format.one_scale)
            limits = shared_limits(weight, format) if shared else None
            want = round_weight(weight, format, limits)
            for isa in library.usable():
                monkeypatch.setattr(quantized, "native", lambda isa=isa: library.load(isa))
                assert same(quantized.round_weight(weight, format, limits), want), isa


@pytest.mark.parametrize("format", KNOWN, ids=lambda format: format.name)
def test_what_is_not_a_number_is_seen(format: Format) -> None:
    weight = noise(40, 128)
    weight[7, 9] = math.nan
    made = quantize(weight, format)
    assert bool(made.scales[7, 9 // (format.group or 128)].isnan())
    if not format.one_scale and not (format.kind == "fp8" and format.group):
        assert bool(made.scales[:7].isfinite().all())


def test_zeros_stay_zeros() -> None:
    for format in KNOWN:
        made = quantize(torch.zeros(5, 70), format)
        assert not bool(made.dequantized().any()), format.name


def test_whole_numbers_of_eight_bits_are_exact() -> None:
    weight = torch.randint(-127, 128, (20, 64)).float()
    weight[:, 0] = 127.0
    made = quantize(weight, parse("int8"))
    assert torch.equal(made.codes.float(), weight)
    assert torch.equal(made.dequantized(), weight)


def test_squares_of_fp8_share_a_scale() -> None:
    weight = noise(200, 300)
    made = quantize(weight, parse("fp8_g128"))
    limit = weight[:128, 128:256].abs().max() / 448.0
    assert made.scales.shape == (200, 3)
    assert torch.equal(made.scales[:128, 1], limit.expand(128))
    assert torch.equal(made.scales[128:, 2], (weight[128:, 256:].abs().max() / 448.0).expand(72))
    one = quantize(weight, parse("fp8_tensor"))
    assert torch.equal(one.scales, (weight.abs().max() / 448.0).expand(200, 1))
