"""The native attention kernels under every instruction set: values, and bits that nothing else moves.

What all providers share is tested in `test_attention.py` with the best library of this machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from quire.ops.attention import CachePlace
from quire.ops.cpu import library
from tests.ops.attention_cases import (
    PROVIDERS,
    Cache,
    Sequence,
    Shape,
    draw,
    formula,
    tolerance_of,
)

pytestmark = pytest.mark.skipif("cpu" not in PROVIDERS, reason="no native library here")
BF16, F16 = torch.bfloat16, torch.float16

SHAPES = {
    "bf16": Shape(dtype=BF16),
    "bf16, odd sizes": Shape(
        heads=9, kv_heads=3, head_size=33, value_size=21, dtype=BF16, window=100
    ),
    "bf16, wide group": Shape(
        heads=50, kv_heads=1, head_size=16, value_size=80, dtype=BF16, softcap=3.0
    ),
    "float16, sinks": Shape(
        heads=5, kv_heads=5, head_size=20, value_size=48, dtype=F16, sinks=True
    ),
    "float32": Shape(heads=6, kv_heads=2, head_size=24, value_size=33, window=1050),
    "bf16, int8": Shape(dtype=BF16, format="int8_per_token_head"),
    "bf16, fp8": Shape(heads=6, head_size=64, value_size=96, dtype=BF16, format="fp8"),
    "bf16, fp8 with scales, odd sizes": Shape(
        heads=9, kv_heads=3, head_size=33, value_size=21, dtype=BF16, format="fp8_per_token_head"
    ),
    "float32, int8, window": Shape(
        head_size=24, value_size=33, window=1050, sinks=True, format="int8_per_token_head"
    ),
    "float16, fp8": Shape(heads=5, kv_heads=1, dtype=F16, softcap=3.0, format="fp8"),
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@pytest.fixture(params=library.usable())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The provider computes with this instruction set."""
    with library.using(request.param):
        yield request.param


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads is restored."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@each_shape
def test_values(isa: str, shape: Shape) -> None:
    lengths, counts = [1, 3, 31, 32, 33, 66, 1100], [1, 3, 5, 32, 1, 66, 20]
    sequences = draw(shape, lengths)
    cache = Cache("cpu", shape, sequences)
    for row, (length, count) in enumerate(zip(lengths, counts)):
        if length > count:
            cache.prepare([row], [length - count])
    tolerance = tolerance_of("cpu", shape.dtype)
    for sequence, count, got in zip(sequences, counts, cache.step(list(range(7)), counts)):
        torch.testing.assert_close(
            got.double(),
            formula(shape, sequence, count),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
        )


@each_shape
def test_block_sizes_chunks_and_threads_do_not_change_bits(
    isa: str, shape: Shape, threads: None
) -> None:
    (sequence,) = draw(shape, [2090], seed=1)  # three segments
    last = 53
    want: torch.Tensor | None = None
    for num_threads, block_size, cuts in (
        (1, 32, [53]),
        (1, 8, [1, 1, 11, 40]),
        (2, 16, [53]),
        (2, 64, [1, 52]),
        (3, 128, [50, 1, 1, 1]),
        (3, 256, [7, 46]),
    ):
        torch.set_num_threads(num_threads)
        cache = Cache("cpu", replace(shape, block_size=block_size), [sequence], seed=block_size)
        cache.prepare([0], [2090 - last])
        got = torch.cat([cache.step([0], [count])[0] for count in cuts])
        want = got if want is None else want
        assert torch.equal(got, want), f"{num_threads} threads, blocks of {block_size}, {cuts}"


@each_shape
def test_company_and_threads_do_not_change_bits(isa: str, shape: Shape, threads: None) -> None:
    lengths, counts = [40, 2500, 1, 700, 33, 1025], [1, 1, 1, 40, 33, 2]
    sequences = draw(shape, lengths, seed=2)

    def step(rows: list[int]) -> list[torch.Tensor]:
        cache = Cache("cpu", shape, sequences)
        for row in rows:
            if lengths[row] > counts[row]:
                cache.prepare([row], [lengths[row] - counts[row]])
        return cache.step(rows, [counts[row] for row in rows])

    torch.set_num_threads(1)
    alone = [step([row])[0] for row in range(6)]
    for num_threads, rows in ((2, [0, 1, 2, 3, 4, 5]), (3, [5, 1, 2]), (3, [1]), (1, [4, 3, 1])):
        torch.set_num_threads(num_threads)
        for row, got in zip(rows, step(rows)):
            assert torch.equal(got, alone[row]), f"{row} among {rows} on {num_threads} threads"


def two_way(shape: Shape, sequence: Sequence, slopes: torch.Tensor | None) -> torch.Tensor:
    """Attention of all to all in float64, with a window both ways; [n, H, Dv]."""
    length, group = len(sequence.q), shape.heads // shape.kv_heads
    k = sequence.k.double().repeat_interleave(group, dim=1)
    v = sequence.v.double().repeat_interleave(group, dim=1)
    scores = torch.einsum("chd,lhd->hcl", sequence.q.double(), k) * shape.scale
    distance = torch.arange(length) - torch.arange(length).unsqueeze(1)
    if slopes is not None:
        scores -= slopes.double().view(-1, 1, 1) * distance.abs()
    if shape.window is not None:
        scores = scores.masked_fill(distance.abs() >= shape.window, -math.inf)
    return torch.einsum("hcl,lhd->chd", scores.softmax(-1), v)


@pytest.mark.parametrize("shape", [Shape(), Shape(dtype=BF16, window=21)], ids=str)
@pytest.mark.parametrize("with_slopes", [False, True])
def test_both_directions(isa: str, shape: Shape, with_slopes: bool) -> None:
    slopes = 2.0 ** -torch.arange(1.0, shape.heads + 1) if with_slopes else None
    sequences = draw(shape, [1, 75, 40], seed=3)
    cache = Cache("cpu", shape, sequences)
    q = cache.prepare([0, 1, 2], [1, 75, 40])
    got = cache.provider.run(
        q,
        cache.cache,
        cache.plan,
        scale=shape.scale,
        window=shape.window,
        slopes=slopes,
        bidirectional=True,
    )
    tolerance = tolerance_of("cpu", shape.dtype)
    torch.testing.assert_close(
        got.double(),
        torch.cat([two_way(shape, sequence, slopes) for sequence in sequences]),
        rtol=tolerance.relative,
        atol=tolerance.absolute,
    )


def test_slopes_of_a_causal_decode_are_those_of_a_prefill(isa: str) -> None:
    shape = Shape(dtype=BF16)
    slopes = 2.0 ** -torch.arange(1.0, shape.heads + 1)
    (sequence,) = draw(shape, [70], seed=4)

    def rows(counts: list[int]) -> torch.Tensor:
        cache = Cache("cpu", shape, [sequence])
        parts = []
        for count in counts:
            q = cache.prepare([0], [count])
            parts.append(
                cache.provider.run(q, cache.cache, cache.plan, scale=shape.scale, slopes=slopes)
            )
        return torch.cat(parts)

    at_once = rows([70])
    assert torch.equal(rows([1] * 70), at_once)
    plain = Cache("cpu", shape, [sequence]).step([0], [70])[0]
    assert torch.equal(at_once[0], plain[0])
    assert not torch.equal(at_once, plain)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("farthest", [1, 5, 20, 200])
def test_biases_of_distances(isa: str, farthest: int, bidirectional: bool) -> None:
    """Against float64, the reference too; the decode of a token is its part of a prefill."""
    shape = Shape()
    biases = torch.randn(shape.heads, 2 * farthest + 1, generator=torch.Generator().manual_seed(1))
    (sequence,) = draw(shape, [130], seed=4)
    group = shape.heads // shape.kv_heads
    k = sequence.k.double().repeat_interleave(group, dim=1)
    scores = torch.einsum("chd,lhd->hcl", sequence.q.double(), k) * shape.scale
    distance = torch.arange(130) - torch.arange(130).unsqueeze(1)
    scores += biases.double()[:, distance.clamp(-farthest, farthest) + farthest]
    if not bidirectional:
        scores = scores.masked_fill(distance > 0, -math.inf)
    v = sequence.v.double().repeat_interleave(group, dim=1)
    wanted = torch.einsum("hcl,lhd->chd", scores.softmax(-1), v)
    asked = {"scale": shape.scale, "biases": biases, "bidirectional": bidirectional}
    for name in ("cpu", "reference"):
        cache = Cache(name, shape, [sequence])
        q = cache.prepare([0], [130])
        got = cache.provider.run(q, cache.cache, cache.plan, **asked)
        tolerance = tolerance_of(name, shape.dtype)
        torch.testing.assert_close(
            got.double(), wanted, rtol=tolerance.relative, atol=tolerance.absolute
        )
    cache = Cache("cpu", shape, [sequence])
    cache.prepare([0], [129])
    q = cache.prepare([0], [1])
    last = cache.provider.run(q, cache.cache, cache.plan, **asked)
    cache = Cache("cpu", shape, [sequence])
    q = cache.prepare([0], [130])
    assert torch.equal(last[0], cache.provider.run(q, cache.cache, cache.plan, **asked)[-1])


def test_a_list_of_calls_serves_step_after_step(isa: str) -> None:
    shape = Shape(heads=8, dtype=BF16)
    sequences = draw(shape, [90, 20], seed=5)
    cache = Cache("cpu", shape, sequences)
    cache.prepare([0, 1], [80, 10])
    # q, k and v of one tensor, as a layer has them
    width = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    qkv, out = torch.empty(2, width, dtype=BF16), torch.empty(2, shape.heads, 32, dtype=BF16)
    q, k, v = (
        part.unflatten(1, (-1, shape.head_size))
        for part in qkv.split([8 * 32, 2 * 32, 2 * 32], dim=1)
    )
    calls = library.CallList(
        entries := [
            cache.provider.native_write(k, v, cache.cache, cache.plan),
            cache.provider.native(q, cache.cache, cache.plan, scale=shape.scale, out=out),
        ]
    )
    other = Cache("cpu", shape, sequences)
    other.prepare([0, 1], [80, 10])
    for step in range(10):
        want = torch.cat(other.step([0, 1], [1, 1]))
        at = [80 + step, 10 + step]
        cache.prepare([0, 1], [1, 1])
        for name, to in (("q", q), ("k", k), ("v", v)):
            to.copy_(torch.stack([getattr(s, name)[i] for s, i in zip(sequences, at)]))
        library.native().run_list(calls)
        assert torch.equal(out, want), f"step {step}"
    assert len(entries) == 2


def test_what_the_kernels_cannot_read_is_refused() -> None:
    provider = PROVIDERS["cpu"]
    place = CachePlace(
        buffer=torch.empty(2, 4096, dtype=torch.uint8),
        block_size=12,
        blocks_per_slab=1,
        block_bytes=4096,
        layer_offset=0,
    )
    with pytest.raises(ValueError, match="blocks of 12 slots: the size must be a power of two"):
        provider.view(place, 1, 16, 16, torch.float32)
    cache = Cache("cpu", Shape(), draw(Shape(), [4]))
    q = cache.prepare([0], [4])
    with pytest.raises(ValueError, match=r"q is torch\.bfloat16 .* the cache holds torch\.float32"):
        provider.run(q.to(BF16), cache.cache, cache.plan, scale=1.0)
    with pytest.raises(ValueError, match=r"sinks is torch\.float64: it must be"):
        provider.run(q, cache.cache, cache.plan, scale=1.0, sinks=torch.zeros(4).double())
