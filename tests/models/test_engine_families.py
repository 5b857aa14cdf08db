"""Every architecture runs in the engine: cache groups as the layers ask, tokens as Transformers chooses.

Thirty-two greedy tokens on a tiny random checkpoint; the bits of logits are compared in `test_parity`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quire.models.cache_need import cache_groups
from quire.models.compressed import Kept
from quire.models.footprint import StepSizes, arena_bytes
from quire.models.recurrent import Recurrent
from quire.models.registry import known_as
from quire.models.spec import Indexer, Mla
from quire.ops.arena import Arena
from tests.e2e import driver
from tests.models import harness
from tests.models.families import CASES
from tests.models.families_edge import EDGE_CASES
from tests.models.test_parity import DECODERS, spec_of

NUM_TOKENS = 32
PROMPT = tuple((7 * index * index + 3) % 90 + 5 for index in range(60))
WINDOWED = {
    "modern_decoder",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "smollm3",
    "ministral",
    "cwm",
    "cohere2",
    "olmo3",
    "exaone4",
    "starcoder2",
    "vaultgemma",
    "gpt_neo",
    "gpt_oss",
    "phimoe",
    "exaone_moe",
    "exaone_moe_own_name",
    "dots1",
    "llama4",
    "ministral3",
    "mellum",
    "minimax",
    "gemma3_text",
    "mistral_text",
    "granite_swa",
    "lfm3",
    "mimo_v2_flash",
    "granite_moe_swa",
    "llama4_text",
    "beam",
    "cohere2_moe",
    "cohere_compass",
    "cohere_compass_seeing",
    "deepseek_v4",
    "flint",
    "kolibri1",
    "laguna",
    "plamo2",
    "plamo3",
    "recurrent_gemma",
    "step3p5",
    "step3p7",
    *(name for name in EDGE_CASES if name != "apertus"),
}


def first_cases() -> dict[str, str]:
    """The first case of each architecture, by architecture."""
    cases: dict[str, str] = {}
    for name, case in CASES.items():
        cases.setdefault(known_as(case.config["architectures"][0]), name)
    return cases


def test_every_architecture_is_here() -> None:
    assert set(first_cases()) == DECODERS


@pytest.mark.parametrize("name", first_cases().values())
def test_layers_share_a_group_exactly_if_their_caches_are_alike(name: str) -> None:
    spec = spec_of(CASES[name].config)
    groups = cache_groups(spec, block_size=16, dtype_bytes=4, max_model_len=256)
    mixers = spec.cached
    own = [number for number, one in enumerate(mixers) if getattr(one, "shares", None) is None]
    assert sorted(one for group in groups for one in group.layers) == own
    states = {number for number, one in enumerate(mixers) if isinstance(one, Recurrent)}
    if states:
        last, groups = groups[-1], groups[:-1]
        assert set(last.layers) == states
        assert last.state_bytes == sum(mixers[one].state_bytes for one in states)
    windows = {one: mixers[one].window for one in own if one not in states}
    rows = {one: getattr(mixers[one], "block_bytes", lambda *sizes: 0)(16, 4, 0) for one in windows}
    kinds = {(mixers[one].cache_kind(), windows[one], rows[one]) for one in windows}
    assert len(groups) == len(kinds)
    assert (any(windows.values())) == (name in WINDOWED)
    for group in groups:
        assert {windows[layer] for layer in group.layers} == {group.window}
        mixer = mixers[group.layers[0]]
        if isinstance(mixer, Kept):
            assert group.block_bytes >= len(group.layers) * mixer.block_bytes(16, 4, 0)
            assert {rows[layer] for layer in group.layers} == {rows[group.layers[0]]}
            continue
        per_layer = mixer.num_kv_heads * (mixer.head_size + mixer.value_size) * 4
        if isinstance(mixer, Mla):  # the latent, a key with a position, and the latent again
            per_layer = (2 * mixer.kv_rank + mixer.rope.dim) * 4
        if isinstance(mixer, Indexer):  # a key alone
            per_layer = mixer.head_size * 4
        assert group.bytes_per_token == per_layer * len(group.layers)


def their_tokens(folder: Path) -> list[int]:
    """Greedy tokens of Transformers; every step computes the whole text anew, so no cache is trusted."""
    model, ids = harness.their_model(folder), list(PROMPT)
    for _ in range(NUM_TOKENS):
        ids.append(int(model(ids)[-1].argmax()))
    return ids[len(PROMPT) :]


@pytest.mark.parametrize("name", first_cases().values())
def test_greedy_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder = harness.write_checkpoint(tmp_path / name, case.config)
    params: dict[str, Any] = {
        "max_tokens": NUM_TOKENS,
        "temperature": 0.0,
        "ignore_eos": True,
        "detokenize": False,
    }
    job = driver.Job(PROMPT, params, seed=1)
    alone = driver.Job(PROMPT[:20], params, seed=1)
    with driver.engine(
        folder, max_model_len=128, kv_cache_memory_bytes=4 << 20, max_num_batched_tokens=32
    ) as client:
        found = driver.run(client, [alone, job])
    assert found[1][0].token_ids == their_tokens(folder)


@pytest.mark.parametrize(
    "name", ["ouro", "zamba2", "zamba2_plain", "mimo_v2_flash", "lfm3", "jetmoe", "doge", "xlstm"]
)
def test_the_largest_step_fills_the_arena_that_the_ledger_counts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, take = 0, Arena.take

    def watched(self: Arena, shape: tuple[int, ...], dtype: Any) -> Any:
        nonlocal most
        found = take(self, shape, dtype)
        most = max(most, self._used)
        return found

    monkeypatch.setattr(Arena, "take", watched)
    folder = harness.write_checkpoint(tmp_path / name, CASES[name].config)
    sizes = StepSizes(num_tokens=128, num_rows=2, max_model_len=256, dtype_bytes=4)
    params: dict[str, Any] = {"max_tokens": 1, "ignore_eos": True, "detokenize": False}
    with driver.engine(
        folder, max_model_len=256, max_num_seqs=2, max_num_batched_tokens=128
    ) as client:
        driver.run(client, [driver.Job(tuple(range(1, 97)) + tuple(range(1, 33)), params, seed=1)])
    counted = arena_bytes(spec_of(CASES[name].config), sizes)
    assert 0.9 * counted <= most <= counted
