"""Native row operations on every instruction set of this machine: values, bits, edges.

What every provider must do is in `test_table.py` and `test_rows.py`, which take the best set only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from quire.ops.cache import COPY_BLOCKS
from quire.ops.cpu import library
from quire.ops.cpu.structs import ACTS
from quire.ops.elementwise import (
    ACT,
    ACT_MUL,
    ACTIVATIONS,
    ADD,
    ADD_ROW,
    CLAMP,
    SCALE,
    SOFT_CAP,
    TAKE_ROWS,
)
from quire.ops.embedding import EMBEDDING, PUT_ROWS
from quire.ops.gating import MUL_SOFTPLUS, SWIGLU_CLAMPED
from quire.ops.moe import WEIGH_SETS
from quire.ops.norm import ADD_RMS_NORM, LAYER_NORM, RMS_NORM
from quire.ops.registry import Op, Provider, load_all, operations, providers
from quire.ops.rope import QK_ROPE, ROPE
from quire.ops.tolerances import TOLERANCES
from tests.ops.cases import CASES, DTYPES, Case, Tensors, noise, wide

pytestmark = pytest.mark.skipif(not library.usable(), reason="there is no native library here")

load_all()
FILES = tuple(f"quire.ops.cpu.{name}" for name in ("norm", "gating", "rope", "elementwise", "rows"))
WALK = [
    pytest.param(op, dtype, case, id=f"{op.name}-{dtype}-{case.label}")
    for op in operations()
    if "cpu" in providers(op) and type(providers(op)["cpu"]).__module__ in FILES
    for dtype in DTYPES
    for case in CASES.get(op.name, [])
]


@pytest.fixture(params=library.usable(), autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs on every instruction set."""
    loaded = library.load(request.param)
    monkeypatch.setattr(library, "library", lambda: loaded)
    return str(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads that a test sets is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def cpu(op: Op) -> Provider:
    return providers(op)["cpu"]


def some(rows: Tensors, start: int, end: int) -> Tensors:
    return {name: tensor[start:end].clone() for name, tensor in rows.items()}


@pytest.mark.parametrize(("op", "dtype", "case"), WALK)
def test_values_and_independence(op: Op, dtype: str, case: Case) -> None:
    tolerance = TOLERANCES[op.name][dtype]
    fixed, rows = case.fixed(DTYPES[dtype]), case.draw(131, DTYPES[dtype])
    got = case.call(cpu(op), some(rows, 0, 131), fixed, None)
    torch.testing.assert_close(
        got.double(),
        case.want(wide(rows), wide(fixed)),
        rtol=tolerance.relative,
        atol=tolerance.absolute,
    )
    for start, end in ((0, 1), (130, 131), (5, 12), (1, 131)):
        alone = case.call(cpu(op), some(rows, start, end), fixed, None)
        assert torch.equal(alone, got[start:end]), f"rows {start} to {end}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name", ["swiglu_clamped", "add_row", "mul_softplus", "tell_keys", "weigh_sets"]
)
def test_each_row_alone_has_its_bits_on_any_number_of_threads(
    name: str, dtype: str, threads: None
) -> None:
    op = next(op for op in operations() if op.name == name)
    for case in CASES[name]:
        fixed, rows = case.fixed(DTYPES[dtype]), case.draw(300, DTYPES[dtype])
        torch.set_num_threads(1)
        alone = [case.call(cpu(op), some(rows, row, row + 1), fixed, None) for row in range(300)]
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            together = case.call(cpu(op), some(rows, 0, 300), fixed, None)
            assert torch.equal(together, torch.cat(alone)), f"{count} threads"


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype: str, threads: None) -> None:
    x, y = (noise(300, 1000, seed=seed, dtype=DTYPES[dtype]) for seed in (0, 1))
    heads, weight = x.view(300, 8, 125), noise(1000, seed=2)
    positions, table = torch.arange(300) % 50, noise(50, 64, seed=3)
    first, second = noise(2, 125, seed=4)
    blocks = torch.randint(0, 256, (5, 70_000), dtype=torch.uint8)
    moves = {"sources": [0, 4, 2, 9], "targets": [4, 2, 9, 1]}

    def every() -> list[torch.Tensor]:
        buffer = blocks.clone()
        cpu(COPY_BLOCKS).run(buffer, block_bytes=33_333, blocks_per_slab=2, **moves)
        return [
            buffer,
            cpu(RMS_NORM).run(x, weight, eps=1e-6),
            cpu(ADD_RMS_NORM).run(x, y.clone(), weight, eps=1e-6),
            cpu(LAYER_NORM).run(x, weight, None, eps=1e-6),
            cpu(ROPE).run(heads.clone(), positions, table),
            cpu(QK_ROPE).run(
                heads.clone(), first, second, positions, table, num_q_heads=5, eps=1e-6
            ),
            cpu(ADD).run(x, y, scale=0.3),
            cpu(SCALE).run(x.view(-1), factor=0.3),
            cpu(ACT_MUL).run(x, act="silu"),
            cpu(SOFT_CAP).run(x, cap=30.0),
            cpu(TAKE_ROWS).run(x, torch.arange(299, -1, -1)),
            cpu(PUT_ROWS).run(x.clone(), positions[:50], y),
        ]

    torch.set_num_threads(1)
    alone = every()
    for count in (2, 3):
        torch.set_num_threads(count)
        for one, many in zip(alone, every(), strict=True):
            assert torch.equal(one, many), f"{count} threads"
    want = blocks.clone()
    providers(COPY_BLOCKS)["reference"].run(want, block_bytes=33_333, blocks_per_slab=2, **moves)
    assert torch.equal(alone[0], want)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rot", [64, 38, 2])
def test_turning_has_the_bits_of_the_reference(dtype: str, interleaved: bool, rot: int) -> None:
    qkv = noise(40, 5 * 64 + 7, dtype=DTYPES[dtype])
    positions, table = torch.arange(40) * 3 % 70, noise(70, rot, seed=1)
    got, want = qkv.clone(), qkv.clone()
    for provider, packed in (("cpu", got), ("reference", want)):
        view = packed[:, 64:256].view(40, 3, 64)
        assert (
            providers(ROPE)[provider].run(view, positions, table, interleaved=interleaved) is view
        )
    assert torch.equal(got, want)
    assert torch.equal(got[:, 256:], qkv[:, 256:]) and not torch.equal(got, qkv)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["cpu", "reference"])
@pytest.mark.parametrize(("size", "rot", "interleaved"), [(64, 64, False), (50, 24, True)])
def test_norms_and_turning_at_once_equal_the_parts(
    dtype: str, name: str, size: int, rot: int, interleaved: bool
) -> None:
    qkv = noise(20, 7 * size, dtype=DTYPES[dtype])  # 3 query heads, 2 key and 2 value heads
    weights, positions = noise(2, size, seed=1), torch.arange(20) * 5 % 90
    table = noise(90, rot, seed=2)
    joined, apart = qkv.clone(), qkv.clone()
    view = joined[:, : 5 * size].view(20, 5, size)
    providers(QK_ROPE)[name].run(
        view,
        weights[0],
        weights[1],
        positions,
        table,
        num_q_heads=3,
        eps=1e-5,
        interleaved=interleaved,
    )
    for start, end, weight in ((0, 3, weights[0]), (3, 5, weights[1])):
        part = apart[:, start * size : end * size].view(20, end - start, size)
        providers(RMS_NORM)[name].run(part, weight, eps=1e-5, out=part)
        providers(ROPE)[name].run(part, positions, table, interleaved=interleaved)
    assert torch.equal(joined, apart)
    assert not torch.equal(joined[:, : 5 * size], qkv[:, : 5 * size])


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_and_factors_have_the_bits_of_the_reference(dtype: str) -> None:
    x, y = (noise(70, 1037, seed=seed, dtype=DTYPES[dtype]) for seed in (0, 1))
    for arguments in ({}, {"scale": 0.22}):
        want = providers(ADD)["reference"].run(x, y, **arguments)
        assert torch.equal(cpu(ADD).run(x, y, **arguments), want)
    want = providers(SCALE)["reference"].run(x, factor=1.7)
    assert torch.equal(cpu(SCALE).run(x, factor=1.7), want)
    ids = torch.tensor([3, 0, 69, 3])
    for scale in (1.0, 5.65625):
        want = providers(EMBEDDING)["reference"].run(ids, x, scale=scale)
        assert torch.equal(cpu(EMBEDDING).run(ids, x, scale=scale), want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_index_outside_gives_nan_and_touches_nothing(dtype: str) -> None:
    x, table = noise(6, 40, dtype=DTYPES[dtype]), noise(9, 32)
    for scale in (1.0, 2.0):
        rows = cpu(EMBEDDING).run(torch.tensor([5, 6, -1, 2**62, 0]), x, scale=scale)
        assert bool(rows[1:4].isnan().all()) and torch.equal(rows[[0, 4]], x[[5, 0]] * scale)
    heads = x.view(6, 1, 40).clone()
    cpu(ROPE).run(heads, torch.tensor([0, 9, 1, -1, 8, 2**62]), table)
    assert heads[:, :, :32].isnan().all(-1).flatten().tolist() == [0, 1, 0, 1, 0, 1]
    assert torch.equal(heads[:, :, 32:], x.view(6, 1, 40)[:, :, 32:])
    with pytest.raises(IndexError, match="row 6 of a tensor with 6 rows"):
        cpu(PUT_ROWS).run(x, torch.tensor([0, 6]), x[:2])


@pytest.mark.parametrize("name", sorted(ACTS))
def test_activations_at_the_edges(name: str) -> None:
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0, 3e4, -3e4, 1e38, math.inf, math.nan])
    got, want = cpu(ACT).run(x, act=name), ACTIVATIONS[name](x.clone())
    torch.testing.assert_close(got, want, rtol=3e-6, atol=1e-6, equal_nan=True)
    halves = (noise(4096) * 8).to(torch.float16)  # gate and up
    wanted = ACTIVATIONS[name](halves[:2048].float()) * halves[2048:].float()
    got = cpu(ACT_MUL).run(halves.view(1, -1), act=name)
    # 1 + erf(x) cancels to a few 2^-24 below -5, times x / 2 and up
    torch.testing.assert_close(got[0].float(), wanted, rtol=2**-10, atol=1e-5)


def test_what_is_clamped_has_the_bits_of_the_reference_and_nan_stays() -> None:
    x = 2 * noise(3, 37)
    x[0, 0], x[1, 20], x[2, 36] = math.nan, math.inf, -math.inf
    want = providers(CLAMP)["reference"].run(x, limit=0.75)  # type: ignore[attr-defined]
    out = cpu(CLAMP).run(x, limit=0.75)  # type: ignore[attr-defined]
    assert torch.equal(out.nan_to_num(9.0), want.nan_to_num(9.0))
    assert math.isnan(out[0, 0])


def test_what_is_not_a_number_stays_where_it_is_clamped_and_weighed() -> None:
    x = noise(3, 40)
    x[1, 3], x[1, 30] = math.nan, math.nan  # of a gate, and of what it multiplies
    made = cpu(SWIGLU_CLAMPED).run(x, limit=0.5, out=torch.empty(3, 20))
    assert made.isnan().nonzero().tolist() == [[1, 3], [1, 10]]
    ids, weights = torch.zeros(3, 1, dtype=torch.int32), torch.ones(3, 1)
    weighed = cpu(WEIGH_SETS).run(x.view(3, 1, 2, 20), ids, weights)
    assert weighed.view(3, 40).isnan().nonzero().tolist() == [[1, 3], [1, 30]]


def test_a_poisoned_row_stays_alone() -> None:
    x, weight = noise(9, 100), noise(100, seed=1)
    x[4, 99] = math.nan
    x[5, 0] = math.inf
    clean = [row for row in range(9) if row not in (4, 5)]
    for result in (
        cpu(RMS_NORM).run(x, weight, eps=1e-6),
        cpu(LAYER_NORM).run(x, weight, weight, eps=1e-6),
        cpu(SOFT_CAP).run(x, cap=5.0)[:, 90:],
    ):
        assert bool(result[4].isnan().any())
        assert bool(result[clean].isfinite().all())


@pytest.mark.parametrize("width", [1, 15, 16, 17, 64, 65, 129, 40_000])
def test_a_norm_writes_its_row_and_nothing_else(width: int) -> None:
    room = noise(3, width + 5)
    before, weight = room.clone(), noise(width, seed=1)
    cpu(RMS_NORM).run(room[:, :width], weight, eps=1e-6, out=room[:, :width])
    assert torch.equal(room[:, width:], before[:, width:])
    wanted = before[:, :width].double()
    wanted *= torch.rsqrt(wanted.square().mean(-1, keepdim=True) + 1e-6) * weight
    torch.testing.assert_close(room[:, :width].double(), wanted, rtol=3e-6, atol=1e-6)


def test_a_list_of_calls_gives_the_eager_bits() -> None:
    x, residual, weight = noise(5, 96), noise(5, 96, seed=1), noise(96, seed=2)
    positions, table, out = torch.arange(5), noise(5, 32, seed=3), torch.empty(5, 48)
    kept = [x.clone(), residual.clone()]

    def steps() -> list[tuple[Op, tuple[object, ...], dict[str, object]]]:
        heads = x.view(5, 3, 32)
        return [
            (ADD_RMS_NORM, (x, residual, weight), {"eps": 1e-6, "out": x}),
            (ROPE, (heads, positions, table), {}),
            (ADD, (x, residual), {"out": x}),
            (ACT_MUL, (x,), {"act": "gelu", "out": out}),
        ]

    for op, arguments, numbers in steps():
        cpu(op).run(*arguments, **numbers)
    want = [x.clone(), residual.clone(), out.clone()]
    entries = [cpu(op).native(*arguments, **numbers) for op, arguments, numbers in steps()]  # type: ignore[attr-defined]
    calls = library.CallList(entries)
    x.copy_(kept[0])
    residual.copy_(kept[1])
    out.fill_(math.nan)
    library.native().run_list(calls)
    for got, wanted in zip((x, residual, out), want, strict=True):
        assert torch.equal(got, wanted)


def test_what_a_kernel_would_misread_is_refused() -> None:
    x = noise(4, 8)
    with pytest.raises(TypeError, match="takes contiguous float32"):
        cpu(RMS_NORM).run(x, torch.ones(8, dtype=torch.bfloat16), eps=1e-6)
    with pytest.raises(TypeError, match="takes contiguous int64"):
        cpu(TAKE_ROWS).run(x, torch.zeros(2, dtype=torch.int32))
    with pytest.raises(TypeError, match="one dtype"):
        cpu(ADD).run(x, x.to(torch.float16))
    for op in (ADD_ROW, MUL_SOFTPLUS):
        with pytest.raises(TypeError, match="takes one dtype"):
            cpu(op).run(x, x[0].to(torch.float16))
    with pytest.raises(ValueError, match="weigh_sets got strides"):
        cpu(WEIGH_SETS).run(noise(2, 3, 4, 5).transpose(1, 2), None, None)
    with pytest.raises(ValueError, match="call contiguous"):
        cpu(SCALE).run(x.t(), factor=2.0)
    with pytest.raises(ValueError, match="call contiguous"):
        cpu(ROPE).run(noise(4, 8, 2).transpose(1, 2), torch.arange(4), noise(4, 8))
    with pytest.raises(ValueError, match="unknown activation 'mish'"):
        cpu(ACT).run(x, act="mish")
