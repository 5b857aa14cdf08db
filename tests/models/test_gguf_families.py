"""GGUF files of every family: the numbers that the same model has from safetensors, bit by bit.

Files are written by `tests.models.gguf_families` with the settings that llama.cpp's converter wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from quire.models.loading.gguf.families import FAMILIES
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.models import gguf_recent, gguf_states, harness, seq2seq, test_gguf, test_gguf_embedders
from tests.models.gguf_families import CONFIGS, WRITTEN, write_family

OTHERWISE = ("falcon-h1", "qwen35", "qwen35moe")
"""Families whose files have factors in the weights, or columns in another order."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_is_its_safetensors(name: str, tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "plain", CONFIGS[name])
    path = write_family(name, folder, tmp_path / "m.gguf")
    expected = test_gguf.logits(describe(str(folder)))
    if name in OTHERWISE:
        torch.testing.assert_close(
            test_gguf.logits(describe(str(path))), expected, rtol=1e-4, atol=1e-4
        )
        return
    assert torch.equal(test_gguf.logits(describe(str(path))), expected)


ROUNDED = ["deepseek2", "qwen3next", "granitehybrid", "lfm2moe", "llama4", "qwen35moe"]
ROUNDED += ["gemma4_experts", "kimi-linear"]


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_files_are_close_to_their_floats(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 32 where parts are cut, turned or put together: sizes are multiples of it."""
    wide = {
        "deepseek2": {
            "intermediate_size": 96,
            "kv_lora_rank": 64,
            "q_lora_rank": 32,
            "qk_nope_head_dim": 32,
            "v_head_dim": 32,
            "moe_intermediate_size": 64,
        },
        "qwen3next": {
            "intermediate_size": 96,
            "head_dim": 32,
            "linear_value_head_dim": 32,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
        },
        "qwen35moe": {
            "intermediate_size": 96,
            "head_dim": 32,
            "linear_value_head_dim": 32,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
        },
        "gemma4_experts": {
            "intermediate_size": 96,
            "head_dim": 32,
            "global_head_dim": 64,
            "moe_intermediate_size": 64,
        },
        "kimi-linear": {
            "intermediate_size": 96,
            "kv_lora_rank": 64,
            "qk_nope_head_dim": 32,
            "v_head_dim": 32,
            "moe_intermediate_size": 64,
            "linear_attn_config": {
                "head_dim": 32,
                "num_heads": 3,
                "short_conv_kernel_size": 3,
                "kda_layers": [1],
                "full_attn_layers": [2],
            },
        },
        "granitehybrid": {"intermediate_size": 96, "shared_intermediate_size": 64},
        "lfm2moe": {"intermediate_size": 96, "moe_intermediate_size": 64},
        "llama4": {"intermediate_size": 96, "intermediate_size_mlp": 64, "head_dim": 32},
    }[name]
    config = CONFIGS[name] | wide
    monkeypatch.setitem(CONFIGS, name, config)
    monkeypatch.setitem(gguf_states.CONFIGS, name, config)
    if name in gguf_recent.CONFIGS:
        monkeypatch.setitem(gguf_recent.CONFIGS, name, config)
    arch = WRITTEN[name]["arch"]
    sizes = {
        "feed_forward_length": config.get("intermediate_size_mlp", config["intermediate_size"]),
        "expert_feed_forward_length": config.get(
            "moe_intermediate_size", config["intermediate_size"]
        ),
        "expert_shared_feed_forward_length": config.get(
            "shared_expert_intermediate_size", config.get("shared_intermediate_size")
        ),
        "attention.key_length": 64 + 16
        if "kv_lora_rank" in config
        else config.get("global_head_dim", config.get("head_dim")),
        "attention.value_length": 64
        if "kv_lora_rank" in config
        else config.get("global_head_dim", config.get("head_dim")),
        "attention.key_length_swa": config.get("head_dim"),
        "attention.value_length_swa": config.get("head_dim"),
        "rope.dimension_count_swa": config.get("head_dim"),
        "kda.head_dim": 32,
        "attention.key_length_mla": 32 + 16,
        "attention.value_length_mla": 32,
        "attention.kv_lora_rank": 64,
        "attention.q_lora_rank": 32,
        "ssm.inner_size": 4 * 32 if name in ("qwen3next", "qwen35moe") else None,
        "rope.dimension_count": {
            "qwen3next": 16,
            "qwen35moe": 16,
            "llama4": 32,
            "gemma4_experts": 64,
        }.get(name),
    }
    settings = {
        key: [kind, sizes.get(key.removeprefix(f"{arch}.")) or value]
        for key, (kind, value) in WRITTEN[name]["settings"].items()
    }
    monkeypatch.setitem(WRITTEN, name, {"arch": arch, "settings": settings})
    folder = harness.write_checkpoint(tmp_path / "plain", config)
    path = write_family(name, folder, tmp_path / "m.gguf", is_rounded=True)
    ours = describe(str(path))
    assert "int8_g32_half" in {format.name for format in ours.formats.by_name.values()}
    expected = test_gguf.logits(describe(str(folder)))
    error = (test_gguf.logits(ours) - expected).std() / expected.std()
    assert error < 0.1


def test_every_family_has_a_file() -> None:
    written = {one["arch"] for one in WRITTEN.values()}
    here = {gguf.MODEL_ARCH_NAMES[one] for one in test_gguf.WRITTEN_THERE}
    alike = {"xverse"}  # Llama under another name
    assert set(FAMILIES) == written | here | alike | set(test_gguf_embedders.WRITTEN) | {"t5"}
    assert set(WRITTEN) == set(CONFIGS)


def test_another_base_for_windows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = harness.write_checkpoint(tmp_path / "plain", CONFIGS["olmo3"])
    settings = WRITTEN["olmo3"]["settings"]
    monkeypatch.setitem(settings, "olmo2.rope.freq_base_swa", ["FLOAT32", 900.0])
    path = write_family("olmo3", folder, tmp_path / "m.gguf")
    with pytest.raises(ModelLoadError, match=r"rope.freq_base_swa is 900.0 beside 500000.0"):
        describe(str(path))


def test_layers_that_draft_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = harness.write_checkpoint(tmp_path / "plain", CONFIGS["glm4moe"])
    expected = test_gguf.logits(describe(str(folder)))
    settings = WRITTEN["glm4moe"]["settings"]
    monkeypatch.setitem(settings, "glm4moe.block_count", ["UINT32", 5])
    monkeypatch.setitem(settings, "glm4moe.nextn_predict_layers", ["UINT32", 1])

    def more(writer: gguf.GGUFWriter) -> None:
        for name in ("blk.4.nextn.eh_proj.weight", "blk.4.attn_norm.weight"):
            writer.add_tensor(name, np.ones((4, 32), dtype=np.float32))

    path = write_family("glm4moe", folder, tmp_path / "m.gguf", more)
    assert torch.equal(test_gguf.logits(describe(str(path))), expected)


T5 = {"num_decoder_layers": 2, "relative_attention_max_distance": 128}
READ = [(7 * i * i + 3) % 90 + 5 for i in range(60)]


def write_t5(folder: Path, path: Path, settings: dict[str, Any]) -> Path:
    """The folder as a file, with the settings that llama.cpp's converter wrote."""
    writer = gguf.GGUFWriter(str(path), "t5")
    writer.add_tokenizer_model("none")
    for key, value in settings.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"t5.{key}", value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, 2)
    for source, tensor in load_file(folder / "model.safetensors").items():
        stem, _, end = source.rpartition(".")
        name = names.get_name(stem)
        assert name is not None, source
        writer.add_tensor(f"{name}.{end}", tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["t5", "flan_t5"])
def test_an_encoder_and_its_decoder(name: str, tmp_path: Path) -> None:
    folder = seq2seq.write(tmp_path / "plain", seq2seq.CASES[name] | T5)
    settings = {
        "context_length": 256,
        "embedding_length": 64,
        "feed_forward_length": 80,
        "block_count": 2,
        "decoder_block_count": 2,
        "attention.head_count": 4,
        "attention.key_length": 24,
        "attention.value_length": 24,
        "attention.layer_norm_epsilon": 0.03,
        "attention.relative_buckets_count": 8,
        "attention.layer_norm_rms_epsilon": 0.03,
        "decoder_start_token_id": 0,
    }
    path = write_t5(folder, tmp_path / "m.gguf", settings)
    ids = [0, *READ[:40]]
    found = []
    for model in (folder, path):
        description = describe(str(model))
        decoder = test_gguf.decoder_of(description)
        found.append(seq2seq.our_pass(decoder, READ, ids))
    for ours, wanted in zip(*found, strict=True):
        assert torch.equal(ours, wanted)
