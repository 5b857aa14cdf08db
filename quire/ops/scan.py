"""State-space mixers: the convolution before them, their recurrences, and the gated norm behind them.

A recurrence takes its tokens one by one, from a state in the cache to a state in the cache: see
`ops.state`. Everything is computed in float32 and rounded once; states are never rounded.
"""

from __future__ import annotations

import torch

from quire.ops.elementwise import silu
from quire.ops.gating import sigmoid, softplus
from quire.ops.norm import rms_norm
from quire.ops.registry import Provider, declare, register
from quire.ops.state import NO_BLOCK, StatePlan, StateView

CAUSAL_CONV = declare(
    "causal_conv",
    "planned",
    "run(x [T,C], weight [W,C], bias [C] or None, inputs, plan, act) -> [T,C], "
    "each channel over the last W tokens",
)
SSD_SCAN = declare(
    "ssd_scan",
    "planned",
    "run(x [T,H,P], write [T,G,N], read [T,G,N], steps [T,H], step_bias, decay, skip [H], states, "
    "plan, limits) -> [T,H,P]",
)
SELECTIVE_SCAN = declare(
    "selective_scan",
    "planned",
    "run(x [T,D], write [T,N], read [T,N], steps [T,D], step_bias [D], decay [N,D], skip [D], "
    "states, plan) -> [T,D]",
)
GATED_LRU = declare(
    "gated_lru",
    "planned",
    "run(x [T,D], gates [T,H,2W], bias [H,2W], rate [D], states, plan) -> [T,D], "
    "a recurrence of each number, which gates of its own feed and keep",
)
GROUP_NORM_GATED = declare(
    "group_norm_gated",
    "pure",
    "run(x [T,C], gate [T,C], weight [C], eps, groups, kind) -> rms norm of parts, with silu(gate)",
)

KINDS = ("gated", "norm_then_gate", "none")
"""Of `group_norm_gated`: what was gated is normed, what was normed is gated, or there is no norm."""
KERNELS = (2, 3, 4)
"""Tokens that the native convolution sees."""


@register
class CausalConvReference(Provider):
    op = "causal_conv"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        inputs: StateView,
        plan: StatePlan,
        *,
        act: str = "silu",
        out: torch.Tensor,
    ) -> torch.Tensor:
        """out[t, c] = act(bias[c] + sum over w of weight[w, c] * x[t - W + 1 + w, c]).

        x [T, C], rows may be strided; weight [W, C], bias [C] float32; inputs: the last W - 1 ones
        [W - 1, C], the oldest first. act is "silu" or "none". `out` [T, C] may not be x.
        """
        width = weight.shape[0]
        for piece in plan.pieces():
            rows = x[piece.begin : piece.end].to(torch.float32)
            seen = torch.cat([inputs.start(piece), rows])
            total = torch.zeros_like(rows) if bias is None else bias.expand_as(rows).clone()
            for place in range(width):
                total += seen[place : place + len(rows)] * weight[place]
            out[piece.begin : piece.end] = (silu(total) if act == "silu" else total).to(out.dtype)
            inputs.at(piece.target).copy_(seen[len(rows) :])
        return out


@register
class SsdScanReference(Provider):
    op = "ssd_scan"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        write: torch.Tensor,
        read: torch.Tensor,
        steps: torch.Tensor,
        step_bias: torch.Tensor,
        decay: torch.Tensor,
        skip: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        limits: tuple[float, float] = (0.0, float("inf")),
        out: torch.Tensor,
    ) -> torch.Tensor:
        """out[t, h] = state' read[t] + skip[h] x[t, h] with, for each head h of group g(h),
        state = e^(step decay[h]) state + step write[t] x[t, h]', step = softplus(steps[t, h] + step_bias[h]).

        x [T, H, P]; write and read [T, G, N], each for H / G heads; steps [T, H]: tokens may be strided.
        step_bias, decay (negative), skip [H] float32. states [H, N, P]. limits: the least and the
        greatest step. `out` [T, H, P]. Source: arXiv 2405.21060.
        """
        heads = x.shape[1]
        low, high = limits
        for piece in plan.pieces():
            state = states.start(piece)  # [H, N, P]
            for t in range(piece.begin, piece.end):
                step = softplus(steps[t].to(torch.float32) + step_bias).clamp(low, high)
                row = x[t].to(torch.float32)
                to_state = _for_heads(write[t], heads)  # [H, N]
                from_state = _for_heads(read[t], heads)
                state *= torch.exp(step * decay)[:, None, None]
                state += to_state[:, :, None] * (row * step[:, None])[:, None, :]
                made = (state * from_state[:, :, None]).sum(dim=1)
                out[t] = (made + skip[:, None] * row).to(out.dtype)
            states.at(piece.target).copy_(state)
        return out


def _for_heads(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    """[G, N] as float32 [H, N], each vector for its group of heads."""
    wide = vectors.to(torch.float32)
    return wide.repeat_interleave(heads // vectors.shape[0], dim=0)


@register
class SelectiveScanReference(Provider):
    op = "selective_scan"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        write: torch.Tensor,
        read: torch.Tensor,
        steps: torch.Tensor,
        step_bias: torch.Tensor,
        decay: torch.Tensor,
        skip: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """out[t, d] = sum over n of read[t, n] state[n, d] + skip[d] x[t, d] with state[n, d] =
        e^(step decay[n, d]) state[n, d] + step write[t, n] x[t, d], step = softplus(steps[t, d] + step_bias[d]).

        x, steps [T, D]; write, read [T, N]: tokens may be strided. step_bias, skip [D], decay [N, D]
        (negative) float32. states [N, D]. `out` [T, D]. Source: arXiv 2312.00752.
        """
        for piece in plan.pieces():
            state = states.start(piece)  # [N, D]
            for t in range(piece.begin, piece.end):
                step = softplus(steps[t].to(torch.float32) + step_bias)
                row = x[t].to(torch.float32)
                state *= torch.exp(step * decay)
                state += write[t].to(torch.float32)[:, None] * (step * row)
                made = (state * read[t].to(torch.float32)[:, None]).sum(dim=0)
                out[t] = (made + skip * row).to(out.dtype)
            states.at(piece.target).copy_(state)
        return out


@register
class GatedLruReference(Provider):
    op = "gated_lru"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        gates: torch.Tensor,
        bias: torch.Tensor,
        rate: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """out[t] = a out[t - 1] + sqrt(1 - a^2) v with v = sigmoid(feed) x[t], a = e^(rate sigmoid(keep)); the
        first token's is v.

        x [T, D], rows may be strided, D = H W; gates [T, H, 2W] without their bias [H, 2W] float32: feed of the
        W numbers of a head, then keep. rate (negative) [D] float32. states [1, D]. `out` [T, D] may be x.
        Source: arXiv 2402.19427, section 2.4.
        """
        both = bias.shape[1]
        for piece in plan.pieces():
            (state,) = states.start(piece)
            for t in range(piece.begin, piece.end):
                opened = sigmoid(gates[t].to(torch.float32) + bias)  # [H, 2W]
                feed, keep = (opened[:, at : at + both // 2].reshape(-1) for at in (0, both // 2))
                value, fall = x[t].to(torch.float32) * feed, rate * keep
                if t == piece.begin and piece.source == NO_BLOCK:
                    state = value
                else:
                    state = torch.exp(fall) * state + value * torch.sqrt(1.0 - torch.exp(2 * fall))
                out[t] = state.to(out.dtype)
            states.at(piece.target).copy_(state[None])
        return out


@register
class GroupNormGatedReference(Provider):
    op = "group_norm_gated"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        gate: torch.Tensor,
        weight: torch.Tensor | None,
        *,
        eps: float,
        groups: int = 1,
        kind: str = "gated",
        out: torch.Tensor,
    ) -> torch.Tensor:
        """An RMS norm of each of `groups` equal parts of a row, and silu(gate), as `kind` says.

        x and gate [T, C], rows may be strided; weight [C] float32, None for kind "none". One rounding.
        `out` may be x.
        """
        share = silu(gate.to(torch.float32))
        if kind == "none":
            return out.copy_(x.to(torch.float32) * share)
        wide = x.to(torch.float32)
        if kind == "gated":
            wide = wide * share
        parts = wide.reshape(wide.shape[0], groups, -1)
        assert weight is not None
        normed = rms_norm(parts, weight.view(groups, -1), eps, torch.empty_like(parts)).flatten(1)
        return out.copy_(normed if kind == "gated" else normed * share)
