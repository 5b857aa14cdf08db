"""Weights multiplied with the matrices that turn a layer's inputs or outputs.

Which layers have which turns is `quant.schemes.turned`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from quire.quant.schemes.turned import Turn


def with_turns(
    weight: torch.Tensor, turns: tuple[Turn, ...], members: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """A weight [N, K], or a bias [N], in float32, turned in the order of `turns`.

    members  the matrices and orders that turns name.
    """
    found = weight.to(torch.float32)
    for turn in turns:
        if turn.side == "input":
            found = _turned(found, turn, members, is_weight=True)
        else:
            found = _turned(found.t(), turn, members, is_weight=False).t()
    return found.contiguous()


def _turned(
    rows: torch.Tensor, turn: Turn, members: Mapping[str, torch.Tensor], *, is_weight: bool
) -> torch.Tensor:
    """rows [.., K] times the turn's matrix, for an input's weight times its transpose, block by block."""
    blocks = rows.reshape(-1, turn.size)
    order = members[turn.order].long() if turn.order else None
    if not turn.matrix:  # symmetric, also in another order
        made = _hadamard(blocks if order is None else _put(blocks, order))
        found = made if order is None else made[:, order]
    else:
        matrix = members[turn.matrix].to(torch.float64)
        matrix = matrix if order is None else matrix[order][:, order]
        if turn.is_turned != is_weight:
            matrix = matrix.t()
        found = (blocks.to(torch.float64) @ matrix).to(torch.float32)
    if turn.over_root:
        found = found / turn.size**0.5
    return found.reshape(rows.shape)


def _put(blocks: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Column i of the result's order[i] is column i."""
    found = torch.empty_like(blocks)
    found[:, order] = blocks
    return found


def _hadamard(blocks: torch.Tensor) -> torch.Tensor:
    """[n, K] times Sylvester's matrix, by sums and differences: the same bits on any number of threads."""
    size, step = blocks.shape[1], 1
    found = blocks
    while step < size:
        pairs = found.view(-1, size // (2 * step), 2, step)
        first, second = pairs[:, :, 0], pairs[:, :, 1]
        found = torch.stack((first + second, first - second), dim=2).view(-1, size)
        step *= 2
    return found
