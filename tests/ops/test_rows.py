"""Rows alone, in company, shifted and strided have the same bits, in every provider that says so.

Also that operations made of others equal their parts. Attention has tests of its own.
"""

from __future__ import annotations

import math

import pytest
import torch

from quire.ops.elementwise import ACTIVATIONS, ADD
from quire.ops.linear import LINEAR
from quire.ops.norm import ADD_RMS_NORM, LAYER_NORM, RMS_NORM
from quire.ops.registry import Op, Provider, Table, providers
from tests.ops.cases import DTYPES, Case, Tensors, layer_norm, linear, noise, rms_norm
from tests.ops.test_table import WALK

INDEPENDENT = [param for param in WALK if param.values[1].row_invariant]  # type: ignore[union-attr]
CUTS = ((0, 1), (0, 2), (64, 65), (3, 20), (1, 64), (63, 129), (0, 127), (129, 130))


def part(rows: Tensors, start: int, end: int) -> Tensors:
    return {name: tensor[start:end].clone() for name, tensor in rows.items()}


@pytest.mark.parametrize(("op", "provider", "dtype", "case"), INDEPENDENT)
def test_rows_are_independent(op: Op, provider: Provider, dtype: str, case: Case) -> None:
    fixed, rows = case.fixed(DTYPES[dtype]), case.draw(130, DTYPES[dtype])
    together = case.call(provider, part(rows, 0, 130), fixed, None)
    for start, end in CUTS:
        some = case.call(provider, part(rows, start, end), fixed, None)
        assert torch.equal(some, together[start:end]), f"rows {start} to {end}"
    order = torch.randperm(130, generator=torch.Generator().manual_seed(0))
    shuffled = {name: tensor[order] for name, tensor in rows.items()}
    assert torch.equal(case.call(provider, shuffled, fixed, None), together[order])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["torch", "reference"])
@pytest.mark.parametrize("sizes", [(2048, 1030), (31, 7), (5000, 96)])
def test_large_products_have_independent_rows(
    sizes: tuple[int, int], name: str, dtype: str
) -> None:
    case = linear(*sizes, bias=True, delta=False)
    provider = providers(LINEAR)[name]
    fixed, rows = case.fixed(DTYPES[dtype]), case.draw(66, DTYPES[dtype])
    together = case.call(provider, rows, fixed, None)
    for start, end in ((0, 1), (65, 66), (13, 29)):
        some = case.call(provider, part(rows, start, end), fixed, None)
        assert torch.equal(some, together[start:end])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_do_not_depend_on_the_place_of_an_element(name: str) -> None:
    x = noise(70_001) * 4
    whole = ACTIVATIONS[name](x.clone())
    for start in (0, 1, 7, 13):
        for size in (1, 5, 17, 31, 63, 100, 1000, 40_003):
            some = ACTIVATIONS[name](x[start : start + size].clone())
            assert torch.equal(some, whole[start : start + size]), f"{size} from {start}"


@pytest.mark.parametrize(
    ("case", "op"), [(rms_norm(40_000), RMS_NORM), (layer_norm(40_000, bias=True), LAYER_NORM)]
)
def test_a_wide_norm_has_independent_rows(case: Case, op: Op) -> None:
    provider = providers(op)["reference"]
    fixed, rows = case.fixed(torch.float32), case.draw(9, torch.float32)
    together = case.call(provider, rows, fixed, None)
    for row in range(9):
        assert torch.equal(
            case.call(provider, part(rows, row, row + 1), fixed, None), together[row : row + 1]
        )


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_a_poisoned_row_stays_alone(name: str) -> None:
    case, provider = linear(97, 33, bias=True, delta=False), providers(LINEAR)[name]
    fixed, rows = case.fixed(torch.bfloat16), case.draw(70, torch.bfloat16)
    clean = case.call(provider, rows, fixed, None)
    rows["x"][[5, 69]] = math.nan
    got = case.call(provider, rows, fixed, None)
    whole = [row for row in range(70) if row not in (5, 69)]
    assert torch.equal(got[whole], clean[whole])
    assert bool(got[[5, 69]].isnan().all())
    del rows["x"]
    after = case.call(provider, case.draw(3, torch.bfloat16), fixed, None)
    assert not bool(after.isnan().any())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["torch", "reference"])
def test_a_zero_delta_changes_no_bit(name: str, dtype: str) -> None:
    provider = providers(LINEAR)[name]
    x, weight, bias = (
        noise(*shape, seed=seed, dtype=DTYPES[dtype])
        for seed, shape in enumerate([(70, 96), (40, 96), (40,)])
    )
    packed = provider.pack(weight, bias)  # type: ignore[attr-defined]
    delta = noise(70, 40, seed=4)
    delta[::2] = 0.0
    got, plain = provider.run(x, packed, delta=delta), provider.run(x, packed)
    assert torch.equal(got[::2], plain[::2])
    assert not torch.equal(got[1::2], plain[1::2])


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_a_product_takes_strided_rows(name: str) -> None:
    provider = providers(LINEAR)[name]
    both, weight = noise(130, 2 * 40), noise(24, 40, seed=1)
    packed = provider.pack(weight)  # type: ignore[attr-defined]
    assert torch.equal(
        provider.run(both[:, 40:], packed), provider.run(both[:, 40:].contiguous(), packed)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", providers(ADD_RMS_NORM))
def test_fused_norm_equals_its_parts(name: str, dtype: str) -> None:
    for count, width in ((1, 48), (67, 331), (130, 1024)):
        x, residual = (noise(count, width, seed=seed, dtype=DTYPES[dtype]) for seed in (0, 1))
        weight, apart = noise(width, seed=2), residual.clone()
        providers(ADD)[name].run(apart, x, out=apart)
        want = providers(RMS_NORM)[name].run(apart, weight, eps=1e-5)
        got = providers(ADD_RMS_NORM)[name].run(x, residual, weight, eps=1e-5)
        assert torch.equal(residual, apart)
        assert torch.equal(got, want)


def test_results_may_replace_inputs() -> None:
    x, y, weight = noise(9, 40), noise(9, 40, seed=1), noise(40, seed=2)
    for op, arguments, numbers in (
        ("rms_norm", (weight,), {"eps": 1e-6}),
        ("layer_norm", (weight, None), {"eps": 1e-6}),
        ("act", (), {"act": "gelu_tanh"}),
        ("add", (y,), {"scale": 0.5}),
        ("scale", (), {"factor": 3.0}),
        ("soft_cap", (), {"cap": 2.0}),
        ("clamp", (), {"limit": 0.5}),
    ):
        provider = next(param.values[1] for param in WALK if param.values[0].name == op)  # type: ignore[union-attr]
        want = provider.run(x, *arguments, **numbers)  # type: ignore[union-attr]
        same = x.clone()
        provider.run(same, *arguments, out=same, **numbers)  # type: ignore[union-attr]
        assert torch.equal(same, want), op


def test_a_tape_gives_the_eager_bits_on_new_inputs() -> None:
    table = Table()
    product = table.bind(LINEAR, "float32", N=24, K=16)
    norm = table.bind(ADD_RMS_NORM, "float32", C=24)
    packed = product.provider.pack(noise(24, 16, seed=1), None)  # type: ignore[attr-defined]
    weight = noise(24, seed=2)
    x, residual, hidden, out = noise(5, 16), noise(5, 24), torch.empty(5, 24), torch.empty(5, 24)

    def chain() -> None:
        product(x, packed, out=hidden)
        norm(hidden, residual, weight, eps=1e-6, out=out)

    with table.record() as tape:
        chain()
    assert [call.bound.op.name for call in tape.calls] == ["linear", "add_rms_norm"]
    fresh, start = noise(5, 16, seed=3), noise(5, 24, seed=4)
    x.copy_(fresh)
    residual.copy_(start)
    chain()
    assert len(tape.calls) == 2, "the tape still records"
    want, after = out.clone(), residual.clone()
    out.fill_(math.nan)
    hidden.fill_(math.nan)
    residual.copy_(start)
    tape.replay()
    assert torch.equal(out, want)
    assert torch.equal(residual, after)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "size"), [(64, 48), (100, 90), (256, 1000), (1024, 512)])
def test_small_tiles_are_used_only_where_they_have_the_bits_of_the_full_tile(
    dtype: torch.dtype, width: int, size: int
) -> None:
    from quire.ops.vendor.linear import LinearTorch

    provider = LinearTorch()
    weight = torch.randn(size, width).to(dtype)
    packed = provider.pack(weight, None)
    assert packed.tiles[-1] == 64
    rows = torch.randn(64, width).to(dtype)
    together = provider.run(rows, packed)
    for count in (1, 2, 3, 4, 5, 15, 16, 17, 63):
        for start in (0, 64 - count):
            alone = provider.run(rows[start : start + count], packed)
            assert torch.equal(alone, together[start : start + count]), (packed.tiles, count)


def test_a_tile_with_other_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from quire.ops.vendor import linear

    real = linear.F.linear

    def other_order(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        if x.shape[0] == 4:
            odd = real(x[:, 1::2], weight[:, 1::2])
            return real(x[:, ::2], weight[:, ::2], bias) + odd
        return real(x, weight, bias)

    monkeypatch.setattr(linear.F, "linear", other_order)
    assert 4 not in linear.equal_tiles(torch.randn(90, 256), None)


def test_pad_buffers_serve_inference_mode_and_plain_calls() -> None:
    from quire.ops.vendor.linear import LinearTorch

    provider = LinearTorch()
    packed = provider.pack(torch.randn(8, 24), None)
    with torch.inference_mode():
        inside = provider.run(torch.ones(1, 24), packed)
    assert torch.equal(provider.run(torch.ones(1, 24), packed), inside)
