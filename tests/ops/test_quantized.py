"""Products with weights of fewer bits: one answer on every machine, near the formula, whatever the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from quire.ops.cpu import library
from quire.ops.formats import FROM_CHECKPOINTS, KNOWN, PLAIN, SHORT_FORMATS, Format, parse
from quire.ops.linear import LINEAR
from quire.ops.quantized import (
    LARGEST,
    LARGEST_SHORT,
    QuantizedWeight,
    round_rows,
    round_rows_to_bytes,
)
from quire.ops.registry import Provider, Signature, load_all, providers
from quire.quant.rounding import quantize
from tests.ops.cases import DTYPES, noise

load_all()
REFERENCE, TORCH = providers(LINEAR)["reference"], providers(LINEAR)["torch"]
CPU = providers(LINEAR)["cpu"]
SIZES = ((64, 48), (97, 33), (300, 130), (1100, 40))
ALL = (*KNOWN, *FROM_CHECKPOINTS, *(one for one in SHORT_FORMATS if not one.runs))
INTEGERS = [format for format in ALL if format.kind != "fp8"]
WIDE = [format for format in ALL if not format.has_byte_rows]
BYTES = [format for format in ALL if format.has_byte_rows]
ROW_ERROR, SHORT_ROW_ERROR = 1e-4, 2.5e-2
"""Relative error of a product by its rows of 16 bits or 8, one of them and one of their channels outlying."""

pytestmark = pytest.mark.skipif(library.library() is None, reason="no native library here")


def named(format: Format) -> str:
    return format.name


@pytest.fixture(params=library.usable())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every native library that runs here, in turn."""
    loaded = library.load(request.param)
    monkeypatch.setattr("quire.ops.cpu.linear.native", lambda: loaded)
    monkeypatch.setattr("quire.ops.cpu.quantized.native", lambda: loaded)
    yield request.param


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn(
    format: Format, in_size: int, out_size: int, dtype: torch.dtype, farthest: int = 128
) -> tuple[QuantizedWeight, torch.Tensor]:
    """A weight and a bias. farthest  zero point of int8 codes."""
    weight = (noise(out_size, in_size, seed=2) * in_size**-0.5).to(dtype)
    made = replace(quantize(weight, format), step=0.03, shift=-7)  # of rows that are "fixed"
    generator = torch.Generator().manual_seed(in_size)
    if format.has_order:
        made = replace(made, order=torch.randperm(in_size, generator=generator).to(torch.int32))
    if format.has_zeros and format.kind == "int8":
        shape = made.scales.shape
        zeros = torch.randint(-farthest, farthest, shape, generator=generator, dtype=torch.int8)
        made = replace(made, zeros=zeros)
    return made, noise(out_size, seed=3, dtype=dtype)


def run(provider: Provider, x: torch.Tensor, packed: object, **more: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = provider.run(x, packed, **more)
    return result


def packed_by(
    provider: Provider, weight: QuantizedWeight, bias: torch.Tensor | None = None
) -> object:
    return provider.pack(weight, bias)  # type: ignore[attr-defined]


@pytest.mark.parametrize("format", ALL, ids=named)
def test_names_are_read_back(format: Format) -> None:
    assert parse(format.name) == format


@pytest.mark.parametrize(
    "name",
    [
        "int4_g16",
        "fp8_g32",
        "int4_order",
        "fp8_zp",
        "int4x",
        "int8_rows8_parts8",
        "int8_k_parts8",
        "",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no stored format is named"):
        parse(name)


@pytest.mark.parametrize("format", ALL, ids=named)
def test_who_accepts(format: Format) -> None:
    signature = Signature("bfloat16", {}, format.name)
    assert REFERENCE.accepts(signature) is None
    assert CPU.accepts(signature) is None
    assert TORCH.accepts(signature) is not None
    assert "float64" in str(CPU.accepts(Signature("float64", {}, format.name)))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("format", INTEGERS, ids=named)
def test_integer_products_have_the_bits_of_the_definition(
    isa: str, format: Format, dtype: torch.dtype, two_threads: None
) -> None:
    for in_size, out_size in SIZES:
        weight, bias = drawn(format, in_size, out_size, dtype)
        packed, kept = packed_by(CPU, weight, bias), packed_by(REFERENCE, weight, bias)
        for count in (1, 2, 5, 12, 13, 17, 40, *(100,) * (in_size > 1000)):
            x, delta = noise(count, in_size, dtype=dtype), noise(count, out_size, seed=1)
            want = run(REFERENCE, x, kept, delta=delta)
            out = torch.full_like(want, math.nan)
            assert run(CPU, x, packed, delta=delta, out=out) is out
            assert torch.equal(out, want), (in_size, out_size, count)


@pytest.mark.parametrize(
    "name",
    [
        *("int4_g32_zp", "int8_g32", "int8_g64_zp", "int8_g128_zp"),
        *("int4_g128_zp_parts8", "int8_parts8", "int8_g32_parts8", "int8_g128_zp_parts8"),
    ],
)
def test_the_largest_numbers_do_not_overflow(isa: str, name: str) -> None:
    """Every number of a row is the largest of its part, and codes are as far from zero points as they can be."""
    format, (in_size, out_size) = parse(name), (192, 40)
    generator = torch.Generator().manual_seed(5)

    def any_of(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.tensor([low, high])[torch.randint(0, 2, shape, generator=generator)]

    low, high, kind = (0, 15, torch.uint8) if format.kind == "int4" else (-128, 127, torch.int8)
    groups = format.num_groups(in_size)
    weight = QuantizedWeight(
        format,
        any_of(low, high, out_size, in_size).to(kind),
        torch.ones(out_size, groups),
        torch.float32,
        any_of(low, high, out_size, groups).to(kind) if format.has_zeros else None,
    )
    packed, kept = packed_by(CPU, weight), packed_by(REFERENCE, weight)
    for count in (1, 6, 17):
        x = any_of(-1, 1, count, in_size).float()
        assert torch.equal(run(CPU, x, packed), run(REFERENCE, x, kept)), count


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("format", WIDE, ids=named)
@pytest.mark.parametrize("provider", [REFERENCE, CPU], ids=lambda provider: provider.name)
def test_nothing_visible_is_added_to_the_rounding_of_a_result(
    provider: Provider, format: Format, dtype: torch.dtype
) -> None:
    weight, _ = drawn(format, 700, 96, dtype, farthest=8)
    x = noise(33, 700, dtype=dtype)
    x[:, 5] *= 40  # an outlying channel
    x[7] *= 100  # and an outlying token
    want = x.double() @ weight.dequantized().double().T
    got = run(provider, x, packed_by(provider, weight)).double()
    rounding = (want.to(dtype).double() - want).norm()
    row_error = SHORT_ROW_ERROR if format.inputs else ROW_ERROR
    allowed = math.hypot(float(rounding), row_error * float(want.norm()))
    assert float((got - want).norm()) < allowed * 1.005


@pytest.mark.parametrize("format", ALL, ids=named)
def test_rows_do_not_depend_on_their_number_place_or_threads(isa: str, format: Format) -> None:
    in_size, out_size = (160, 70) if isa == "portable" else (416, 140)
    weight, bias = drawn(format, in_size, out_size, torch.bfloat16)
    packed = packed_by(CPU, weight, bias)
    x = noise(500, in_size, dtype=torch.bfloat16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = run(CPU, x, packed)
        for count in (*range(1, 50), 63, 64, 65, 127, 255, 300, 480, 481):
            torch.set_num_threads(1 + count % 2)
            assert torch.equal(run(CPU, x[:count], packed), together[:count]), count
            assert torch.equal(run(CPU, x[-count:], packed), together[-count:]), count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("format", ALL, ids=named)
def test_a_poisoned_row_stays_alone(isa: str, format: Format) -> None:
    weight, bias = drawn(format, 97, 33, torch.bfloat16)
    packed, x = packed_by(CPU, weight, bias), noise(40, 97, dtype=torch.bfloat16)
    clean = run(CPU, x, packed)
    x[5, 3], x[39, 96] = math.nan, math.inf
    got = run(CPU, x, packed)
    whole = [row for row in range(40) if row not in (5, 39)]
    assert torch.equal(got[whole], clean[whole])
    assert not bool(got[[5, 39]].isfinite().any())
    assert torch.equal(run(CPU, noise(40, 97, dtype=torch.bfloat16), packed), clean)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("format", (PLAIN, *ALL), ids=named)
def test_a_result_of_float32_is_rounded_to_the_other(isa: str, format: Format, dtype: str) -> None:
    kind = DTYPES[dtype]
    if format == PLAIN:
        weight, bias = (noise(40, 300, seed=2) / 17).to(kind), noise(40, seed=3).to(kind)
    else:
        weight, bias = drawn(format, 300, 40, kind)
    x, delta = noise(9, 300).to(kind), noise(9, 40, seed=4)
    for provider in (CPU, REFERENCE):
        packed = provider.pack(weight, bias)
        wide = provider.run(x, packed, delta=delta, out=torch.empty(9, 40))
        narrow = provider.run(x, packed, delta=delta)
        assert narrow.dtype == kind and torch.equal(wide.to(kind), narrow)
        assert not torch.equal(wide, narrow.float())


@pytest.mark.parametrize("format", [parse("int8"), parse("int4_g32_zp"), parse("fp8")], ids=named)
def test_rows_may_be_strided(isa: str, format: Format) -> None:
    weight, _ = drawn(format, 40, 24, torch.float32)
    packed, both = packed_by(CPU, weight), noise(30, 80)
    wide = torch.zeros(30, 60)
    run(CPU, both[:, 40:], packed, out=wide[:, 10:34])
    assert torch.equal(wide[:, 10:34], run(CPU, both[:, 40:].contiguous(), packed))
    assert not bool(wide[:, :10].any()) and not bool(wide[:, 34:].any())


@pytest.mark.parametrize(
    ("name", "largest"), [("int4_g32", LARGEST), ("int4_g32_parts8", LARGEST_SHORT)]
)
@pytest.mark.parametrize("size", [1e-37, 1e-20, 1.0, 1e20])
def test_rows_of_any_size_are_rounded(size: float, name: str, largest: float) -> None:
    x = noise(3, 300) * size
    numbers, steps = round_rows(x, parse(name))
    back = (numbers * steps.unsqueeze(-1)).flatten(1)[:, :300]
    assert float(numbers.abs().max()) <= largest
    if size < 1e-30:
        assert not bool(back.any())
    else:
        torch.testing.assert_close(back, x, rtol=0, atol=float(x.abs().max()) * 0.51 / largest)


@pytest.mark.parametrize("format", WIDE, ids=named)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_code_of_eight_bits_and_four_is_multiplied_exactly(
    isa: str, format: Format, dtype: torch.dtype
) -> None:
    """Rows with a single 1 show the weights themselves: LARGEST / LARGEST is exact, and so are steps of 1."""
    largest = LARGEST_SHORT if format.inputs else LARGEST
    if format.kind == "fp8":
        finite = [code for code in range(256) if code & 0x7F != 0x7F]
        codes = torch.tensor(finite, dtype=torch.uint8).view(torch.float8_e4m3fn).unsqueeze(1)
    elif format.kind == "int4":
        codes = torch.arange(16, dtype=torch.uint8).unsqueeze(1)
    else:
        codes = torch.arange(-128, 128).to(torch.int8).unsqueeze(1)
    codes = codes.expand(-1, 130).contiguous()
    shape = (codes.shape[0], format.num_groups(130))
    zeros = torch.full(shape, 3).to(codes.dtype) if format.has_zeros else None
    order = torch.arange(130, dtype=torch.int32).flip(0) if format.has_order else None
    weight = QuantizedWeight(format, codes, torch.ones(shape), dtype, zeros, order=order)
    x = torch.zeros(3, 130, dtype=dtype)
    x[0, 0] = x[1, 67] = x[2, 129] = 1.0
    got = run(CPU, x, packed_by(CPU, weight)).to(torch.float32)
    want = weight.dequantized()[:, [0, 67, 129]].T
    steps = largest * torch.tensor(1.0).div(largest)
    torch.testing.assert_close(got, want * steps, rtol=2**-23, atol=0)
    if format.kind == "fp8":
        assert torch.equal(got, want)


def by_library(x: torch.Tensor, format: Format) -> torch.Tensor:
    """x [T, K] float32 rounded to 8 bits by compressed-tensors, and made floats again."""
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    is_fixed = format.inputs == "fixed"
    args = QuantizationArgs(
        num_bits=8,
        type="int",
        symmetric=format.inputs == "row",
        strategy="tensor" if is_fixed else "token",
        dynamic=not is_fixed,
    )
    scale, zero = torch.tensor([0.03]), torch.tensor([-7], dtype=torch.int8)
    if not is_fixed:
        scale, zero = calculate_qparams(x.amin(-1, keepdim=True), x.amax(-1, keepdim=True), args)
    return fake_quantize(x, scale, zero, args)


@pytest.mark.parametrize("format", BYTES, ids=named)
def test_rows_of_eight_bits_are_those_of_compressed_tensors(isa: str, format: Format) -> None:
    """The library rounds rows, the product is exact in float64: whole rows, all ISAs, no tolerance but float32."""
    weight, _ = drawn(format, 700, 96, torch.float32)
    x = noise(33, 700) + 0.3
    x[7] *= 100
    x[9] = x[9].abs()  # none below zero
    codes, steps = round_rows_to_bytes(x, weight)
    rounded = by_library(x, format)
    torch.testing.assert_close(codes * steps, rounded, rtol=2**-22, atol=0)
    want = rounded.double() @ weight.dequantized().double().T
    size = rounded.double().abs() @ weight.dequantized().double().abs().T
    got = run(CPU, x, packed_by(CPU, weight)).double()
    assert ((got - want).abs() / size).max() < 2**-21


@pytest.mark.parametrize("format", BYTES, ids=named)
def test_rows_that_eight_bits_cannot_hold(isa: str, format: Format) -> None:
    """Zeros and next to nothing give zero, what is not finite NaN, in their own row only."""
    weight, _ = drawn(format, 100, 40, torch.float32)
    x = noise(6, 100)
    x[1] = 0.0
    x[2] *= 1e-38
    x[3, 99], x[4, 0] = math.inf, math.nan
    got = run(CPU, x, packed_by(CPU, weight))
    want = run(REFERENCE, x, packed_by(REFERENCE, weight))
    assert torch.equal(got[[0, 1, 2, 5]], want[[0, 1, 2, 5]]) and not want[1:3].any()
    assert got[3:5].isnan().all() and want[3:5].isnan().all()


def test_sums_of_32_bits_hold_the_largest_rows(isa: str) -> None:
    """65,536 inputs, all at the far ends of both ranges; one more is refused."""
    depth, format = 65536, parse("int8_rows8_fixed")
    codes = torch.full((33, depth), -128, dtype=torch.int8)
    weight = QuantizedWeight(format, codes, torch.ones(33, 1), torch.float32, step=1.0, shift=127)
    x = torch.full((2, depth), -1000.0)
    x[1] = 1000.0
    got = run(CPU, x, packed_by(CPU, weight))
    assert torch.equal(got, torch.tensor([[255.0 * 128 * depth], [0.0]]).expand(2, 33))
    refusal = CPU.accepts(Signature("float32", {"K": depth + 1}, format.name))
    assert refusal is not None and "at most 65536 inputs" in refusal


def test_the_size_of_a_format_is_that_of_its_blocks() -> None:
    assert PLAIN.num_bytes(10, 20, 2) == 400
    assert parse("int8").num_bytes(64, 100, 2) == 2 * (128 + 32 * 128)
    assert parse("int4_g64").num_bytes(33, 100, 2) == 2 * 2 * (128 + 32 * 64 // 2)
    assert parse("int4_g32_half").num_bytes(64, 64, 2) == 2 * 64 * 18  # those of ggml's Q4_0
    assert parse("int8_rows8").num_bytes(64, 100, 2) == 2 * (320 + 32 * 128)
    assert parse("int4_g32_zp").num_bytes(32, 32, 2) == 128 + 64 + 32 * 32 // 2
    for format in (one for one in ALL if not one.has_order):
        weight, _ = drawn(format, 100, 33, torch.float32)
        assert packed_by(CPU, weight).data.numel() == format.num_bytes(33, 100, 4)  # type: ignore[attr-defined]
