"""Checkpoints with a power of two for each 32 numbers, of 4, 6 and 8 bits: compressed-tensors' own, and others.

Quark, AutoRound and modelopt keep the same numbers under other names: those are written below by their tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.models import test_quantized_checkpoints as base
from tests.models.test_quantized_checkpoints import (
    Written,
    check,
    compressed_settings,
    groups_of,
    rewritten,
)

folder = base.folder
GROUPS: dict[str, Any] = {"type": "float", "strategy": "group", "group_size": 32, "symmetric": True}


def write_compressed(bits: int, style: str) -> tuple[dict[str, Any], Any]:
    """The settings of such weights, and what writes them: the library's own scales and compressor."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    args = GROUPS | {"num_bits": bits}
    weights = QuantizationArgs(**args, scale_dtype=torch.uint8)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format=style)
    compressor = BaseCompressor.load_from_registry(style)

    def write(name: str, weight: torch.Tensor) -> Written:
        parts = groups_of(weight, 32)
        scale, _ = calculate_qparams(parts.amin(-1), parts.amax(-1), weights)
        packed = compressor.compress({"weight": weight, "weight_scale": scale}, scheme)
        meant = compressor.decompress(dict(packed), scheme)["weight"]
        return dict(packed), meant.float()

    return compressed_settings(args | {"scale_dtype": "torch.uint8"}, style), write


@pytest.mark.parametrize(
    ("bits", "style", "formats"),
    [
        (4, "mxfp4-pack-quantized", {"int8_g32"}),
        (6, "mxfp6-pack-quantized", {"int8_g32"}),
        (8, "mxfp8-quantized", {"fp8"}),
    ],
)
def test_compressed_tensors(
    bits: int, style: str, formats: set[str], folder: Path, tmp_path: Path
) -> None:
    settings, write = write_compressed(bits, style)
    check(rewritten(folder, tmp_path, settings, write), formats)


def values_of(kind: str) -> torch.Tensor:
    """What the codes of a kind stand for, by the standard's words: sign, exponent, mantissa."""
    exponent, mantissa = int(kind[-3]), int(kind[-1])
    found = []
    for code in range(1 << exponent + mantissa):
        power, part = code >> mantissa, code % (1 << mantissa)
        bias = (1 << exponent - 1) - 1
        one = part / 2**mantissa + (power > 0)
        found.append(one * 2.0 ** (max(power, 1) - bias))
    return torch.tensor(found + [-value for value in found])


def write_table(kind: str, names: tuple[str, str]) -> Any:
    """Codes of 4 or 6 bits, and the powers. names  of what is stored."""
    values = values_of(kind)
    bits = len(values).bit_length() - 1

    def write(name: str, weight: torch.Tensor) -> Written:
        parts = groups_of(weight, 32)
        powers = (parts.abs().amax(-1) / values.max()).log2().ceil()
        steps = powers.exp2()[..., None]
        codes = (parts[..., None] / steps[..., None] - values).abs().argmin(-1)
        meant = (values[codes] * steps).view_as(weight)
        words = base.bit_words(codes.flatten(1), bits).contiguous().view(torch.uint8)
        return {names[0]: words, names[1]: (powers + 127).to(torch.uint8)}, meant

    return write


@pytest.mark.parametrize(
    ("kind", "formats"),
    [
        ("fp4_e2m1", {"int8_g32"}),
        ("fp6_e2m3", {"int8_g32"}),
        ("fp6_e3m2", set()),
    ],
)
@pytest.mark.parametrize("inputs", [None, "fp6_e3m2", "fp8_e4m3"])
def test_quark(
    kind: str, inputs: str | None, formats: set[str], folder: Path, tmp_path: Path
) -> None:
    weight = {"dtype": kind.removesuffix("_e2m1"), "qscheme": "per_group", "group_size": 32}
    weight["scale_format"] = "e8m0"
    layer = {"weight": weight, "input_tensors": inputs and weight | {"dtype": inputs}}
    settings = {"quant_method": "quark", "global_quant_config": layer}
    write = write_table(kind, ("weight", "weight_scale"))
    check(rewritten(folder, tmp_path, settings, write), formats)


def write_fp8(dtype: torch.dtype) -> Any:
    def write(name: str, weight: torch.Tensor) -> Written:
        parts = groups_of(weight, 32)
        powers = (parts.abs().amax(-1) / torch.finfo(dtype).max).log2().ceil()
        codes = (parts / powers.exp2()[..., None]).to(dtype)
        meant = codes.float() * powers.exp2()[..., None]
        stored = {"weight": codes.view(weight.shape), "weight_scale": (powers + 127).byte()}
        return stored, meant.view(weight.shape)

    return write


@pytest.mark.parametrize(
    ("settings", "write", "formats"),
    [
        ({"quant_method": "modelopt"}, write_fp8(torch.float8_e4m3fn), {"fp8"}),
        ({"quant_method": "modelopt"}, write_fp8(torch.float8_e5m2), {"fp8"}),
        (
            {"quant_method": "modelopt"},
            write_table("fp4_e2m1", ("weight", "weight_scale")),
            {"int8_g32"},
        ),
        (
            {"quant_method": "auto-round", "data_type": "mx_fp", "bits": 4, "act_bits": 4},
            write_table("fp4_e2m1", ("weight_packed", "weight_scale")),
            {"int8_g32"},
        ),
        (
            {"quant_method": "auto-round", "data_type": "mx_fp", "bits": 8, "act_bits": 8},
            write_fp8(torch.float8_e4m3fn),
            {"fp8"},
        ),
    ],
    ids=["modelopt fp8", "modelopt e5m2", "modelopt fp4", "auto-round fp4", "auto-round fp8"],
)
def test_under_other_names(
    settings: dict[str, Any], write: Any, formats: set[str], folder: Path, tmp_path: Path
) -> None:
    check(rewritten(folder, tmp_path, settings, write), formats)


def test_auto_round_nvfp4_is_that_of_compressed_tensors(folder: Path, tmp_path: Path) -> None:
    args, style, formats = base.COMPRESSED["nvfp4"]
    settings = {"quant_method": "auto-round", "packing_format": "auto_round:llm_compressor"}
    settings |= {"data_type": "nv_fp", "bits": 4, "group_size": 16, "act_bits": 4}
    folders = rewritten(folder, tmp_path, settings, base.write_compressed(args, style))
    check(folders, formats, 5e-2)


def test_groups_that_are_not_whole_are_named(folder: Path, tmp_path: Path) -> None:
    def write(name: str, weight: torch.Tensor) -> Written:
        parts, meant = write_table("fp6_e2m3", ("weight_packed", "weight_scale"))(name, weight)
        return parts | {"weight_packed": parts["weight_packed"][:, :-3]}, meant

    settings = compressed_settings(GROUPS | {"num_bits": 6}, "mxfp6-pack-quantized")
    with pytest.raises(ModelLoadError, match="no matrix of whole groups of 32 numbers of 6 bits"):
        describe(str(rewritten(folder, tmp_path, settings, write)[0]))
