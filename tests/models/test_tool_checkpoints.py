"""HQQ, torchao, Quark and AutoRound checkpoints, end to end and refused.

Layers written by the tools themselves are compared in tests/quant/test_layers_of_tools.py; here whole models
are, written from the layouts' descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quire import LLM, SamplingParams
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.models import test_quantized_checkpoints as base
from tests.models.test_quantized_checkpoints import Written, check, rewritten, rounded, write_gptq

folder = base.folder


def write_hqq(axis: int) -> Any:
    def write(name: str, weight: torch.Tensor) -> Written:
        grouped = weight.reshape(-1, 64) if axis else weight.reshape(64, -1).t()  # [groups, 64]
        codes, scale, zeros, _ = rounded(grouped, 4, 64, symmetric=False)
        lines, zero = codes, zeros + 0.25
        if not axis:
            lines, scale, zero = codes.t(), scale.t(), zero.t()
        half = len(lines) // 2
        numbers = {"nbits": 4, "group_size": 64, "axis": axis}
        flags = {"view_as_float": 0, "quant_scale": 0, "quant_zero": 0}
        parts = {
            "W_q": (lines[:half] << 4 | lines[half:]).to(torch.uint8),
            "scale": scale,
            "zero": zero,
            "shape": torch.tensor(weight.shape),
            "packing": torch.tensor(list(b"4bit_u8"), dtype=torch.uint8),
        }
        parts |= {key: torch.tensor(value, dtype=torch.int32) for key, value in numbers.items()}
        parts |= {key: torch.tensor(value, dtype=torch.uint8) for key, value in flags.items()}
        return parts, ((lines - zero) * scale).reshape(weight.shape)

    return write


def write_torchao(name: str, weight: torch.Tensor) -> Written:
    scales = weight.abs().amax(1, keepdim=True) / 127.5
    codes = (weight / scales).round().clamp(-128, 127)
    parts = {
        "_weight_qdata": codes.to(torch.int8),
        "_weight_scale": scales,
        "_weight_zero_point": torch.zeros(len(weight), 1, dtype=torch.int8),
    }
    return parts, codes * scales


def write_quark(name: str, weight: torch.Tensor) -> Written:
    codes, scales, _, meant = rounded(weight, 4, 32, symmetric=True)
    nibbles = (codes - 8) & 15  # signed, in two's complement
    parts = {"weight": base.awq_words(nibbles.t()), "weight_scale": scales.t()}
    zeros = torch.zeros(weight.shape[1] // 32, len(weight) // 8, dtype=torch.int32)
    return parts | {"weight_zero_point": zeros}, meant


def write_auto_round(name: str, weight: torch.Tensor) -> Written:
    """Eight bits where extra_config says so."""
    bits = 8 if "down_proj" in name else 4
    parts, meant = write_gptq(bits, 32, symmetric=True, add=1)(name, weight)
    return {key: part for key, part in parts.items() if key != "g_idx"}, meant


AO_TYPE = "Int8WeightOnlyConfig"
QUARK = {"dtype": "int4", "qscheme": "per_group", "group_size": 32, "symmetric": True}
CASES: dict[str, tuple[dict[str, Any], Any, set[str], float]] = {
    "hqq": (
        {"quant_method": "hqq"},
        write_hqq(1),
        {"int8_g64"},
        0.12,
    ),  # groups are rounded to 8 bits
    "hqq_axis0": ({"quant_method": "hqq"}, write_hqq(0), set(), 1e-4),
    "torchao": (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": AO_TYPE, "_data": {}}}},
        write_torchao,
        {"int8"},
        5e-3,
    ),
    "quark": (
        {"quant_method": "quark", "global_quant_config": {"weight": QUARK}},
        write_quark,
        {"int4_g32"},
        5e-3,
    ),
    "auto-round": (
        {
            "quant_method": "auto-round",
            "packing_format": "auto_round:auto_gptq",
            "bits": 4,
            "group_size": 32,
            "sym": True,
            "extra_config": {r".*\.mlp\.down_proj": {"bits": 8}},
        },
        write_auto_round,
        {"int4_g32", "int8_g32"},
        5e-3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_whole_models(name: str, folder: Path, tmp_path: Path) -> None:
    settings, write, formats, tolerance = CASES[name]
    check(rewritten(folder, tmp_path, settings, write), formats, tolerance)


REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "hqq bits": (
        {"quant_method": "hqq"},
        lambda name, weight: (
            write_hqq(1)(name, weight)[0] | {"nbits": torch.tensor(5, dtype=torch.int32)},
            weight,
        ),
        "HQQ of 5 bits",
    ),
    "torchao packed": (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
        lambda name, weight: ({"_weight_qdata": torch.zeros(4, 4, dtype=torch.uint8)}, weight),
        "int4 packed for the kernels of one device is not read",
    ),
    "quark type": (
        {
            "quant_method": "quark",
            "global_quant_config": {"weight": {"dtype": "mx6", "qscheme": "per_group"}},
        },
        write_quark,
        "weights of the type 'mx6' 'per_group' are not read",
    ),
    "quark shape": (
        {
            "quant_method": "quark",
            "global_quant_config": {"weight": QUARK | {"group_size": 64}},
        },
        write_quark,
        "weight_scale' is F32",
    ),
    "auto-round inputs": (
        {"quant_method": "auto-round", "bits": 4, "act_bits": 8},
        write_auto_round,
        "int with 8 bits of inputs",
    ),
    "auto-round packing": (
        {"quant_method": "auto-round", "bits": 4, "packing_format": "other"},
        write_auto_round,
        "packing_format 'other'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_said(name: str, folder: Path, tmp_path: Path) -> None:
    settings, write, message = REFUSED[name]
    with pytest.raises(ModelLoadError, match=message):
        describe(str(rewritten(folder, tmp_path, settings, write)[0]))


def test_numbers_rounded_at_load_multiply_rows_of_the_models_dtype(
    folder: Path, tmp_path: Path
) -> None:
    settings, write, _, _ = CASES["hqq"]
    path = rewritten(folder, tmp_path, settings, write)[0]
    params = SamplingParams(max_tokens=4, temperature=0.0, logprobs=1, detokenize=False)
    for dtype in ("float32", "bfloat16"):
        llm = LLM(str(path), dtype=dtype, skip_tokenizer_init=True, kv_cache_memory_bytes=1 << 22)
        (output,) = llm.generate({"prompt_token_ids": [5, 6, 7]}, params, use_tqdm=False)
        assert len(output.outputs[0].token_ids) == 4 and output.outputs[0].finish_reason == "length"
