"""Caches of one byte a number: what is kept, what attention makes of it, and what it costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from quire.ops.attention import PAGED_ATTENTION
from quire.ops.cache_codes import decode, encode
from quire.ops.formats import CACHE_FORMATS, cache_format
from quire.ops.registry import Signature, Table, providers
from tests.ops.attention_cases import (
    PROVIDERS,
    Cache,
    Sequence,
    Shape,
    draw,
    formula,
    tolerance_of,
    whole,
)

FORMATS = [name for name in CACHE_FORMATS if name != "plain"]
SCALED = [name for name in FORMATS if cache_format(name).has_scales]
READERS = [
    name
    for name in sorted(PROVIDERS)
    if PROVIDERS[name].accepts(Signature("float32", format="fp8")) is None
]
each_reader = pytest.mark.parametrize("provider", READERS)
each_format = pytest.mark.parametrize("format", FORMATS)


def values_kept(provider: str, shape: Shape, v: torch.Tensor) -> torch.Tensor:
    """What a cache gives back of values [n, K, Dv]: a sequence of one token is its own answer."""
    group = shape.heads // shape.kv_heads
    found = []
    for row in v:
        token = Sequence(
            torch.zeros(1, shape.heads, shape.head_size),
            torch.zeros(1, shape.kv_heads, shape.head_size),
            row.unsqueeze(0),
        )
        found.append(whole(provider, shape, token)[0, ::group])
    return torch.stack(found)


def awkward(shape: Shape) -> torch.Tensor:
    """Values [n, K, Dv] of many sizes, with ties, zeros, tiny and huge rows."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, shape.kv_heads, shape.value_size, generator=generator)
    rows *= torch.logspace(-6, 2.5, 40).view(-1, 1, 1)
    rows[0], rows[1], rows[2, 0] = 0.0, 1e-32, 1e36
    rows[3, 0] = torch.arange(shape.value_size) / 16 + 17.0  # ties of e4m3
    rows[4, 0] = (
        torch.arange(shape.value_size) * 0.5 * 2**-9
    )  # its smallest numbers and their halves
    rows[5, 0, :3] = torch.tensor([-127.0, 0.5, 1.5])
    return rows


@each_reader
@each_format
def test_what_is_kept_is_the_definitions(provider: str, format: str) -> None:
    shape = Shape(value_size=21, format=format)
    v = awkward(shape)
    codes, scales = encode(v, cache_format(format))
    assert torch.equal(values_kept(provider, shape, v), decode(codes, scales))


@each_format
def test_a_code_is_the_nearest_one(format: str) -> None:
    v = awkward(Shape(value_size=21))[6:]
    kind = cache_format(format)
    got = decode(*encode(v, kind)).double()
    step = v.double().abs().amax(-1, keepdim=True) / 127 if kind.kind == "int8" else None
    if step is not None:
        assert ((got - v).abs() <= step * 0.501).all()
    else:
        most, bits, least = (57344.0, 3, 2.0**-17) if kind.kind == "e5m2" else (448.0, 4, 2.0**-10)
        size = v.double().abs().clamp(max=most) if not kind.has_scales else v.double().abs()
        largest = size.amax(-1, keepdim=True)
        unit = torch.ones_like(largest) if not kind.has_scales else largest / 448
        assert ((got.abs() - size).abs() <= size * 2.0**-bits + unit * least).all()
        assert (got.sign() * v.sign() >= 0).all()


@each_reader
@each_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_follows_the_formula_of_what_is_kept(
    provider: str, format: str, dtype: torch.dtype
) -> None:
    shape = Shape(dtype=dtype, window=45, softcap=4.0, sinks=True, format=format)
    sequences = draw(shape, [1, 5, 70])
    cache = Cache(provider, shape, sequences)
    cache.prepare([2], [60])
    tolerance = tolerance_of(provider, dtype)
    counts = [1, 5, 10]
    for sequence, count, got in zip(sequences, counts, cache.step([0, 1, 2], counts)):
        torch.testing.assert_close(
            got.double(),
            formula(shape, sequence, count),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
        )


@each_reader
@pytest.mark.parametrize(
    ("format", "limit"), [(FORMATS[0], 0.1), (SCALED[0], 0.1), (SCALED[1], 0.02)]
)
def test_answers_are_near_those_of_a_plain_cache(provider: str, format: str, limit: float) -> None:
    shape = Shape(head_size=64, value_size=64, format=format)
    (sequence,) = draw(shape, [200], seed=1)
    got, want = (whole(provider, one, sequence) for one in (shape, replace(shape, format="plain")))
    error = float((got - want).norm() / want.norm())
    assert 1e-4 < error < limit


@each_reader
@each_format
def test_single_tokens_have_the_bits_of_a_prefill(provider: str, format: str) -> None:
    shape = Shape(dtype=torch.bfloat16, format=format)
    (sequence,) = draw(shape, [50], seed=2)
    cache = Cache(provider, shape, [sequence])
    tokens = torch.cat([cache.step([0], [1])[0] for _ in range(50)])
    assert torch.equal(tokens, whole(provider, shape, sequence))


@each_reader
@each_format
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["k", "v"])
def test_what_is_no_number_is_seen_and_stays_alone(
    provider: str, format: str, poison: float, which: str
) -> None:
    shape = Shape(format=format)
    good, bad = draw(shape, [50, 50])
    tensor = getattr(bad, which).clone()
    tensor[7, 1, 3] = poison
    bad = replace(bad, **{which: tensor})
    alone, poisoned = Cache(provider, shape, [good, bad]).step([0, 1], [50, 50])
    assert torch.equal(alone, whole(provider, shape, good))
    if format.startswith("fp8") and format not in SCALED and math.isinf(poison):  # it is clipped
        assert poisoned.isfinite().all()
    else:
        assert poisoned[8:, 2:].isnan().any(-1).all()
        assert poisoned[:, :2].isfinite().all()


@each_reader
@each_format
def test_writes_stay_in_their_slots(provider: str, format: str) -> None:
    shape = Shape(format=format)
    (sequence,) = draw(shape, [20])
    cache = Cache(provider, shape, [sequence])
    cache.prepare([0], [20])
    per_token = CACHE_FORMATS[format].num_bytes(2, 32, 32, 4)
    assert per_token == 2 * (64 + 8 * (format in SCALED))
    assert int((cache.buffer != 0xFF).sum()) <= 20 * per_token
    assert int((cache.buffer != 0xFF).sum()) > 20 * per_token * 0.9


def test_who_reads_codes() -> None:
    assert {"cpu", "reference"} & set(PROVIDERS) == set(READERS)
    refusal = providers(PAGED_ATTENTION)["torch"].accepts(Signature("bfloat16", format="fp8"))
    assert refusal == "it reads a plain cache only, not fp8"
    table = Table()
    table.bind(PAGED_ATTENTION, "bfloat16", format="int8_per_token_head", H=4, K=2, D=32)
    (binding,) = table.bindings
    assert binding.provider == READERS[0]
    assert str(binding.signature).startswith("bfloat16 int8_per_token_head cpu H=4")


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(
        ValueError, match="no stored form of the cache is named 'fp4'; known: plain"
    ):
        cache_format("fp4")
