"""Root-mean-square norms, alone and joined with the residual addition before them.

Leaves variants such as a weight stored as `w` and used as `1 + w` to the loading of weights.
"""

from __future__ import annotations

import torch

from quire.ops.elementwise import add
from quire.ops.registry import Provider, declare, register

RMS_NORM = declare("rms_norm", "pure", "run(x [...,C], weight [C], eps) -> x / rms(x) * weight")
ADD_RMS_NORM = declare(
    "add_rms_norm",
    "pure",
    "run(x [T,C], residual [T,C] in place, weight [C], eps) -> rms_norm(residual += x)",
)

SUM_WIDTH = 16384
"""Longest stretch of one sum. torch divides a sum of 32,768 or more among its threads if it has one row
to add up, and only then."""


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> torch.Tensor:
    """out = x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32, rounded once."""
    wide = x.to(torch.float32)
    squares = wide * wide
    total = squares[..., :SUM_WIDTH].sum(dim=-1, keepdim=True)
    for start in range(SUM_WIDTH, x.shape[-1], SUM_WIDTH):
        total += squares[..., start : start + SUM_WIDTH].sum(dim=-1, keepdim=True)
    normed = wide * torch.rsqrt(total.div_(x.shape[-1]).add_(eps))
    return out.copy_(normed.mul_(weight.to(torch.float32)))


@register
class RmsNormReference(Provider):
    op = "rms_norm"
    name = "reference"

    def run(
        self, x: torch.Tensor, weight: torch.Tensor, *, eps: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x / sqrt(mean(x^2) + eps) * weight, over the last axis.

        x [..., C], weight [C]; returns x's shape and dtype, one rounding. `out` may be x.
        Source: arXiv 1910.07467.
        """
        return rms_norm(x, weight, eps, torch.empty_like(x) if out is None else out)


@register
class AddRmsNormReference(Provider):
    op = "add_rms_norm"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        *,
        eps: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Adds x to `residual` in place, rounded to its dtype, and returns the norm of the sum.

        x and residual [T, C], weight [C]; returns [T, C] in residual's dtype. Equal bit for bit to
        `add` into residual followed by `rms_norm`. `out` may be x, not residual.
        """
        add(residual, x, 1.0, residual)
        return rms_norm(residual, weight, eps, torch.empty_like(residual) if out is None else out)
