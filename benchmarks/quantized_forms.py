"""The demo model in the forms of quantized checkpoints, for `benchmarks.quantization` to ask.

GGUF files are made by llama.cpp's quantizer (left out where `benchmarks.peers.setup` has not made its
environment), bitsandbytes' codes by its library, the others by the writers of the tests: rounded to the
nearest, without calibration. Shares no code with the readers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.peers.conversion import run_tool
from benchmarks.peers.roster import SCRIPTS
from benchmarks.peers.store import DEFAULT_ROOT, Store
from tests.models.gguf_writer import Kind, write_gguf
from tests.models.test_quantized_checkpoints import (
    bit_words,
    is_quantized,
    rounded,
    write_awq,
    write_fp8,
    write_gptq,
)

DEMO = Path("quire/models/demo")
GGUF_KINDS = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K_M", "IQ3_S", "Q2_K", "TQ2_0"),
)
"""Those that need no matrix of importance."""

Write = Callable[[str, torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor]]


def _compressed(bits: int) -> Write:
    """compressed-tensors `pack-quantized`: words along the inputs, groups of 32, symmetric."""

    def write(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        codes, scales, _, meant = rounded(weight, bits, 32, symmetric=True)
        shape = torch.tensor(weight.shape)
        parts = {"weight_packed": bit_words(codes, bits), "weight_scale": scales}
        return parts | {"weight_shape": shape}, meant

    return write


def _int8_rows(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Codes of 8 bits with a scale for each column, as compressed-tensors' `int-quantized`."""
    scales = weight.abs().amax(1, keepdim=True) / 127.5
    codes = (weight / scales).round().clamp(-128, 127)
    return {"weight": codes.to(torch.int8), "weight_scale": scales}, codes * scales


def _bitsandbytes(kind: str) -> Write:
    def write(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        import bitsandbytes

        if kind == "int8":
            limit = weight.abs().amax(1)
            codes = (weight / limit[:, None] * 127).round().to(torch.int8)
            mark = torch.tensor(0, dtype=torch.uint8)
            parts = {"weight": codes, "SCB": limit, "weight_format": mark}
            return parts, codes.float() * limit[:, None] / 127
        packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type=kind, blocksize=64)
        state_parts = state.as_dict(packed=True)
        return {"weight": packed} | {f"weight.{end}": x for end, x in state_parts.items()}, weight

    return write


def _compressed_settings(style: str, bits: int, kind: str, **inputs: Any) -> dict[str, Any]:
    strategy = {"strategy": "channel"}
    if style == "pack-quantized":
        strategy = {"strategy": "group", "group_size": 32}  # type: ignore[dict-item]
    weights = {"num_bits": bits, "type": kind, "symmetric": True, **strategy}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs or None}
    return {
        "quant_method": "compressed-tensors",
        "format": style,
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def _gptq(
    bits: int, *, symmetric: bool = True, order: bool = False
) -> tuple[dict[str, Any], Write]:
    settings = {
        "quant_method": "gptq", "bits": bits, "group_size": 32, "sym": symmetric, "desc_act": order
    }  # fmt: skip
    return settings, write_gptq(bits, 32, symmetric, 1, "random" if order else "")


FORMS: dict[str, tuple[dict[str, Any], Write]] = {
    "GPTQ 8 bits g32": _gptq(8),
    "GPTQ 4 bits g32": _gptq(4),
    "GPTQ 4 bits g32 asym": _gptq(4, symmetric=False),
    "GPTQ 4 bits g32 act-order": _gptq(4, order=True),
    "GPTQ 3 bits g32": _gptq(3),
    "AWQ 4 bits g32": (
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
        write_awq,
    ),
    "compressed-tensors W4A16 g32": (
        _compressed_settings("pack-quantized", 4, "int"),
        _compressed(4),
    ),
    "compressed-tensors W8A16 g32": (
        _compressed_settings("pack-quantized", 8, "int"),
        _compressed(8),
    ),
    "compressed-tensors W8A8": (
        _compressed_settings(
            "int-quantized", 8, "int",
            num_bits=8, type="int", strategy="token", dynamic=True, symmetric=True,
        ),
        _int8_rows,
    ),
    "FP8 for a tensor": (
        {"quant_method": "fp8", "activation_scheme": "static"},
        write_fp8("tensor"),
    ),
    "FP8 for a channel": ({"quant_method": "fbgemm_fp8"}, write_fp8("channel")),
    "bitsandbytes int8": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        _bitsandbytes("int8"),
    ),
    "bitsandbytes nf4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        _bitsandbytes("nf4"),
    ),
    "bitsandbytes fp4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        _bitsandbytes("fp4"),
    ),
}  # fmt: skip
"""quantization_config, and what is stored in place of a weight."""


def written(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each form by its name and place under `folder`, written as it is asked for."""
    weights = load_file(DEMO / "model.safetensors")
    for name, (settings, write) in FORMS.items():
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        stored: dict[str, torch.Tensor] = {}
        for parameter, weight in weights.items():
            if not is_quantized(parameter):
                stored[parameter] = weight
                continue
            parts, _ = write(parameter, weight.float())
            stem = parameter.removesuffix(".weight")
            stored |= {f"{stem}.{end}": part.clone().contiguous() for end, part in parts.items()}
        save_file(stored, place / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((DEMO / "config.json").read_text())
        config["quantization_config"] = settings
        (place / "config.json").write_text(json.dumps(config))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(DEMO / file, place / file)
        yield name, place
    yield from _gguf_files(folder)


def _gguf_files(folder: Path) -> Iterator[tuple[str, Path]]:
    python = Store.at(DEFAULT_ROOT).python("llamacpp")
    if not python.is_file():
        print("# no GGUF files: run python -m benchmarks.peers.setup llamacpp", flush=True)
        return
    plain = folder / "demo-F32.gguf"
    write_gguf(DEMO, plain, lambda _: Kind.F32, _with_tokenizer)
    for kind in GGUF_KINDS:
        target = folder / f"demo-{kind}.gguf"
        words = [str(python), str(SCRIPTS / "quantize_gguf.py"), str(plain), str(target), kind]
        run_tool(words, target, folder / "quantize.log")
        yield f"GGUF {kind}", target


def _with_tokenizer(writer: Any) -> None:
    """A token for each id, so that llama.cpp takes the file, and the tokenizer as it is."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = json.loads((DEMO / "tokenizer.json").read_text())
    names = {one["id"]: one["content"] for one in tokens["added_tokens"]}
    size = json.loads((DEMO / "config.json").read_text())["vocab_size"]
    writer.add_token_list([names.get(number, f"<{number}>") for number in range(size)])
    writer.add_token_types([3 if number < 3 else 1 for number in range(size)])
    writer.add_token_merges(["< >"])
    writer.add_eos_token_id(2)
    writer.add_string("tokenizer.huggingface.json", (DEMO / "tokenizer.json").read_text())
