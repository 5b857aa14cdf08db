"""Pieces of the blocks of GGUF files: numbers of fewer bits than a byte, and float16 among bytes."""

from __future__ import annotations

import torch

NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the codes of four bits of the types IQ4_NL and IQ4_XS stand for."""


def half(blocks: torch.Tensor, place: int) -> torch.Tensor:
    """The float16 at a byte of each block: [blocks, 1] float32."""
    return blocks[:, place : place + 2].contiguous().view(torch.float16).to(torch.float32)


def words(blocks: torch.Tensor, begin: int, end: int, num_bytes: int) -> torch.Tensor:
    """Bytes as numbers of 2 or 4 bytes, the lowest byte first: [blocks, n] int64, none of them negative."""
    kind = {2: torch.int16, 4: torch.int32}[num_bytes]
    found = blocks[:, begin:end].contiguous().view(kind).to(torch.int64)
    return found & (1 << 8 * num_bytes) - 1


def shifted(numbers: torch.Tensor, *shifts: int) -> torch.Tensor:
    """[..., n] as [..., n, shifts]: each number shifted right by each of them."""
    return numbers.unsqueeze(-1) >> torch.tensor(shifts, dtype=numbers.dtype)


def halves(packed: torch.Tensor) -> torch.Tensor:
    """[..., n] bytes as [..., 2n]: all low halves, then all high ones."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def two_bits(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 64] bytes as [blocks, 256]: of each 32 bytes the lowest two bits, then the next, and so on."""
    parts = shifted(packed.reshape(-1, 2, 32), 0, 2, 4, 6).transpose(-1, -2)
    return (parts & 3).reshape(-1, 256)


def one_bits(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 32] bytes as [blocks, 256]: the lowest bits of all, then the next, and so on."""
    return (shifted(packed, *range(8)).transpose(-1, -2) & 1).flatten(1)


def four_bits(packed: torch.Tensor) -> torch.Tensor:
    """[blocks, 128] bytes as [blocks, 256]: of each 32 bytes the low halves, then the high ones."""
    return halves(packed.reshape(-1, 4, 32)).flatten(1)


def named(codes: torch.Tensor, values: tuple[int, ...]) -> torch.Tensor:
    """Codes as the numbers of a list, int16."""
    return torch.tensor(values, dtype=torch.int16)[codes.long()]
