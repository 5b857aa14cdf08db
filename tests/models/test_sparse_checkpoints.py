"""Checkpoints that leave zeros out, written with compressed-tensors' own functions for places and tiles.

The library no longer writes whole checkpoints of these formats: what it made them of is put together below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.utils import get_permutations_24
from compressed_tensors.utils.semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
)

from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from quire.quant.decoders import table
from quire.quant.formats import PLAIN, Format
from quire.quant.stored import StoredTensor
from tests.models import test_quantized_checkpoints as base
from tests.models.test_quantized_checkpoints import Tensors, Written, check, rewritten

folder = base.folder
WEIGHTS: dict[str, Any] = {"type": "int", "symmetric": True, "strategy": "channel"}


def two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """[N, K] bool: the two largest of each four."""
    fours = weight.abs().view(-1, 4)
    return torch.zeros_like(fours).scatter(1, fours.topk(2, dim=1).indices, 1.0).view_as(weight) > 0


def masked(weight: torch.Tensor, mask: torch.Tensor, *, is_flat: bool) -> Tensors:
    bits = np.packbits(mask.numpy(), axis=-1, bitorder="little")
    raw = weight.view(torch.uint8) if weight.dtype == torch.float8_e4m3fn else weight
    kept = raw[mask].view(weight.dtype)
    counts = mask.sum(-1)
    parts = {"bitmask": torch.from_numpy(bits), "compressed": kept}
    if is_flat:
        parts["row_offsets"] = torch.cumsum(counts, 0) - counts
        return parts | {"shape": torch.tensor(weight.shape)}
    parts["compressed"] = kept.view(len(weight), -1)
    return parts | {"shape": torch.tensor(weight.shape).view(-1, 1)}


def write_masked(kind: str, *, is_flat: bool) -> Any:
    def write(name: str, weight: torch.Tensor) -> Written:
        mask = two_of_four(weight) if not is_flat else weight.abs() > weight.abs().mean()
        meant = weight * mask
        scale = meant.abs().amax(1, keepdim=True)
        if kind == "floats":
            return masked(meant, mask, is_flat=is_flat), meant
        scale = scale / (448.0 if kind == "fp8" else 127.5)
        codes = (meant / scale).to(torch.float8_e4m3fn)
        if kind == "int8":
            codes = (meant / scale).round().clamp(-128, 127).to(torch.int8)
        parts = masked(codes, mask, is_flat=is_flat) | {"weight_scale": scale}
        return parts, codes.float() * scale

    return write


@pytest.mark.parametrize("is_flat", [False, True], ids=["2:4", "any"])
@pytest.mark.parametrize("kind", ["floats", "int8", "fp8"])
def test_masks(kind: str, is_flat: bool, folder: Path, tmp_path: Path) -> None:
    style = "sparse-bitmask" if is_flat else "sparse-24-bitmask"
    settings = base.compressed_settings(
        WEIGHTS | {"num_bits": 8, "type": "float" if kind == "fp8" else "int"}, "dense"
    )
    settings |= {"sparsity_config": {"format": style, "targets": ["Linear"]}}
    if kind == "floats":
        del settings["config_groups"]
    folders = rewritten(folder, tmp_path, settings, write_masked(kind, is_flat=is_flat))
    check(folders, set() if kind == "floats" else {kind})


def marlin(
    codes: torch.Tensor, scales: torch.Tensor, bits: int, *, in_eights: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [N, K], signed, and scales [N, groups] as the kernels take them: codes, places and scales."""
    kept, places = sparse_semi_structured_from_dense_cutlass(codes.half().contiguous())
    order, eights, single = get_permutations_24(bits)
    inputs = (kept.t() + (1 << bits - 1)).to(torch.int64)  # [K / 2, N]
    depth, rows = inputs.shape
    tiles = inputs.reshape(depth // 16, 16, rows // 16, 16).permute(0, 2, 1, 3)
    tiles = tiles.reshape(-1, 1024)[:, order].reshape(depth // 16, -1)
    words = base.bit_words(tiles, bits)
    scales = scales.t().reshape(-1, 64)[:, eights if in_eights else single].reshape(-1, rows)
    return words, places.reshape(places.shape[1] // 2, -1), scales.half()


def write_marlin(bits: int, size: int, names: tuple[str, str, str]) -> Any:
    def write(name: str, weight: torch.Tensor) -> Written:
        sparse = weight * two_of_four(weight)
        group = size if size > 0 else weight.shape[1]
        codes, scales, zeros, meant = base.rounded(sparse, bits, group, symmetric=True)
        zeros = zeros.repeat_interleave(group, 1)
        # a number that is rounded to zero is one that the kernels leave out
        limit = weight.shape[1] // 2 if names[0] == "weight_packed" else weight.shape[1]
        parts = marlin(codes - zeros, scales, bits, in_eights=0 < size < limit)
        return dict(zip(names, parts, strict=True)), meant

    return write


@pytest.mark.parametrize("size", [-1, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_marlin_24(bits: int, size: int, folder: Path, tmp_path: Path) -> None:
    how = {"num_bits": bits, "group_size": size if size > 0 else None}
    how |= {"strategy": "group" if size > 0 else "channel"}
    names = ("weight_packed", "meta", "scale_packed")
    settings = base.compressed_settings(WEIGHTS | how, "marlin-24")
    formats = {f"int{bits}"} | ({f"int{bits}_g128"} if size > 0 else set())
    check(rewritten(folder, tmp_path, settings, write_marlin(bits, size, names)), formats)
    settings = {"quant_method": "gptq", "checkpoint_format": "marlin_24", "bits": bits}
    settings |= {"group_size": size, "sym": True}
    write = write_marlin(bits, size, ("B_24", "B_meta", "s"))
    check(rewritten(folder, tmp_path / "gptq", settings, write), formats)


@pytest.mark.parametrize("in_eights", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_tiles_of_a_wide_weight(bits: int, in_eights: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(192, 384, generator=generator)
    codes, scales, zeros, meant = base.rounded(weight * two_of_four(weight), bits, 128, True)
    words, places, packed = marlin(
        codes - zeros.repeat_interleave(128, 1), scales, bits, in_eights=in_eights
    )
    options = {"bits": bits, "scales_in_eights": in_eights}
    for format in (PLAIN, Format(f"int{bits}", 128)):  # type: ignore[arg-type]
        stored = StoredTensor((192, 384), {}, "marlin_24", options, format)
        members = {"codes": words, "places": places, "scales": packed}
        found = table.decode(members, stored, torch.float32)
        if format != PLAIN:
            found = found.dequantized()  # type: ignore[union-attr]
        assert torch.equal(found, meant.view(192, 384))  # type: ignore[arg-type]


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"quant_method": "compressed-tensors"}
    settings |= {"sparsity_config": {"format": "sparse-24-bitmask"}}

    def short(name: str, weight: torch.Tensor) -> Written:
        parts, meant = write_masked("floats", is_flat=False)(name, weight)
        return parts | {"bitmask": parts["bitmask"] & 254}, meant

    ours = describe(str(rewritten(folder, tmp_path / "mask", settings, short)[0]))
    with pytest.raises(ModelLoadError, match=r"cannot be read: a mask of \d+ places is for \d+"):
        base.logits(ours)

    def unnamed(name: str, weight: torch.Tensor) -> Written:
        parts, meant = write_masked("int8", is_flat=False)(name, weight)
        del parts["weight_scale"]
        return parts, meant

    with pytest.raises(ModelLoadError, match="no group of quantization_config names"):
        describe(str(rewritten(folder, tmp_path / "codes", settings, unnamed)[0]))
    settings["sparsity_config"] = {"format": "other"}
    write = write_masked("floats", is_flat=False)
    with pytest.raises(ModelLoadError, match="sparse format 'other' is not read"):
        describe(str(rewritten(folder, tmp_path / "other", settings, write)[0]))
