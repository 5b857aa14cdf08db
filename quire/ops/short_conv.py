"""The gated short convolution: each channel mixes its last few inputs, between two gates.

A convolution without gates is `ops.state_space`'s. Source: the LFM2 report, arXiv 2511.23404.
"""

from __future__ import annotations

import torch

from quire.ops.registry import Provider, declare, register
from quire.ops.state import StatePlan, StateView

SHORT_CONV = declare(
    "short_conv",
    "pure",
    "run(x [T,3C], weight [W,C], bias, states, plan) -> [T,C], second * conv(first * third) of x's thirds",
)


@register
class ShortConvReference(Provider):
    op = "short_conv"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        view: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Writes [T, C] for packed tokens, rounded once, and the last inputs of each sequence into `view`.

        x       [T, 3C]: the first gate b, the second gate c, the values v.
        weight  [W, C] float32, that of the oldest input first; bias [C] float32 or None.
        view    the W - 1 inputs b * v before a token, [W - 1, C] float32, the oldest first.
        out[t] = c[t] * (bias + sum over w of weight[w] * (b * v)[t - W + 1 + w]), in float32.
        """
        size, taps = weight.shape[1], weight.shape[0]
        for piece in plan.pieces():
            rows = x[piece.begin : piece.end].to(torch.float32)
            inputs = torch.cat(
                (view.start(piece), rows[:, :size] * rows[:, 2 * size :])
            )  # [W - 1 + n, C]
            total = inputs.new_zeros(len(rows), size) if bias is None else bias.repeat(len(rows), 1)
            for tap in range(taps):
                total += weight[tap] * inputs[tap : tap + len(rows)]
            out[piece.begin : piece.end] = rows[:, size : 2 * size] * total
            view.at(piece.target).copy_(inputs[len(rows) :])
        return out
