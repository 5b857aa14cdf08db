"""Operations whose element depends on the matching elements only, and the gathering of rows.

Everything is computed in float32 and rounded once. Only torch functions whose result was seen to be
independent of an element's place in memory are used (exp, tanh, erf and IEEE arithmetic; `sigmoid`,
`silu` and `gelu` are not: vector body and scalar tail differ). Norms are in `ops.norm`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch

from quire.ops.registry import Provider, declare, register

ADD = declare("add", "pure", "run(x, y, scale) -> x + scale * y")
ADD_ROW = declare("add_row", "pure", "run(x [T,C], row [C]) -> x + row")
ADD_GATED = declare(
    "add_gated", "pure", "run(x [T,C], y [T,C], gate [T,1]) -> x + sigmoid(gate) * y"
)
SCALE = declare("scale", "pure", "run(x of any shape, factor) -> factor * x")
ACT_MUL = declare(
    "act_mul",
    "pure",
    "run(gate_up [T,2F], act) -> [T,F], act(first half) * second half; an act of ACTIVATIONS",
)
ACT = declare("act", "pure", "run(x of any shape, act) -> act(x), with the activations of act_mul")
SOFT_CAP = declare("soft_cap", "pure", "run(x of any shape, cap) -> cap * tanh(x / cap)")
CLAMP = declare("clamp", "pure", "run(x of any shape, limit) -> x, within -limit and limit")
TO_FLOAT32 = declare("to_float32", "pure", "run(x of any shape) -> x in float32")
TAKE_ROWS = declare("take_rows", "pure", "run(x [T,C], rows [B]) -> [B,C], x[rows]")


def add(x: torch.Tensor, y: torch.Tensor, scale: float, out: torch.Tensor) -> torch.Tensor:
    """out = x + scale * y in float32, rounded once to out's dtype; out may be x or y."""
    if scale == 1.0 and x.dtype == y.dtype == out.dtype:
        return torch.add(x, y, out=out)
    scaled = y.to(torch.float32, copy=True).mul_(
        scale
    )  # two steps: a fused one rounds otherwise in its tail
    return out.copy_(scaled.add_(x.to(torch.float32)))


def silu(x: torch.Tensor) -> torch.Tensor:
    """x / (1 + exp(-x)), float32 in and out."""
    return x / torch.exp(-x).add_(1.0)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """x / 2 * (1 + erf(x / sqrt 2)), float32 in and out."""
    return torch.erf(x * (1.0 / sqrt(2.0))).add_(1.0).mul_(x * 0.5)


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), float32 in and out."""
    inner = (x * x).mul_(x).mul_(0.044715).add_(x).mul_(sqrt(2.0 / torch.pi))
    return torch.tanh(inner).add_(1.0).mul_(x * 0.5)


def relu(x: torch.Tensor) -> torch.Tensor:
    """max(x, 0), float32 in and out; NaN stays."""
    return torch.relu(x)


def relu2(x: torch.Tensor) -> torch.Tensor:
    """max(x, 0)^2, float32 in and out; NaN stays."""
    return torch.relu(x).square()


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "relu2": relu2,
}


def activation(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function of that name. Raises ValueError for another."""
    function = ACTIVATIONS.get(name)
    if function is None:
        raise ValueError(f"unknown activation {name!r}; known: {sorted(ACTIVATIONS)}")
    return function


@register
class AddReference(Provider):
    op = "add"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x + scale * y, of one shape; returns x's dtype, one rounding. `out` may be x or y."""
        return add(x, y, scale, torch.empty_like(x) if out is None else out)


@register
class AddRowReference(Provider):
    op = "add_row"
    name = "reference"

    def run(
        self, x: torch.Tensor, row: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x [T, C] + row [C], of one dtype, which it returns; one rounding. `out` may be x."""
        return torch.add(x, row, out=torch.empty_like(x) if out is None else out)


@register
class AddGatedReference(Provider):
    op = "add_gated"
    name = "reference"

    def run(
        self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, *, out: torch.Tensor
    ) -> torch.Tensor:
        """x + sigmoid(gate) * y, x and y [T, C], gate [T, 1]; one rounding. `out` may be x or y."""
        share = 1.0 / torch.exp(-gate.to(torch.float32)).add_(1.0)
        return out.copy_((y.to(torch.float32) * share).add_(x.to(torch.float32)))


@register
class ScaleReference(Provider):
    op = "scale"
    name = "reference"

    def run(
        self, x: torch.Tensor, *, factor: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """factor * x in x's dtype, one rounding. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        return out.copy_(x.to(torch.float32) * factor)


@register
class ActMulReference(Provider):
    op = "act_mul"
    name = "reference"

    def run(
        self, gate_up: torch.Tensor, *, act: str, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """act(gate) * up, with gate the first F columns and up the last F.

        gate_up [T, 2F]; returns [T, F] in its dtype, one rounding. act is "silu", "gelu" (with
        erf), "gelu_tanh", "relu" or "relu2"; raises ValueError for another.
        """
        function = activation(act)
        width = gate_up.shape[-1] // 2
        if out is None:
            out = gate_up.new_empty(*gate_up.shape[:-1], width)
        gate = gate_up[..., :width].to(torch.float32)  # [T, F]
        up = gate_up[..., width:].to(torch.float32)  # [T, F]
        return out.copy_(function(gate).mul_(up))


@register
class ActReference(Provider):
    op = "act"
    name = "reference"

    def run(self, x: torch.Tensor, *, act: str, out: torch.Tensor | None = None) -> torch.Tensor:
        """act(x) in x's dtype, one rounding. `out` may be x.

        act is "silu", "gelu" (with erf), "gelu_tanh", "relu" or "relu2"; raises ValueError for another.
        """
        out = torch.empty_like(x) if out is None else out
        return out.copy_(activation(act)(x.to(torch.float32)))


@register
class SoftCapReference(Provider):
    op = "soft_cap"
    name = "reference"

    def run(self, x: torch.Tensor, *, cap: float, out: torch.Tensor | None = None) -> torch.Tensor:
        """cap * tanh(x / cap), within (-cap, cap), in x's dtype. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        return out.copy_(torch.tanh(x.to(torch.float32) / cap).mul_(cap))


@register
class ClampReference(Provider):
    op = "clamp"
    name = "reference"

    def run(
        self, x: torch.Tensor, *, limit: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x, but what is beyond it becomes limit or -limit; NaN stays. `out` may be x."""
        return torch.clamp(x, -limit, limit, out=torch.empty_like(x) if out is None else out)


@register
class ToFloat32Reference(Provider):
    op = "to_float32"
    name = "reference"

    def run(self, x: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """x as float32, exact; a copy also where x is float32 already."""
        out = torch.empty_like(x, dtype=torch.float32) if out is None else out
        return out.copy_(x)


@register
class TakeRowsReference(Provider):
    op = "take_rows"
    name = "reference"

    def run(
        self, x: torch.Tensor, rows: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x[rows]: x [T, C], rows [B] int64 to [B, C] in x's dtype.

        A row outside raises IndexError, or is NaN where a provider does not look at `rows`.
        """
        out = x.new_empty(rows.shape[0], *x.shape[1:]) if out is None else out
        return torch.index_select(x, 0, rows, out=out)
