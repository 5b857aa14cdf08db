"""HQQ, torchao, Quark and AutoRound checkpoints, end to end and refused.

Layers written by the tools themselves are compared in tests/quant/test_layers_of_tools.py; here whole models
are, written from the layouts' descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.bitnet import pack_weights

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


def middled(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """torchao's int4: codes 0 to 15 of which 8 stands for a float; scales and those [N, groups], in bfloat16."""
    parts = base.groups_of(weight, 32)
    low, high = parts.amin(-1), parts.amax(-1)
    scales = ((high - low).clamp(min=1e-6) / 15).bfloat16().float()
    zeros = (low + 8 * scales).bfloat16().float()
    codes = ((parts - zeros[..., None]) / scales[..., None] + 8).round().clamp(0, 15)
    meant = (codes - 8) * scales[..., None] + zeros[..., None]
    return codes.view_as(weight).long(), scales, zeros, meant.view_as(weight)


def write_plain_int4(name: str, weight: torch.Tensor) -> Written:
    """`Int4Tensor`: signed codes, two to a byte."""
    codes, scales, zeros, meant = middled(weight)
    nibbles = (codes - 8) & 15
    return {
        "_weight_qdata": (nibbles[:, ::2] | nibbles[:, 1::2] << 4).to(torch.uint8).view(torch.int8),
        "_weight_scale": scales.t().bfloat16(),
        "_weight_zero_point": zeros.t().bfloat16(),
    }, meant


def write_tiles(name: str, weight: torch.Tensor) -> Written:
    """`Int4TilePackedTo4dTensor`: for each lane of a tensor core, as its conversion in PyTorch is described."""
    padded = torch.zeros(weight.shape[0], -(-weight.shape[1] // 1024) * 1024)
    padded[:, : weight.shape[1]] = weight
    codes, scales, zeros, meant = middled(padded)
    rows, depth = codes.shape
    words = torch.zeros(rows // 8, depth // 128, 32, 4, dtype=torch.int64)
    for lane in range(32):
        for word in range(4):
            first = [32 * word + 16 * square + lane % 4 * 2 for square in (0, 1)]
            inputs = [at + far + one for at in first for far in (0, 8) for one in (0, 1)]
            for number, shift in zip(inputs, (0, 16, 4, 20, 8, 24, 12, 28), strict=True):
                words[..., lane, word] |= codes[lane // 4 :: 8, number::128] << shift
    signed = torch.where(words >= 1 << 31, words - (1 << 32), words)
    return {
        "_weight_qdata": signed.to(torch.int32),
        "_weight_scale_and_zero": torch.stack((scales.t(), zeros.t()), dim=-1).bfloat16(),
    }, meant[:, : weight.shape[1]]


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


def write_bitnet(multiplies: bool) -> Any:
    """Packed by Transformers."""

    def write(name: str, weight: torch.Tensor) -> Written:
        mean = weight.abs().mean()
        codes = (weight / mean).round().clamp(-1, 1)
        scale = (mean if multiplies else 1 / mean).reshape(1)
        packed = pack_weights(codes.clone())
        return {"weight": packed, "weight_scale": scale}, codes * mean

    return write


def write_ternary(name: str, weight: torch.Tensor) -> Written:
    """As they are; only the products of layers are rounded."""
    mean = weight.abs().mean()
    return {"weight": weight}, (weight / mean).round().clamp(-1, 1) * mean


AO_TYPE = "Int8WeightOnlyConfig"
INT4 = "Int4WeightOnlyConfig"
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
    "bitnet": ({"quant_method": "bitnet"}, write_bitnet(False), {"int4"}, 5e-3),
    "bitnet_multiplies": (
        {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"},
        write_bitnet(True),
        {"int4"},
        5e-3,
    ),
    "bitnet_online": (
        {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"},
        write_ternary,
        {"int4"},
        5e-3,
    ),
    "torchao_int4": (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": INT4, "_data": {}}}},
        write_plain_int4,
        {"int8_g32"},
        0.12,
    ),
    "torchao_tiles": (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": INT4, "_data": {}}}},
        write_tiles,
        {"int8_g32"},
        0.12,
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
        "of int4 the packing formats plain and tile_packed_to_4d are read",
    ),
    "bitnet norm": (
        {"quant_method": "bitnet", "use_rms_norm": True},
        write_bitnet(False),
        "a norm before each product, is not computed",
    ),
    "bitnet scale": (
        {"quant_method": "bitnet"},
        lambda name, weight: ({"weight": write_bitnet(False)(name, weight)[0]["weight"]}, weight),
        "lacks the tensor",
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
