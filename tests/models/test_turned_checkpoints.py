"""Checkpoints with turned inputs and outputs, against compressed-tensors' own hooks on Transformers' model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.transform import TransformConfig, apply_transform_config
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.models import harness
from tests.models import test_quantized_checkpoints as base

CONFIG = base.CONFIG | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIG.pop("head_dim")


def apply(targets: str | list[str], location: str, *, inverse: bool = False) -> dict[str, Any]:
    return {"targets": targets, "location": location, "inverse": inverse, "ignore": ["lm_head"]}


def both(targets: str | list[str]) -> list[dict[str, Any]]:
    """A turn of the inputs, and back in the weights."""
    return [apply(targets, "input"), apply(targets, "weight_input", inverse=True)]


ATTENTION = "re:.*self_attn$"
QKV = ["re:.*[qkv]_proj$"]
OUTPUTS = [apply(QKV, "weight_output"), apply(QKV, "output", inverse=True)]
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "hadamard": {"r4": {"type": "hadamard", "apply": both("re:.*down_proj$")}},
    "blocks": {"r": {"type": "hadamard", "head_dim": 32, "apply": both("Linear")}},
    "an order": {
        "r": {"type": "hadamard", "randomize": True, "head_dim": 64, "apply": both("Linear")}
    },
    "random": {
        "quip_v": {"type": "random-hadamard", "apply": both("Linear")},
        "quip_u": {"type": "random-hadamard", "head_dim": 32, "apply": OUTPUTS},
    },
    "random and an order": {
        "r": {"type": "random-hadamard", "randomize": True, "apply": both("re:.*mlp.*_proj$")},
    },
    "matrix": {"m": {"type": "random-matrix", "head_dim": 8, "apply": both("Linear") + OUTPUTS}},
    "two, one after the other": {
        "a": {"type": "hadamard", "head_dim": 16, "apply": [apply("Linear", "input")]},
        "b": {"type": "random-hadamard", "head_dim": 32, "apply": [apply("Linear", "input")]},
        "c": {"type": "random-hadamard", "head_dim": 32, "apply": [apply(QKV, "output")]},
        "d": {"type": "random-matrix", "head_dim": 4, "apply": [apply(QKV, "output")]},
    },
    "queries and keys": {
        "r3": {
            "type": "hadamard",
            "head_dim": 32,
            "apply": [apply(ATTENTION, "q_attn"), apply(ATTENTION, "k_cache")],
        },
        "r4": {"type": "hadamard", "apply": [apply("re:.*down_proj$", "input")]},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return harness.write_checkpoint(tmp_path_factory.mktemp("plain"), CONFIG)


def write(
    folder: Path, to: Path, groups: dict[str, Any], args: dict[str, Any] | None = None
) -> torch.Tensor:
    """A checkpoint with turns, and what the library's model answers. args  of a quantization, if any."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(7)
    apply_transform_config(model, TransformConfig(config_groups=groups))
    settings: dict[str, Any] = {"quant_method": "compressed-tensors"}
    packed: dict[str, torch.Tensor] = {}
    if args is not None:
        settings = base.compressed_settings(args, "pack-quantized")
        quantize = base.write_compressed(args, "pack-quantized")
        for name, parameter in list(model.named_parameters()):
            if base.is_quantized(name):
                parts, meant = quantize(name, parameter.detach())
                parameter.data = meant
                packed |= {f"{name.removesuffix('.weight')}.{end}": p for end, p in parts.items()}
    with torch.inference_mode():
        logits = model(torch.tensor([base.IDS])).logits[0]
    seen: set[int] = set()
    stored = dict(packed)
    for name, tensor in model.state_dict().items():
        is_shared = tensor.data_ptr() in seen  # as save_pretrained leaves them out
        seen.add(tensor.data_ptr())
        if not is_shared and not (packed and base.is_quantized(name)):
            stored[name] = tensor.clone().contiguous()
    to.mkdir()
    save_file(stored, to / "model.safetensors", metadata={"format": "pt"})
    settings["transform_config"] = {"config_groups": groups}
    config = CONFIG | {"quantization_config": settings}
    (to / "config.json").write_text(json.dumps(config))
    return logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
def test_the_model_is_the_librarys(name: str, folder: Path, tmp_path: Path) -> None:
    want = write(folder, tmp_path / "turned", CASES[name])
    plain = harness.their_logits(folder, base.IDS)
    if any(args["location"] == "input" for args in CASES[name].popitem()[1]["apply"][1:]):
        assert (want - plain).abs().max() / plain.std() > 0.1  # turns that do not cancel
    found = base.logits(describe(str(tmp_path / "turned")))
    assert (found - want).abs().max() / want.std() < 1e-3


def test_turned_inputs_of_quantized_layers(folder: Path, tmp_path: Path) -> None:
    args = base.COMPRESSED["w4a16"][0]
    want = write(folder, tmp_path / "turned", CASES["random"], args)
    ours = describe(str(tmp_path / "turned"))
    assert not ours.formats.by_name  # every layer is turned: all are floats
    found = base.logits(ours)
    assert (found - want).abs().max() / want.std() < 1e-3


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "type": ({"r": {"type": "other", "apply": []}}, "the type 'other' of r is not computed"),
    "location": (
        {"r": {"type": "hadamard", "apply": [apply("Linear", "middle")]}},
        "location 'middle', which is not known",
    ),
    "keys alone": (
        {"r": {"type": "hadamard", "apply": [apply(ATTENTION, "k_cache")]}},
        "turns queries and keys in ways that do not cancel",
    ),
    "blocks": (
        {"r": {"type": "hadamard", "head_dim": 48, "apply": [apply("Linear", "input")]}},
        "blocks of 48 do not divide the 256",
    ),
    "group": ({"r": ["hadamard"]}, "r must be an object with a list `apply` of objects"),
    "applied": (
        {"r": {"type": "hadamard", "apply": ["input"]}},
        "r must be an object with a list `apply` of objects",
    ),
    "tensor": (
        {"r": {"type": "random-hadamard", "apply": [apply("re:.*o_proj", "input")]}},
        r"lacks the tensor .*o_proj\.r_input\.weight' \[128, 128\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_computed_is_said(name: str, folder: Path, tmp_path: Path) -> None:
    groups, message = REFUSED[name]
    settings = {"quant_method": "compressed-tensors"}
    settings |= {"transform_config": {"config_groups": groups}}
    config = CONFIG | {"quantization_config": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(ModelLoadError, match=message):
        describe(str(tmp_path))
