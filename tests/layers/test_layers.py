"""Single layers against plain formulas, at tiny sizes."""

from __future__ import annotations

import math

import pytest
import torch

from quire.layers import rope
from quire.layers.context import ForwardContext
from quire.layers.embedding import AddedRows, Embedding, Head
from quire.layers.linear import Linear
from quire.layers.mlp import GatedMlp, PlainMlp
from quire.layers.norm import AddRmsNorm, AddThenNorm, LayerNorm, Norms, RmsNorm
from quire.ops.arena import Arena
from quire.ops.registry import Table

F32 = torch.float32


def weights_of(**tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): tensor for name, tensor in tensors.items()}


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def arena() -> Arena:
    return Arena(torch.device("cpu"), chunk_bytes=1 << 16)


def test_linear_adds_bias_and_delta(table: Table) -> None:
    layer = Linear(table, "p", in_size=6, out_size=5, bias=True, dtype=F32)
    weight, bias, x, delta = rand(5, 6), rand(5), rand(3, 6), rand(3, 5)
    layer.load(weights_of(p__weight=weight, p__bias=bias).__getitem__)
    out = layer(x, out=torch.empty(3, 5))
    torch.testing.assert_close(out, x @ weight.t() + bias)
    out = layer(x, out=torch.empty(3, 5), delta=delta)
    torch.testing.assert_close(out, x @ weight.t() + bias + delta)


def test_norms(table: Table) -> None:
    x, residual, weight = rand(4, 8), rand(4, 9)[:, :8].contiguous(), rand(8)

    def plain(value: torch.Tensor) -> torch.Tensor:
        return value / (value.square().mean(-1, keepdim=True) + 0.1).sqrt() * weight

    norm = RmsNorm(table, "n", size=8, eps=0.1, dtype=F32)
    joined = AddRmsNorm(table, "n", size=8, eps=0.1, dtype=F32)
    for layer in (norm, joined):
        layer.load({"n.weight": weight}.__getitem__)
    torch.testing.assert_close(norm(x, out=torch.empty_like(x)), plain(x))
    total = residual + x
    torch.testing.assert_close(joined(x, residual, out=torch.empty_like(x)), plain(total))
    torch.testing.assert_close(residual, total)


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_with_one_weight_or_one_for_each_head(bias: bool, table: Table) -> None:
    for shape in ((8,), (3, 8)):
        x, weight, shift = rand(4, 3, 8), rand(*shape), rand(*shape) if bias else torch.zeros(shape)
        layer = LayerNorm(table, "n", size=8, eps=0.1, dtype=F32, bias=bias)
        layer.load({"n.weight": weight, "n.bias": shift}.__getitem__)
        expected = torch.nn.functional.layer_norm(x, (8,), eps=0.1) * weight + shift
        torch.testing.assert_close(layer(x, out=x), expected)


@pytest.mark.parametrize(
    ("kind", "scale", "joined"), [("rms", 1.0, True), ("rms", 0.22, False), ("layer", 0.22, False)]
)
def test_norms_after_an_addition(kind: str, scale: float, joined: bool, table: Table) -> None:
    norms = Norms(table=table, kind=kind, size=8, eps=0.1, dtype=F32, residual_scale=scale)
    layer, plain = norms.add_norm("n"), norms.norm("n")
    assert isinstance(layer, AddRmsNorm if joined else AddThenNorm)
    weights = {"n.weight": rand(8), "n.bias": rand(8) + 1}
    layer.load(weights.__getitem__)
    plain.load(weights.__getitem__)
    x, residual = rand(4, 8), rand(4, 9)[:, :8].contiguous()
    total = residual + scale * x
    expected = plain(total, out=torch.empty_like(total))
    torch.testing.assert_close(layer(x, residual, out=x), expected)
    torch.testing.assert_close(residual, total)
    torch.testing.assert_close(norms.add()(residual, x, out=residual), total + scale * x)


def test_plain_mlp(table: Table, arena: Arena) -> None:
    up, down, x = rand(7, 6), rand(6, 7), rand(3, 6)
    up_bias, down_bias = rand(7), rand(6)
    layer = PlainMlp(table, "m", size=6, width=7, act="relu", bias=True, dtype=F32)
    layer.load(
        weights_of(
            m__up__weight=up, m__up__bias=up_bias, m__down__weight=down, m__down__bias=down_bias
        ).__getitem__
    )
    expected = (x @ up.t() + up_bias).clamp(min=0) @ down.t() + down_bias
    torch.testing.assert_close(layer(x, arena, out=x), expected)


@pytest.mark.parametrize(
    ("act", "function"),
    [
        ("silu", torch.nn.functional.silu),
        ("gelu", torch.nn.functional.gelu),
        ("gelu_tanh", lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    ],
)
def test_gated_mlp(act: str, function: torch.nn.Module, table: Table, arena: Arena) -> None:
    gate_up, down, x = rand(14, 6), rand(6, 7), rand(3, 6)
    up_bias, down_bias = rand(14), rand(6)
    layer = GatedMlp(table, "m", size=6, width=7, act=act, bias=True, dtype=F32)
    layer.load(
        weights_of(
            m__gate_up__weight=gate_up,
            m__gate_up__bias=up_bias,
            m__down__weight=down,
            m__down__bias=down_bias,
        ).__getitem__
    )
    both = x @ gate_up.t() + up_bias
    expected = (function(both[:, :7]) * both[:, 7:]) @ down.t() + down_bias
    torch.testing.assert_close(layer(x, arena, out=x), expected)


def test_embedding_scales_by_the_rounded_factor(table: Table, arena: Arena) -> None:
    weight = rand(7, 4).to(torch.bfloat16)
    layer = Embedding(table, "e", vocab_size=7, size=4, scale=55.4256, dtype=torch.bfloat16)
    layer.load({"e.weight": weight}.__getitem__)
    ctx = ForwardContext(
        ids=torch.tensor([6, 0, 6]),
        positions=torch.zeros(1, 3, dtype=torch.int64),
        plans=[],
        caches=[],
        group_of=[],
        arena=arena,
    )
    assert torch.equal(layer(ctx), weight[[6, 0, 6]] * torch.tensor(55.5, dtype=torch.bfloat16))


def test_learned_positions_are_added_in_place(table: Table, arena: Arena) -> None:
    layer, rows = AddedRows(table, "p", rows=5, size=4, dtype=F32), rand(5, 4)
    layer.load({"p.weight": rows}.__getitem__)
    ctx = ForwardContext(
        ids=torch.zeros(3, dtype=torch.int64),
        positions=torch.tensor([[4, 0, 2]]),
        plans=[],
        caches=[],
        group_of=[],
        arena=arena,
    )
    hidden, mark = rand(3, 4), arena.mark()
    expected = hidden + rows[[4, 0, 2]]
    layer(hidden, ctx)
    assert torch.equal(hidden, expected)
    assert arena.mark() == mark


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 0.0625])
@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_head_gives_scaled_and_capped_float32(
    dtype: torch.dtype, scale: float, softcap: float, table: Table, arena: Arena
) -> None:
    weight, x = rand(9, 4).to(dtype), rand(2, 4).to(dtype)
    head = Head(table, "h", size=4, vocab_size=9, scale=scale, softcap=softcap, dtype=dtype)
    head.linear.load({"h.weight": weight}.__getitem__)
    expected = (x.float() @ weight.float().t()) * scale  # not rounded in between
    if softcap:
        expected = softcap * torch.tanh(expected / softcap)
    logits = head(x, arena)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected)


def test_plain_angles_against_float64() -> None:
    inv_freq = rope.frequencies(8, 10_000.0)
    table = rope.angle_table(inv_freq, max_len=50, attention_factor=1.5, device=torch.device("cpu"))
    assert table.shape == (50, 8)
    for pair in range(4):
        angle = 37 * 10_000.0 ** (-2 * pair / 8)
        assert table[37, pair].item() == pytest.approx(1.5 * math.cos(angle), abs=1e-5)
        assert table[37, 4 + pair].item() == pytest.approx(1.5 * math.sin(angle), abs=1e-5)


def test_dynamic_theta_grows_only_past_the_original_length() -> None:
    sizes = {"factor": 4.0, "original_len": 100}
    assert rope.dynamic_theta(8, 500.0, **sizes, max_model_len=60) == 500.0
    assert rope.dynamic_theta(8, 500.0, **sizes, max_model_len=100) == 500.0
    longer = rope.dynamic_theta(8, 500.0, **sizes, max_model_len=200)
    assert longer == pytest.approx(500.0 * 5.0 ** (8 / 6))


def test_llama3_keeps_short_waves_and_stretches_long_ones() -> None:
    plain = torch.tensor([1.0, 2 * math.pi / 50, 2 * math.pi / 1000])
    scaled = rope.llama3_frequencies(
        plain, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_len=100
    )
    keep = (100 / 50 - 1) / 3
    torch.testing.assert_close(scaled[0], plain[0])
    torch.testing.assert_close(scaled[1], plain[1] * (keep + (1 - keep) / 8))
    torch.testing.assert_close(scaled[2], plain[2] / 8)


def test_yarn_blends_between_its_two_ends() -> None:
    plain = rope.frequencies(64, 10_000.0)
    scaled = rope.yarn_frequencies(
        64,
        10_000.0,
        factor=4.0,
        original_len=2048,
        beta_fast=32.0,
        beta_slow=1.0,
        truncate=True,
    )
    ratio = scaled / plain
    assert ratio[0].item() == pytest.approx(1.0)
    assert ratio[-1].item() == pytest.approx(0.25)
    assert (ratio.diff() <= 1e-6).all()
    assert ((ratio > 0.26) & (ratio < 0.99)).any()


def test_longrope_multiplies_each_wavelength_by_its_own_factor() -> None:
    plain = rope.frequencies(8, 10_000.0)
    scaled = rope.longrope_frequencies(8, 10_000.0, [1.0, 2.0, 4.5, 30.0])
    torch.testing.assert_close(plain / scaled, torch.tensor([1.0, 2.0, 4.5, 30.0]))
