"""Blocks of GGUF files against the dequantiser of the `gguf` package, on random and on written blocks."""

from __future__ import annotations

from zlib import crc32

import gguf
import numpy as np
import pytest
import torch

from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders.gguf import CODED, FLOATING, decode
from quire.quant.decoders.superblocks import SUPER
from quire.quant.formats import PLAIN
from quire.quant.schemes.gguf import TYPES

KINDS = sorted({*CODED, *FLOATING, *SUPER})
BY_NAME = {kind.name: kind for kind in TYPES.values()}


def random_blocks(kind: str, rows: int, columns: int) -> np.ndarray:
    """Bytes of a matrix of any codes, with scales that are finite."""
    block = BY_NAME[kind]
    generator = np.random.default_rng(crc32(kind.encode()))
    data = generator.integers(0, 256, (rows, columns // block.numbers, block.num_bytes), np.uint8)
    halves = {
        "Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q4_K": (0, 2), "Q5_K": (0, 2),
        "Q3_K": (108,), "Q6_K": (208,), "TQ1_0": (52,), "TQ2_0": (64,), "MXFP4": (), "IQ1_M": (),
    }  # fmt: skip
    for place in halves.get(kind, (0,)):
        scale = generator.normal(0, 0.1, data.shape[:2]).astype(np.float16)
        data[..., place : place + 2] = scale[..., None].view(np.uint8)
    if kind == "IQ1_M":  # its float16 is spread over the upper quarters of four words
        data[..., 55] = data[..., 55] & 15 | 0x20
    if kind == "MXFP4":
        data[..., 0] = generator.integers(100, 140, data.shape[:2])
    return data.reshape(rows, -1)


@pytest.mark.parametrize("kind", KINDS)
def test_floats_have_the_bits_of_the_packages(kind: str) -> None:
    data = random_blocks(kind, 12, 512)
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    ours = decode(torch.from_numpy(data).flatten(), kind, (12, 512), PLAIN, torch.float32)
    assert isinstance(ours, torch.Tensor)
    assert np.array_equal(ours.numpy(), theirs)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if BY_NAME[kind].is_exact and BY_NAME[kind].format != PLAIN]
)
def test_types_that_fit_in_a_format_lose_nothing(kind: str) -> None:
    data = random_blocks(kind, 12, 512)
    if kind == "Q3_K":
        data[0, :108] = 0  # all codes -4, all scales -32: their product is beyond 8 bits
    theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
    format = BY_NAME[kind].format
    assert format is not None
    ours = decode(torch.from_numpy(data).flatten(), kind, (12, 512), format, torch.bfloat16)
    assert isinstance(ours, QuantizedWeight)
    assert torch.equal(ours.dequantized(), torch.from_numpy(theirs))


def test_types_agree_with_the_package_in_their_sizes() -> None:
    for number, kind in TYPES.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert theirs.name == kind.name
        if kind.format is not None:
            assert gguf.GGML_QUANT_SIZES[theirs] == (kind.numbers, kind.num_bytes)
