"""Sums and transcendental functions of one row, with bits that depend on that row alone.

Which operations need them is theirs to know.

A row is walked in pieces of fixed size that one thread handles, each padded to whole vectors in
storage of its own: so neither the place in a batch nor the number of threads can change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

PIECE = 16_384
"""Elements of a piece: below 32,768, where torch starts to share a row among threads."""
LANES = 64
"""Padding goes up to whole vectors: scalar tails round transcendental functions differently."""


def in_pieces(
    x: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], fill: float
) -> torch.Tensor:
    """`function`, an in-place one, over a padded copy of x [n]; returns [n padded to LANES].

    `fill` is what the function sees in the padding.
    """
    size = x.shape[0]
    result = x.new_empty(-(-size // LANES) * LANES)
    result[:size] = x
    result[size:] = fill
    for start in range(0, result.shape[0], PIECE):
        function(result[start : start + PIECE])
    return result


def total(x: torch.Tensor) -> float:
    """The sum of x [n] in float64, added piece by piece in order."""
    result = 0.0
    for start in range(0, x.shape[0], PIECE):
        result += float(x[start : start + PIECE].sum(dtype=torch.float64))
    return result


def weights(x: torch.Tensor, best: float) -> torch.Tensor:
    """exp(x - best) for x [V] float32; float32 [V padded], zero in the padding."""
    return in_pieces(x, lambda piece: piece.sub_(best).exp_(), -math.inf)


def log_sum_exp(x: torch.Tensor) -> float:
    """log(sum(exp(x))) of x [V] float32, whose best entry is finite; the sum in float64."""
    best = float(x.max())
    return best + math.log(total(weights(x, best)))
