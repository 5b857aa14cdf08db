"""Latent attention through the engine: caching, company, chunks, fewer bits, and what the ledger counts of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quire.models import footprint
from quire.models.cache_need import cache_groups
from quire.models.registry import describe
from quire.models.spec import Mla
from quire.ops.arena import Arena
from tests.e2e import driver
from tests.models import harness
from tests.models.families import CASES

PROMPT = tuple((7 * index * index + 3) % 90 + 5 for index in range(70))
PARAMS: dict[str, Any] = {
    "max_tokens": 12,
    "temperature": 0.8,
    "logprobs": 3,
    "ignore_eos": True,
    "detokenize": False,
}
JOB = driver.Job(PROMPT, PARAMS, seed=11)


@pytest.fixture(scope="module", params=["deepseek_v3", "glm_moe_dsa", "longcat_flash"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tokens are seen, or a few that are picked; two layers of one kind, or in pairs."""
    return harness.write_checkpoint(
        tmp_path_factory.mktemp("latent"), CASES[request.param].config | {"n_routed_experts": 12}
    )


def answer(folder: Path, *before: driver.Job, job: driver.Job = JOB, **flat: Any) -> Any:
    """What the engine gives for `job` beside and after others."""
    flat = {"max_model_len": 128, "kv_cache_memory_bytes": 4 << 20, **flat}
    with driver.engine(folder, **flat) as client:
        return driver.run(client, [*before, job])[-1][0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_company_chunks_and_block_size_change_no_bit(folder: Path, dtype: str) -> None:
    alone = answer(folder, dtype=dtype)
    assert len(alone.token_ids) == 12
    others = [driver.Job(PROMPT[:size], PARAMS, seed=size) for size in (3, 40, 65)]
    for flat in ({"max_num_batched_tokens": 24}, {"block_size": 64}, {"max_num_seqs": 2}):
        assert answer(folder, *others, dtype=dtype, **flat).bits == alone.bits


def test_a_cached_prefix_gives_the_same_bits(folder: Path) -> None:
    fresh = answer(folder, enable_prefix_caching=False)
    with driver.engine(folder, max_model_len=128, kv_cache_memory_bytes=4 << 20) as client:
        first = driver.run(client, [JOB], tag="a")[0][0]
        again = driver.run(client, [JOB], tag="b")[0][0]
    assert first.num_cached_tokens == 0
    assert again.num_cached_tokens >= 48
    assert first.bits == again.bits == fresh.bits


@pytest.fixture
def few_blocks() -> int:
    """Enough for the longest sequence, and too few for four."""
    return 10


def test_preemption_gives_the_same_bits(folder: Path, few_blocks: int) -> None:
    longer = PARAMS | {"max_tokens": 40}
    jobs = [driver.Job(PROMPT[:size], longer, seed=size) for size in (30, 28, 26, 31)]
    alone = [answer(folder, job=job) for job in jobs]
    counts = [0]
    tight = {
        "num_gpu_blocks_override": few_blocks,
        "block_size": 16,
        "enable_prefix_caching": False,
    }
    with driver.engine(folder, max_model_len=128, **tight) as client:
        found = driver.run(
            client, jobs, on_stats=lambda stats: counts.append(stats.num_preemptions)
        )
    assert max(counts) > 0
    assert [one[0].bits for one in found] == [one.bits for one in alone]


def test_a_replayed_step_gives_the_bits_of_an_eager_one(folder: Path) -> None:
    with driver.recorded_steps() as count:
        recorded = answer(folder)
    with driver.recorded_steps(wanted=False):
        eager = answer(folder)
    assert count.num_replayed > 5
    assert recorded.bits == eager.bits


@pytest.mark.parametrize("flat", [{"quantization": "int8"}, {"kv_cache_dtype": "fp8"}])
def test_fewer_bits_stay_near(folder: Path, flat: dict[str, Any]) -> None:
    """Of the first token; later ones may differ."""
    plain, near = answer(folder), answer(folder, **flat)
    by_id = dict(zip(plain.logprobs[0].token_ids, plain.logprobs[0].logprobs, strict=True))
    found = dict(zip(near.logprobs[0].token_ids, near.logprobs[0].logprobs, strict=True))
    both = by_id.keys() & found.keys()
    assert both
    assert all(abs(by_id[key] - found[key]) < 0.5 for key in both)
    assert any(by_id[key] != found[key] for key in both)


def test_one_key_and_one_value_are_cached_for_all_heads(folder: Path) -> None:
    spec = describe(str(folder)).spec
    mixer = spec.layers[0].mixer
    assert isinstance(mixer, Mla)
    group, *others = cache_groups(spec, block_size=16, dtype_bytes=2)
    assert group.kind == "mla"
    # What picks tokens has a cache of its own, in the layers that do not share another's picks.
    assert [(one.kind, one.layers, one.bytes_per_token) for one in others] == (
        [("index", (1, 4), 2 * 2 * 36)] if mixer.picks else []
    )
    assert group.bytes_per_token == len(spec.layers) * 2 * (48 + 16 + 48)
    assert mixer.num_heads * 2 * 2 * (24 + 16) > 2 * (48 + 16 + 48), (
        "no gain over keys of each head"
    )


def test_the_number_of_picks_changes_what_is_generated(tmp_path: Path) -> None:
    config = CASES["deepseek_v32"].config
    found = {}
    for count in (8, 24, 127, 4096):
        folder = harness.write_checkpoint(tmp_path / str(count), config | {"index_topk": count})
        found[count] = answer(folder)
    assert found[8].bits != found[24].bits != found[127].bits
    # Longer than any sequence: nothing is picked, so that plain attention has the same numbers but for rounding.
    assert found[127].token_ids == found[4096].token_ids


@pytest.mark.parametrize("name", ["deepseek_v32", "hy_v4"])
def test_nothing_is_picked_of_sequences_that_are_seen_whole(name: str, tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path, CASES[name].config | {"index_topk": 24})
    description = describe(str(folder))
    used = {}
    for longest in (24, 25):
        decoder = harness.load(description, max_len=longest)
        used[longest] = {one.attend.op.name for one in decoder.bindings if one.attend}
        found = harness.our_logits(decoder, PROMPT[:24], max_len=longest)
        theirs = harness.their_logits(folder, PROMPT[:24])
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-4)
    assert used[24] == {"paged_attention"}
    assert used[25] == {"picked_attention", "pick_tokens"}


@pytest.mark.parametrize(
    "name", ["deepseek_v3", "deepseek_v2_lite", "glm_moe_dsa", "longcat_flash"]
)
def test_the_largest_step_stays_below_the_ledger(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    take: Callable[..., torch.Tensor] = Arena.take

    def watched(self: Arena, shape: tuple[int, ...], kind: torch.dtype) -> torch.Tensor:
        nonlocal most
        found = take(self, shape, kind)
        most = max(most, self._used)
        return found

    monkeypatch.setattr(Arena, "take", watched)
    small = harness.write_checkpoint(tmp_path, CASES[name].config)
    sizes = footprint.StepSizes(num_tokens=100, num_rows=4, max_model_len=128, dtype_bytes=4)
    job = driver.Job(
        tuple(PROMPT * 2)[:100], {"max_tokens": 2, "ignore_eos": True, "detokenize": False}, 1
    )
    with driver.engine(
        small,
        max_model_len=128,
        max_num_seqs=4,
        max_num_batched_tokens=100,
        kv_cache_memory_bytes=4 << 20,
    ) as client:
        driver.run(client, [job])
    counted = footprint.arena_bytes(describe(str(small)).spec, sizes)
    assert 0.7 * counted <= most <= counted
