"""Weights whose zeros are left out: numbers put back in their places, by a mask of bits or by places in fours.

What then becomes of the numbers is told by the files beside. Sources: the descriptions of compressed-tensors'
bitmask formats and of the layout that the Marlin kernels for 2:4 sparse weights read.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders.integers import assemble, fields
from quire.quant.stored import StoredTensor

Members = Mapping[str, torch.Tensor]


def spread(numbers: torch.Tensor, mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers in rising order as [N, K] with zeros between.

    mask  [N, K / 8] uint8: a bit for each place, the lowest first.
    Raises ValueError if the mask has other places than there are numbers.
    """
    bits = mask.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8) & 1
    is_there = bits.flatten(1)[:, : shape[1]].bool()
    if int(is_there.sum()) != numbers.numel():
        raise ValueError(f"a mask of {int(is_there.sum())} places is for {numbers.numel()} numbers")
    kind = numbers.dtype
    raw = numbers.view(torch.uint8) if kind.itemsize == 1 else numbers
    dense = torch.zeros(shape, dtype=raw.dtype)
    dense[is_there] = raw.flatten()
    return dense.view(kind)


def plain(members: Members, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    """Floats, which `decoders.table` has spread."""
    return members["codes"]


def marlin_24(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Two of each four inputs: codes in tiles [K / 32, N * 16 / n], places [K / 32, 2 N] int16, scales [groups, N]."""
    bits, (rows, depth) = stored.options["bits"], stored.shape
    order = _order(bits)
    tiles = fields(members["codes"], bits).view(-1, order.numel())
    turned = torch.empty_like(tiles)
    turned[:, order] = tiles
    kept = turned.view(depth // 32, rows // 16, 16, 16).transpose(1, 2).reshape(-1, rows).t()
    places = _places(members["places"].flatten(), rows, depth)  # [N, K / 4, 2]
    if not bool((places[..., 0] < places[..., 1]).all()):
        raise ValueError("two numbers of four have one place; download the file again")
    codes = torch.full((rows, depth // 4, 4), 1 << bits - 1, dtype=kept.dtype)
    codes.scatter_(2, places, kept.reshape(rows, -1, 2))
    scales = members["scales"].reshape(-1, 8)
    if stored.options["scales_in_eights"]:
        scales = scales[:, [0, 2, 4, 6, 1, 3, 5, 7]]
    scales = scales.reshape(-1, rows).t()
    return assemble(codes.flatten(1), scales, None, None, stored, dtype)


def _order(bits: int) -> torch.Tensor:
    """Where each of a tile's 1,024 numbers was before it was put as tensor cores take them."""

    def axis(place: int, *values: int) -> torch.Tensor:
        return torch.tensor(values).view([-1 if at == place else 1 for at in range(7)])

    first = 256 * torch.arange(4).view(4, 1, 1, 1, 1, 1, 1) + axis(1, 0, 8)
    found = first + axis(2, 0, 32, 64, 96) + axis(3, 0, 1, 2, 3) + axis(4, 0, 4)
    found = (found + axis(5, 0, 128) + axis(6, 0, 16)).flatten()
    word = [0, 2, 4, 6, 1, 3, 5, 7] if bits == 4 else [0, 2, 1, 3]
    return found.view(-1, len(word))[:, word].flatten()


def _places(words: torch.Tensor, rows: int, depth: int) -> torch.Tensor:
    """[N, K / 4, 2] int64 from 0 to 3: the places in four of the two numbers that are there.

    words  [N * K / 16] int16 of four fours each, in the order of interleaved columns that CUTLASS has.
    """
    row, column = torch.arange(rows).view(-1, 1), torch.arange(depth // 16)
    place = (column >> 1) * 2 * rows + (row >> 6) * 128
    place = place + (row >> 1 & 1) * 64 + (row >> 3 & 7) * 8 + (row & 1) * 4
    place = place + (column & 1) * 2 + (row >> 2 & 1)
    found = words[place].to(torch.int64).unsqueeze(-1) >> torch.arange(0, 16, 2) & 3
    return found.view(rows, -1, 2)
