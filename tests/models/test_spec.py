"""What the engine plans with: cache groups, lengths, counts; all without torch."""

from __future__ import annotations

import subprocess
import sys

from quire.models.cache_need import cache_groups
from quire.models.hf_config import HfConfig
from quire.models.lengths import derived_max_len
from quire.models.parameters import parameters, weight_counts
from quire.models.registry import ARCHITECTURES, known_as
from quire.models.spec import DecoderSpec
from tests.models.families import CASES
from tests.models.published import PUBLISHED, config


def spec_of(name: str) -> DecoderSpec:
    values = CASES[name].config if name in CASES else config(name)
    return ARCHITECTURES[known_as(values["architectures"][0])].describe(HfConfig(values))


def test_equal_layers_share_one_group() -> None:
    (group,) = cache_groups(spec_of("llama-3.2-1b"), block_size=32, dtype_bytes=2)
    assert group.kind == "full"
    assert group.layers == tuple(range(16))
    assert group.bytes_per_token == 16 * 2 * 8 * 64 * 2
    assert group.block_bytes == 32 * group.bytes_per_token
    assert group.window is None


def test_windows_make_groups_of_their_own() -> None:
    sliding, full = cache_groups(
        spec_of("gemma-2-2b"), block_size=16, dtype_bytes=4, max_model_len=8192
    )
    assert (sliding.kind, sliding.window) == ("sliding_window", 4096)
    assert (full.kind, full.window) == ("full", None)
    assert sliding.layers == tuple(range(0, 26, 2))
    assert full.layers == tuple(range(1, 26, 2))


def test_a_window_as_long_as_the_model_is_full_attention() -> None:
    spec = spec_of("gemma-2-2b")
    (group,) = cache_groups(spec, block_size=16, dtype_bytes=4, max_model_len=4096)
    assert (group.kind, group.layers) == ("full", tuple(range(26)))
    assert len(cache_groups(spec, block_size=16, dtype_bytes=4, max_model_len=4097)) == 2


LENGTHS = {
    "llama-2-7b": 4096,
    "llama-3.2-1b": 131072,
    "mistral-7b-v0.1": 32768,
    "qwen3-0.6b": 40960,
    "gemma-2-2b": 8192,
    "gemma-3-1b-it": 32768,
    "gemma-3-4b-text": 131072,
    "phi-3-mini-4k": 4096,
    "phi-4-mini": 131072,
    "gpt2-124m": 1024,
    "opt-125m": 2048,
    "gpt-neox-20b": 2048,
    "olmo-2-0425-1b": 4096,
    "command-r-v01": 131072,
    "aya-23-8b": 8192,
    "granite-3.1-2b": 131072,
}


def test_published_lengths() -> None:
    lengths = {name: derived_max_len(spec_of(name)) for name in LENGTHS}
    assert lengths == LENGTHS


def test_counts_add_up() -> None:
    for name in CASES:
        spec = spec_of(name)
        total = sum(parameter.numel for parameter in parameters(spec).values())
        assert sum(weight_counts(spec).values()) == total


def test_describing_leaves_torch_unloaded() -> None:
    code = (
        "import sys; import quire.models.registry, quire.quant.formats; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'safetensors')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_of_cases_and_of_published_files_differ() -> None:
    assert not set(CASES) & set(PUBLISHED)
