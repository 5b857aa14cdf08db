"""The decoder's own promises: parts equal the whole, taps, replaced rows, replay, memory, rows of logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from quire.ops.registry import Table
from tests.models import harness
from tests.models.conftest import Built

IDS = [3, 9, 27, 81, 50, 53, 62, 89, 70, 13]
FAMILIES = ["llama", "qwen3", "gemma2", "granite", "olmo2", "cohere", "gpt2", "gpt_neox"]


def started(it: Built, dtype: torch.dtype = torch.float32) -> harness.PagedRun:
    return harness.PagedRun(harness.load(it.description, max_len=64, dtype=dtype), max_len=64)


@pytest.mark.parametrize("name", FAMILIES)
def test_layer_ranges_joined_equal_the_whole(name: str, built: Callable[[str], Built]) -> None:
    whole, parts = started(built(name)), started(built(name))
    expected = whole.decoder.forward(whole.context(IDS)).clone()
    ctx = parts.context(IDS)
    hidden = parts.decoder.forward(ctx, layers=range(1))
    assert torch.equal(parts.decoder.forward(ctx, hidden, layers=range(1, 2)), expected)


def test_taps_give_the_stream_after_their_layers(built: Callable[[str], Built]) -> None:
    run, other = started(built("gemma2")), started(built("gemma2"))
    result = run.decoder.forward(run.context(IDS), taps=(1, 0))
    assert isinstance(result, tuple)
    hidden, (last, first) = result
    assert torch.equal(last, hidden)
    assert torch.equal(first, other.decoder.forward(other.context(IDS), layers=range(1)))


def test_embedding_rows_can_be_replaced(built: Callable[[str], Built]) -> None:
    run, other = started(built("llama")), started(built("llama"))
    ctx = run.context(IDS)
    own = other.decoder.forward(other.context([5, 6]), layers=range(0)).clone()
    ctx.embeds, ctx.embed_rows = own, torch.tensor([2, 7])
    replaced = run.decoder.forward(ctx).clone()
    same = started(built("llama"))
    ids = [*IDS[:2], 5, *IDS[3:7], 6, *IDS[8:]]
    assert torch.equal(same.decoder.forward(same.context(ids)), replaced)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_some_rows_are_those_of_all(
    name: str, dtype: torch.dtype, built: Callable[[str], Built]
) -> None:
    run = started(built(name), dtype)
    ctx = run.context(IDS)
    hidden = run.decoder.forward(ctx).clone()
    everything = run.decoder.logits(hidden, ctx).clone()
    assert everything.dtype == torch.float32
    some = run.decoder.logits(hidden[[8, 2]].contiguous(), ctx)
    assert torch.equal(some, everything[[8, 2]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_recorded_step_replays_with_the_eager_bits(
    name: str, dtype: torch.dtype, built: Callable[[str], Built]
) -> None:
    it = built(name)
    table = Table()
    decoder = harness.load(it.description, max_len=64, dtype=dtype, table=table)
    run, eager = harness.PagedRun(decoder, max_len=64), harness.PagedRun(decoder, max_len=64)
    run.logits(IDS)
    eager.logits(IDS)
    ctx = run.context([4])
    with table.record() as tape:
        logits = decoder.logits(decoder.forward(ctx), ctx)
    recorded = logits.clone()
    ctx.ids.fill_(77)
    tape.replay()
    assert not torch.equal(logits, recorded)
    assert torch.equal(logits, eager.logits([77]))


def test_scratch_memory_does_not_grow_with_depth(built: Callable[[str], Built]) -> None:
    run = started(built("llama"))
    ctx = run.context(IDS)
    hidden = run.decoder.forward(ctx, layers=range(0))
    mark = ctx.arena.mark()
    run.decoder.forward(ctx, hidden)
    assert ctx.arena.mark() == mark


def test_the_worker_finds_specs_and_operations_by_layer(built: Callable[[str], Built]) -> None:
    decoder = started(built("gemma2")).decoder
    assert [binding.index for binding in decoder.bindings] == [0, 1]
    assert [binding.spec.window for binding in decoder.bindings] == [40, None]
    assert {binding.attend.op.name for binding in decoder.bindings} == {"paged_attention"}
