"""Root-mean-square norms, alone and joined with the residual addition before them; LayerNorm.

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

LAYER_NORM = declare(
    "layer_norm",
    "pure",
    "run(x [...,C], weight [C] or [H,C], bias likewise or None, eps) "
    "-> (x - mean) / deviation * weight + bias",
)

SUM_WIDTH = 16384
"""Longest stretch of one sum. torch divides a sum of 32,768 or more among its threads if it has one row
to add up, and only then."""


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor) -> torch.Tensor:
    """out = x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32, rounded once."""
    wide = x.to(torch.float32)
    normed = wide * torch.rsqrt(mean(wide * wide).add_(eps))
    return out.copy_(normed.mul_(weight.to(torch.float32)))


def mean(wide: torch.Tensor) -> torch.Tensor:
    """The mean over the last axis of [..., C] float32, which stays with size 1."""
    total = wide[..., :SUM_WIDTH].sum(dim=-1, keepdim=True)
    for start in range(SUM_WIDTH, wide.shape[-1], SUM_WIDTH):
        total += wide[..., start : start + SUM_WIDTH].sum(dim=-1, keepdim=True)
    return total.div_(wide.shape[-1])


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


@register
class LayerNormReference(Provider):
    op = "layer_norm"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        eps: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, over the last axis.

        x [..., C]; weight [C], or [H, C] for x [T, H, C]; bias of weight's shape, None for none.
        Returns x's shape and dtype; in float32, one rounding. The variance is that of the numbers
        themselves (divided by C), after the mean is taken off. `out` may be x.
        Source: arXiv 1607.06450.
        """
        out = torch.empty_like(x) if out is None else out
        wide = x.to(torch.float32)
        centred = wide - mean(wide)
        normed = centred * torch.rsqrt(mean(centred * centred).add_(eps))
        normed.mul_(weight.to(torch.float32))
        return out.copy_(normed if bias is None else normed.add_(bias.to(torch.float32)))
