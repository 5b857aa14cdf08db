"""Scales of an fp8 cache that checkpoints bring: read under every name, used, and told of where they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache

from quire.config.schema import CacheConfig, ModelConfig, Settings
from quire.engine.resolve import resolve
from quire.hardware.cpu import read_machine
from quire.models.build import build_decoder
from quire.models.registry import describe
from quire.ops.registry import Table
from quire.protocol.errors import ModelLoadError
from quire.quant.schemes.checkpoint import scheme_for
from tests.models import harness
from tests.models import test_quantized_checkpoints as base

IDS = base.IDS
SCALES = {0: (0.013, 0.021), 1: (0.4, 0.0007)}
FP8 = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}
SETTINGS: dict[str, Any] = {"quant_method": "fp8", "activation_scheme": "static"}

folder = base.folder


def with_scales(
    folder: Path, to: Path, names: tuple[str, str], settings: dict[str, Any], **more: Any
) -> tuple[Path, Path]:
    """The folder in fp8 with scales under names, and the folder of its numbers."""
    quantized, meant = base.rewritten(folder, to, SETTINGS | settings, base.write_fp8("tensor"))
    tensors = load_file(quantized / "model.safetensors")
    for layer, pair in more.get("scales", SCALES).items():
        for name, scale in zip(names, pair, strict=True):
            value = scale if isinstance(scale, torch.Tensor) else torch.tensor(scale)
            tensors[f"model.layers.{layer}.self_attn.{name}"] = value
    save_file(tensors, quantized / "model.safetensors", metadata={"format": "pt"})
    return quantized, meant


class RoundedCache(DynamicCache):
    """Keys and values as what their codes stand for."""

    def update(self, key_states: Any, value_states: Any, layer_idx: int, *rest: Any) -> Any:
        of_key, of_value = SCALES[layer_idx]
        keys, values = (
            (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
            for x, scale in ((key_states, of_key), (value_states, of_value))
        )
        return super().update(keys, values, layer_idx, *rest)


NAMES = {
    "modelopt": ("k_proj.k_scale", "v_proj.v_scale"),
    "compressed-tensors": ("k_scale", "v_scale"),
    "quark": ("k_proj.output_scale", "v_proj.output_scale"),
    "vllm": ("attn.k_scale", "attn.v_scale"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_scales_are_read_and_used(names: tuple[str, str], folder: Path, tmp_path: Path) -> None:
    quantized, meant = with_scales(folder, tmp_path, names, {"kv_cache_scheme": FP8})
    ours = describe(str(quantized))
    assert {layer: pytest.approx(pair) for layer, pair in ours.cache_scales.items()} == SCALES
    model = AutoModelForCausalLM.from_pretrained(meant, dtype=torch.float32).eval()
    with torch.inference_mode():
        ids = torch.tensor([IDS])
        want = model(ids, past_key_values=RoundedCache(), use_cache=True).logits[0]
        plain = model(ids).logits[0]
    for table, tolerance in ((Table(), 2e-2), (Table(overrides={"all": "reference"}), 2e-2)):
        decoder = build_decoder(
            ours,
            table,
            dtype=torch.float32,
            device=torch.device("cpu"),
            max_model_len=64,
            scheme=scheme_for(None, ours.quantization, ours.formats, "cpu"),
            cache_format="fp8",
        )
        found = harness.our_logits(decoder, IDS, max_len=64)
        # a last bit of a float32 may send a key to the next code
        error = (found - want).norm() / want.norm()
        assert error < tolerance and error < (plain - want).norm() / want.norm() / 3


def test_the_start_table_says_what_becomes_of_them(folder: Path, tmp_path: Path) -> None:
    quantized, _ = with_scales(folder, tmp_path, NAMES["modelopt"], {})
    ours = describe(str(quantized))

    def line(kind: str) -> tuple[str, str, str]:
        settings = Settings(
            model=ModelConfig(model=str(quantized)), cache=CacheConfig(kv_cache_dtype=kind)
        )
        table = resolve(settings, ours, read_machine()).table
        return next(one for one in table if one[0] == "kv_cache_scales")

    assert line("auto")[1] == "not used" and "--kv-cache-dtype fp8" in line("auto")[2]
    assert line("fp8_per_token_head")[1] == "not used"
    assert line("fp8")[1:] == ("used", "the checkpoint's, of 2 layers")


def test_scales_of_other_caches_are_left_out(folder: Path, tmp_path: Path) -> None:
    integers = {"kv_cache_scheme": FP8 | {"type": "int"}}
    quantized, _ = with_scales(folder, tmp_path / "int", NAMES["modelopt"], integers)
    assert describe(str(quantized)).cache_scales == {}
    heads = {0: (torch.ones(2), torch.ones(2))}
    quantized, _ = with_scales(folder, tmp_path / "heads", NAMES["modelopt"], {}, scales=heads)
    assert describe(str(quantized)).cache_scales == {}


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(wrong: float, folder: Path, tmp_path: Path) -> None:
    scales = {1: (0.5, wrong)}
    quantized, _ = with_scales(folder, tmp_path, NAMES["modelopt"], {}, scales=scales)
    with pytest.raises(ModelLoadError, match=r"layers\.1\.self_attn\.v_proj\.v_scale' is"):
        describe(str(quantized))
