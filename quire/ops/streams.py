"""Several residual streams side by side, and a gate that keeps its largest numbers; of Gemma 3n.

Computed in float32 in one order for each element, and rounded once. Source: arXiv 2301.13310.
"""

from __future__ import annotations

import torch

from quire.ops.norm import mean
from quire.ops.registry import Provider, declare, register

MIX_STREAMS = declare(
    "mix_streams",
    "pure",
    "run(x [S,T,C], shares [T,S*S]) -> [S,T,C], x[j] + sum over i of shares[j,i] * x[i]",
)
CORRECT_STREAMS = declare(
    "correct_streams",
    "pure",
    "run(x [S,T,C], made [T,C], shares [T,S], active) -> x[j] + (made - x[active]) * (1 + shares[j])",
)
MATCH_SIZE = declare(
    "match_size", "pure", "run(x [T,C], like [T,C], eps) -> x * rms(like) / rms(x)"
)
LARGEST = declare(
    "largest",
    "pure",
    "run(x [T,F], deviations) -> max(x - mean(x) - deviations * deviation(x), 0)",
)
MULTIPLY = declare("multiply", "pure", "run(x [T,C], y [T,C] or [C]) -> x * y")


@register
class MixStreamsReference(Provider):
    op = "mix_streams"
    name = "reference"

    def run(
        self, x: torch.Tensor, shares: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x[j] + sum over i of shares[t, j * S + i] * x[i], added in the order of i.

        x [S, T, C], shares [T, S * S]; returns x's shape and dtype. `out` must not be x.
        """
        out = torch.empty_like(x) if out is None else out
        wide = x.to(torch.float32)
        parts = shares.to(torch.float32).view(-1, x.shape[0], x.shape[0], 1)  # [T, S, S, 1]
        for j in range(x.shape[0]):
            total = wide[j].clone()
            for i in range(x.shape[0]):
                total += wide[i] * parts[:, j, i]
            out[j].copy_(total)
        return out


@register
class CorrectStreamsReference(Provider):
    op = "correct_streams"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        made: torch.Tensor,
        shares: torch.Tensor,
        *,
        active: int,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x[j] + (made - x[active]) * (1 + shares[:, j]).

        x [S, T, C], made [T, C], shares [T, S]; returns x's shape and dtype. `out` may be x.
        """
        out = torch.empty_like(x) if out is None else out
        news = made.to(torch.float32) - x[active].to(torch.float32)
        parts = shares.to(torch.float32) + 1.0
        for j in range(x.shape[0]):
            out[j].copy_(news * parts[:, j : j + 1] + x[j].to(torch.float32))
        return out


@register
class MatchSizeReference(Provider):
    op = "match_size"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        like: torch.Tensor,
        *,
        eps: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x * rms(like) / rms(x), the mean of squares of x at least `eps`; x, like [T, C]. `out` may be x."""
        wide, other = x.to(torch.float32), like.to(torch.float32)
        size = mean(wide * wide).clamp_(min=eps).sqrt_()
        made = wide * mean(other * other).sqrt_() / size
        return (torch.empty_like(x) if out is None else out).copy_(made)


@register
class LargestReference(Provider):
    op = "largest"
    name = "reference"

    def run(
        self, x: torch.Tensor, *, deviations: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """max(x - cut, 0), where cut is the row's mean and `deviations` times its deviation above it.

        x [T, F], rows may be strided; the deviation is that of the numbers themselves. `out` may be x.
        """
        wide = x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        middle = mean(wide)
        centred = wide - middle
        cut = mean(centred * centred).sqrt_().mul_(deviations).add_(middle)
        return (torch.empty_like(x) if out is None else out).copy_(torch.relu(wide - cut))


@register
class MultiplyReference(Provider):
    op = "multiply"
    name = "reference"

    def run(
        self, x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x * y in x's dtype, one rounding; x [T, C], y [T, C] or [C], rows may be strided. `out` may be either."""
        made = x.to(torch.float32) * y.to(torch.float32)
        return (torch.empty_like(x) if out is None else out).copy_(made)
