"""Paged attention of every provider: the formula, and rows that depend on nothing but themselves.

Leaves shapes over all dtypes to `test_table.py`.
"""

from __future__ import annotations

import math

import pytest
import torch

from quire.ops.attention import PAGED_ATTENTION, CachePlace
from quire.ops.registry import Table
from quire.ops.vendor import attention_plan
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

SHAPES = {
    "grouped": Shape(),
    "one query": Shape(heads=7, kv_heads=1, head_size=48, value_size=16),
    "many queries": Shape(heads=33, kv_heads=1, head_size=16, value_size=24),
    "plain, bf16": Shape(heads=2, kv_heads=2, head_size=80, value_size=80, dtype=torch.bfloat16),
    "window": Shape(window=45, block_size=8),
    "window past a segment": Shape(window=1100),
    "slopes": Shape(heads=6, kv_heads=3, slopes=True),
    "all": Shape(softcap=4.0, sinks=True, window=200, dtype=torch.bfloat16),
}
each_provider = pytest.mark.parametrize("provider", sorted(PROVIDERS))
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@each_provider
@each_shape
def test_a_mixed_batch_follows_the_formula(provider: str, shape: Shape) -> None:
    sequences = draw(shape, [1, 5, 40, 70, 1030, 1090])
    counts = [1, 2, 40, 33, 1, 3]
    cache = Cache(provider, shape, sequences)
    for row, (sequence, count) in enumerate(zip(sequences, counts)):
        if len(sequence.q) > count:
            cache.prepare([row], [len(sequence.q) - count])
    tolerance = tolerance_of(provider, shape.dtype)
    for sequence, count, got in zip(sequences, counts, cache.step(list(range(6)), counts)):
        torch.testing.assert_close(
            got.double(),
            formula(shape, sequence, count),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
        )


@each_provider
@each_shape
def test_chunks_and_block_sizes_do_not_change_bits(provider: str, shape: Shape) -> None:
    (sequence,) = draw(shape, [1040], seed=1)
    last = 30  # positions 1010 to 1039: both sides of a segment's end
    want: torch.Tensor | None = None
    for block_size, cuts in ((16, [30]), (8, [1, 1, 17, 11]), (256, [13, 17])):
        cut = Shape(**{**shape.__dict__, "block_size": block_size})
        cache = Cache(provider, cut, [sequence], seed=block_size)
        cache.prepare([0], [1040 - last])
        got = torch.cat([cache.step([0], [count])[0] for count in cuts])
        want = got if want is None else want
        assert torch.equal(got, want), f"block size {block_size}, chunks {cuts}"


@each_provider
@each_shape
def test_single_tokens_have_the_bits_of_a_prefill(provider: str, shape: Shape) -> None:
    (sequence,) = draw(shape, [50], seed=2)
    cache = Cache(provider, shape, [sequence])
    tokens = torch.cat([cache.step([0], [1])[0] for _ in range(50)])
    assert torch.equal(tokens, whole(provider, shape, sequence))


@each_provider
@each_shape
def test_company_does_not_change_bits(provider: str, shape: Shape) -> None:
    sequences = draw(shape, [3, 64, 33, 1, 130, 65], seed=3)
    alone = [whole(provider, shape, sequence) for sequence in sequences]
    for rows in ([0, 1, 2, 3, 4, 5], [5, 3, 1], [4, 0]):
        cache = Cache(provider, shape, sequences)
        for row, got in zip(rows, cache.step(rows, [len(sequences[row].q) for row in rows])):
            assert torch.equal(got, alone[row]), f"sequence {row} among {rows}"


def test_the_size_of_groups_does_not_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(window=1500)
    sequences = draw(shape, [2100, 40, 1025], seed=4)

    def last_tokens() -> list[torch.Tensor]:
        cache = Cache("torch", shape, sequences)
        cache.prepare([0, 1, 2], [2000, 10, 1000])
        return cache.step([0, 1, 2], [100, 30, 25])

    at_once = last_tokens()
    monkeypatch.setattr(attention_plan, "GROUP_BYTES", 100_000)
    for got, want in zip(last_tokens(), at_once):
        assert torch.equal(got, want)


@each_provider
def test_a_poisoned_neighbour_stays_alone(provider: str) -> None:
    shape = Shape()
    good, bad = draw(shape, [50, 50])
    bad = Sequence(bad.q * math.nan, bad.k * math.inf, bad.v * math.nan)
    got, _ = Cache(provider, shape, [good, bad]).step([0, 1], [50, 50])
    assert torch.equal(got, whole(provider, shape, good))


@each_provider
def test_writes_stay_in_their_slots(provider: str) -> None:
    shape = Shape(dtype=torch.bfloat16)
    (sequence,) = draw(shape, [20])
    cache = Cache(provider, shape, [sequence])
    cache.prepare([0], [20])
    elements = 20 * shape.kv_heads * (shape.head_size + shape.value_size)
    assert int((~cache.buffer.view(torch.bfloat16).isnan()).sum()) == elements


@each_provider
def test_a_refilled_plan_replays(provider: str) -> None:
    shape = Shape()
    first, second = draw(shape, [30, 30])
    table = Table(overrides={"paged_attention": provider})
    bound = table.bind(PAGED_ATTENTION, "float32", H=shape.heads, K=shape.kv_heads)
    cache = Cache(provider, shape, [first, second])
    q, k, v = cache.prepare([0], [30]), first.k.clone(), first.v.clone()
    out = torch.empty(30, shape.heads, shape.value_size)
    with table.record() as tape:
        bound.call("write", k, v, cache.cache, cache.plan)
        bound(q, cache.cache, cache.plan, scale=shape.scale, out=out)
    assert torch.equal(out, whole(provider, shape, first))
    q.copy_(cache.prepare([1], [30]))
    k.copy_(second.k)
    v.copy_(second.v)
    tape.replay()
    assert torch.equal(out, whole(provider, shape, second))


def test_a_plan_keeps_its_addresses_while_shapes_repeat() -> None:
    shape = Shape()
    cache = Cache("torch", shape, draw(shape, [40, 40]))
    cache.prepare([0, 1], [33, 33])
    heads = attention_plan.Heads(4, 2, 32, 32)

    def addresses() -> list[int]:
        layout = cache.plan.layout(heads)
        tensors = [layout.pair, layout.place, *cache.plan.slots]
        for group in layout.groups:
            tensors += [
                group.slab,
                group.place,
                group.slot,
                group.pairs,
                group.last_seen,
                group.base,
            ]
        return [tensor.data_ptr() for tensor in tensors]

    cache.step([0, 1], [1, 1])
    before = addresses()
    cache.step([0, 1], [1, 1])
    assert addresses() == before


@each_provider
def test_what_cannot_be_is_refused(provider: str) -> None:
    shape = Shape(heads=3, kv_heads=2)
    cache = Cache(provider, shape, draw(shape, [4]))
    q = cache.prepare([0], [4])
    with pytest.raises(ValueError, match="3 query heads are no multiple of 2"):
        cache.provider.run(q, cache.cache, cache.plan, scale=1.0)
    narrow = Cache(provider, Shape(window=8), draw(Shape(), [4]))
    q = narrow.prepare([0], [4])
    with pytest.raises(ValueError, match="window of None with a plan for 8"):
        narrow.provider.run(q, narrow.cache, narrow.plan, scale=1.0)
    empty = PROVIDERS[provider].new_plan(
        block_size=8, blocks_per_slab=1, window=None, device=torch.device("cpu")
    )
    with pytest.raises(ValueError, match="before it was filled"):
        PROVIDERS[provider].run(q, narrow.cache, empty, scale=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_offset": 3}, "multiple of 4 bytes"),
        ({"layer_offset": 512}, "does not fit"),
        ({"blocks_per_slab": 5}, "does not fit"),
    ],
)
def test_a_place_that_cannot_hold_the_layer_is_refused(
    change: dict[str, int], message: str
) -> None:
    sizes = {
        "block_size": 8,
        "blocks_per_slab": 4,
        "block_bytes": 1024,
        "layer_offset": 0,
        **change,
    }
    place = CachePlace(buffer=torch.empty(2, 4096, dtype=torch.uint8), **sizes)
    with pytest.raises(ValueError, match=message):
        PROVIDERS["torch"].view(place, 1, 16, 16, torch.float32)
