"""Products with weights in super-blocks: one answer on every machine, exact numbers, whatever the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from quire.ops.cpu import library
from quire.ops.formats import (
    SHORT_FORMATS,
    SUPER_FORMATS,
    SUPER_KINDS,
    Format,
    parse,
    super_format,
)
from quire.ops.linear import LINEAR
from quire.ops.quantized import QuantizedWeight, SuperBlocks, round_rows
from quire.ops.registry import Provider, Signature, load_all, providers
from tests.ops.cases import DTYPES, noise

load_all()
REFERENCE, CPU = providers(LINEAR)["reference"], providers(LINEAR)["cpu"]
MIXED = super_format(("q4_k", 64), ("q6_k", 32), ("int8_k", 32), ("q2_k", 5))
MIXED_SHORT = replace(super_format(("q4_k", 64), ("q6_k", 32), ("q2_k", 37)), inputs="part")
SHORT = (*(one for one in SHORT_FORMATS if one.runs), MIXED_SHORT)
FORMATS = (*SUPER_FORMATS, MIXED, *SHORT)

pytestmark = pytest.mark.skipif(library.library() is None, reason="no native library here")


def named(format: Format) -> str:
    return format.name


@pytest.fixture(params=library.usable())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every native library that runs here, in turn."""
    with library.using(request.param):
        yield request.param


def drawn(
    format: Format, out_size: int, in_size: int, dtype: torch.dtype, *, is_extreme: bool = False
) -> QuantizedWeight:
    """Any weight of a format; an extreme one has the largest codes and scales that there are."""
    generator = torch.Generator().manual_seed(7)

    def whole(low: int, high: int, *shape: int) -> torch.Tensor:
        if is_extreme:
            sides = torch.tensor([low, high - 1])
            return sides[torch.randint(0, 2, shape, generator=generator)]
        return torch.randint(low, high, shape, generator=generator)

    runs = format.runs if format.runs[0][1] else ((format.runs[0][0], out_size),)
    parts = []
    for name, count in runs:
        kind, signed = SUPER_KINDS[name], not SUPER_KINDS[name].has_minima
        codes = whole(-kind.bias, (1 << kind.bits) - kind.bias, count, in_size)
        if name == "int8_k":
            codes = whole(-127, 128, count, in_size)
        largest = {"q2_k": 16, "q3_k": 32, "q6_k": 128, "int8_k": 32}.get(name, 64)
        spans = (count, in_size // kind.span)
        steps = whole(-largest if signed else 0, largest, *spans)
        minima = whole(0, largest if kind.has_minima else 1, *spans)
        spread = kind.span // 16
        parts.append(
            (
                codes.to(torch.int8),
                steps.to(torch.int8).repeat_interleave(spread, dim=1),
                minima.to(torch.uint8).repeat_interleave(spread, dim=1),
            )
        )
    codes, steps, minima = (torch.cat(part) for part in zip(*parts, strict=True))
    factors, floors = (noise(out_size, in_size // 256, seed=s).half().float() for s in (3, 4))
    return QuantizedWeight(format, codes, factors, dtype, inner=SuperBlocks(floors, steps, minima))


def run(provider: Provider, x: torch.Tensor, weight: object, **more: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = provider.run(x, weight, **more)
    return result


def packed(provider: Provider, weight: QuantizedWeight, bias: torch.Tensor | None = None) -> object:
    return provider.pack(weight, bias)  # type: ignore[attr-defined]


@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_names_are_read_back_and_accepted(format: Format) -> None:
    assert parse(format.name) == format
    for provider, is_good in ((REFERENCE, True), (CPU, True), (providers(LINEAR)["torch"], False)):
        refusal = provider.accepts(Signature("bfloat16", {}, format.name))
        assert (refusal is None) == is_good


@pytest.mark.parametrize("name", ["q7_k", "q4_k:32", "q4_k+q6_k", "q4_k:32+int8:32", "super"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no stored format is named"):
        parse(name)


def test_runs_end_with_blocks_and_name_all_columns() -> None:
    assert super_format(("q4_k", 64), ("q4_k", 32)) == parse("q4_k")
    with pytest.raises(ValueError, match="multiple of 32"):
        super_format(("q4_k", 40), ("q6_k", 24)).num_bytes(64, 256, 2)
    with pytest.raises(ValueError, match="96 columns, not of 128"):
        super_format(("q4_k", 64), ("q6_k", 32)).num_bytes(128, 256, 2)


@pytest.mark.parametrize("is_extreme", [False, True], ids=["any", "extreme"])
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_products_have_the_bits_of_the_definition(
    isa: str, format: Format, dtype: torch.dtype, is_extreme: bool
) -> None:
    weight = drawn(format, 133, 768, dtype, is_extreme=is_extreme)
    bias = noise(133, seed=3, dtype=dtype)
    ours, theirs = packed(CPU, weight, bias), packed(REFERENCE, weight, bias)
    for count in (1, 2, 3, 5, 6, 7, 40):
        x, delta = noise(count, 768, dtype=dtype), noise(count, 133, seed=1)
        if is_extreme:
            x = x.sign()  # every number is the largest of its part
        want = run(REFERENCE, x, theirs, delta=delta)
        out = torch.full_like(want, math.nan)
        assert run(CPU, x, ours, delta=delta, out=out) is out
        assert torch.equal(out, want), count


@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_the_definition_is_the_product_with_the_numbers(format: Format) -> None:
    weight, x = drawn(format, 133, 512, torch.float32), noise(9, 512)
    x[:, 5] *= 40
    x[7] *= 100
    numbers = weight.dequantized().double()
    got = run(REFERENCE, x, packed(REFERENCE, weight)).double()
    _, steps = round_rows(x, format)
    by_rows = steps.double() / 2 @ numbers.abs().view(133, -1, 128).sum(-1).T
    # With a minimum, two sums that are larger than what is left of them are rounded to float32.
    by_float32 = 1e-5 * (x.abs().double() @ numbers.abs().T)
    assert bool(((got - x.double() @ numbers.T).abs() <= by_rows + by_float32).all())


@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_rows_do_not_depend_on_their_number_place_or_threads(isa: str, format: Format) -> None:
    weight = drawn(format, 133, 256, torch.bfloat16)
    held, x = packed(CPU, weight), noise(200, 256, dtype=torch.bfloat16)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = run(CPU, x, held)
        for count in (*range(1, 20), 63, 127, 200):
            torch.set_num_threads(1 + count % 2)
            assert torch.equal(run(CPU, x[:count], held), together[:count]), count
            assert torch.equal(run(CPU, x[-count:], held), together[-count:]), count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_a_poisoned_row_stays_alone(isa: str, format: Format) -> None:
    held, x = packed(CPU, drawn(format, 133, 256, torch.bfloat16)), noise(40, 256)
    x = x.bfloat16()
    clean = run(CPU, x, held)
    x[5, 3], x[39, 255] = math.nan, math.inf
    got = run(CPU, x, held)
    whole = [row for row in range(40) if row not in (5, 39)]
    assert torch.equal(got[whole], clean[whole])
    assert not bool(got[[5, 39]].isfinite().any())


@pytest.mark.parametrize("format", FORMATS, ids=named)
def test_the_size_of_a_format_is_that_of_its_blocks(format: Format) -> None:
    held = packed(CPU, drawn(format, 133, 512, torch.float32))
    assert held.data.numel() == format.num_bytes(133, 512, 4)  # type: ignore[attr-defined]


def test_packed_weights_are_about_as_small_as_the_file() -> None:
    bits = {"q2_k": 3.2, "q3_k": 3.6, "q4_k": 4.65, "q5_k": 5.65, "q6_k": 6.6, "int8_k": 8.65}
    for name, most in bits.items():
        assert parse(name).num_bytes(4096, 4096, 2) * 8 / 4096**2 < most
