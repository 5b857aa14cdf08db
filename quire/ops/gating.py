"""Gates of what a mixer gives: a norm of each head times a function of its gate, or the sigmoid alone.

An activation with learned numbers stands here too. Computed in float32 and rounded once. Gates of a
feed-forward part are in `ops.elementwise`.
"""

from __future__ import annotations

import torch

from quire.ops.norm import rms_norm
from quire.ops.registry import Provider, declare, register

RMS_NORM_GATED = declare(
    "rms_norm_gated",
    "pure",
    "run(x [T,H,D], gate [T,H,D], weight [D], eps, act) -> x / rms(x) * weight * act(gate)",
)
MUL_SIGMOID = declare("mul_sigmoid", "pure", "run(x [T,C], gate [T,C]) -> x * sigmoid(gate)")

MUL_SOFTPLUS = declare(
    "mul_softplus",
    "pure",
    "run(x [T,H,D], gate [T,H]) -> x * log(1 + e^gate), a gate for each head",
)

TELL_KEYS = declare(
    "tell_keys",
    "pure",
    "run(heads [T,H+K,D], steps [T,K], rates [K], scale, out [T,H+K,D+R]) -> heads and one more number: 1 / scale "
    "of q, e^(rate softplus(step)) of k; zeros behind it",
)

XIELU = declare(
    "xielu",
    "pure",
    "run(x [T,F], rise, fall, slope, least) -> slope * x + rise * x^2, below 0 + fall * (e^x - 1 - x)",
)

LIMIT_GATED = declare(
    "limit_gated",
    "pure",
    "run(x [T,2F], limit, gate_limit) -> the first half at most gate_limit, the second within -limit and limit",
)

SWIGLU_CLAMPED = declare(
    "swiglu_clamped",
    "pure",
    "run(x [T,2F], limit) -> [T,F], (up + 1) * gate * sigmoid(1.702 gate), both kept below limit, up above -limit too",
)

GATE_ACTS = ("silu", "sigmoid")


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + exp(-x)), float32 in and out, whatever an element's place in memory."""
    return 1.0 / torch.exp(-x).add_(1.0)


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e^x), float32 in and out; x itself above 20."""
    return torch.where(x > 20.0, x, torch.log1p(torch.exp(x.clamp(max=20.0))))


def check_act(act: str) -> None:
    """Raises ValueError for an act that no gate has."""
    if act not in GATE_ACTS:
        raise ValueError(f"unknown activation {act!r} of a gate; known: {', '.join(GATE_ACTS)}")


@register
class RmsNormGatedReference(Provider):
    op = "rms_norm_gated"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        gate: torch.Tensor,
        weight: torch.Tensor,
        *,
        eps: float,
        act: str,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x / sqrt(mean(x^2) + eps) * weight * act(gate), over each head, one rounding.

        x, gate [T, H, D], rows and heads may be strided; weight [D] float32. act is "silu" or "sigmoid";
        ValueError for another. `out` may be x or gate.
        """
        check_act(act)
        wide = gate.to(torch.float32)
        share = sigmoid(wide)
        normed = rms_norm(
            x.to(torch.float32), weight, eps, torch.empty_like(x, dtype=torch.float32)
        )
        normed.mul_(wide * share if act == "silu" else share)
        return (torch.empty_like(x) if out is None else out).copy_(normed)


@register
class MulSigmoidReference(Provider):
    op = "mul_sigmoid"
    name = "reference"

    def run(
        self, x: torch.Tensor, gate: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x * sigmoid(gate) in x's dtype, one rounding; x, gate [T, C]. `out` may be x or gate."""
        out = torch.empty_like(x) if out is None else out
        return out.copy_(sigmoid(gate.to(torch.float32)).mul_(x.to(torch.float32)))


@register
class TellKeysReference(Provider):
    op = "tell_keys"
    name = "reference"

    def run(
        self,
        heads: torch.Tensor,
        steps: torch.Tensor,
        rates: torch.Tensor,
        *,
        scale: float,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """heads [T, H + K, D], queries first, into the first D numbers of out [T, H + K, D + R], R at least 1.

        The number behind them is 1 / scale of queries and e^(rate * softplus(step)) of keys, so that a score is
        scale * q k plus that number. steps [T, K]; rates [K] float32. heads may be strided; `out` must not be heads.
        """
        size, num_keys = heads.shape[2], steps.shape[1]
        out[:, :, :size].copy_(heads)
        out[:, :, size:].zero_()
        out[:, :-num_keys, size].fill_(1.0 / scale)
        out[:, -num_keys:, size].copy_(torch.exp(rates * softplus(steps.to(torch.float32))))
        return out


@register
class MulSoftplusReference(Provider):
    op = "mul_softplus"
    name = "reference"

    def run(
        self, x: torch.Tensor, gate: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x * softplus(gate) in x's dtype, one rounding; x [T, H, D], gate [T, H]. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        factors = softplus(gate.to(torch.float32)).unsqueeze(-1)
        return out.copy_(x.to(torch.float32) * factors)


@register
class XieluReference(Provider):
    op = "xielu"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        *,
        rise: float,
        fall: float,
        slope: float,
        least: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """rise * x^2 + slope * x above 0, else fall * (e^min(x, least) - 1 - x) + slope * x; x of any shape.

        One rounding. `out` may be x. Source: arXiv 2411.13010.
        """
        wide = x.to(torch.float32)
        half = torch.tanh(wide.clamp(max=least).mul_(0.5))
        power = half.mul(2.0).div_(1.0 - half)  # e^x - 1, whatever an element's place in memory
        curve = torch.where(wide > 0, (wide * wide).mul_(rise), power.sub_(wide).mul_(fall))
        out = torch.empty_like(x) if out is None else out
        return out.copy_((wide * slope).add_(curve))


@register
class LimitGatedReference(Provider):
    op = "limit_gated"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        *,
        limit: float,
        gate_limit: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """min(x, gate_limit) of the first half of the last axis, max(min(x, limit), -limit) of the second.

        x [T, 2F], rows may be strided; NaN stays. `out` may be x.
        """
        out = torch.empty_like(x) if out is None else out
        half = x.shape[-1] // 2
        torch.clamp(x[..., :half], max=gate_limit, out=out[..., :half])
        torch.clamp(x[..., half:], min=-limit, max=limit, out=out[..., half:])
        return out


@register
class SwigluClampedReference(Provider):
    op = "swiglu_clamped"
    name = "reference"

    def run(self, x: torch.Tensor, *, limit: float, out: torch.Tensor) -> torch.Tensor:
        """(up + 1) * gate * sigmoid(1.702 gate) of gate and up, the halves of x [T, 2F]; one rounding, out [T, F].

        The gate is at most `limit`, up within it on both sides.
        """
        gate, up = x.to(torch.float32).chunk(2, dim=-1)
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return out.copy_((up + 1.0) * (gate * sigmoid(1.702 * gate)))
