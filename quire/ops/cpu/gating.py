"""Gates by the native library.

Definitions are in `ops.gating`; kernels are csrc/ops/gating.cpp.
"""

from __future__ import annotations

import ctypes
from abc import abstractmethod
from typing import Any

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, floats, heads, plane
from quire.ops.gating import check_act
from quire.ops.registry import register


@register
class RmsNormGatedCpu(RowProvider):
    op = "rms_norm_gated"

    def native(
        self,
        x: torch.Tensor,
        gate: torch.Tensor,
        weight: torch.Tensor,
        *,
        eps: float,
        act: str,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises TypeError if gate or out is not of x's dtype."""
        check_act(act)
        if not x.dtype is gate.dtype is out.dtype:
            raise TypeError(f"rms_norm_gated takes one dtype, not {x.dtype} and {gate.dtype}")
        num_rows, num_heads, width, stride, head = heads(x)
        _, _, _, gate_stride, gate_head = heads(gate)
        _, _, _, out_stride, out_head = heads(out)
        return NUMBERS["rms_norm_gated"], STRUCTS["rms_norm_gated"](
            x=x.data_ptr(),
            gate=gate.data_ptr(),
            weight=floats(weight),
            out=out.data_ptr(),
            rows=num_rows,
            heads=num_heads,
            C=width,
            x_stride=stride,
            x_head=head,
            gate_stride=gate_stride,
            gate_head=gate_head,
            out_stride=out_stride,
            out_head=out_head,
            eps=eps,
            silu=act == "silu",
            dtype=CODES[x.dtype],
        )

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

        x, gate [T, H, D] of one dtype, rows and heads may be strided; weight [D] float32. act is "silu"
        or "sigmoid"; ValueError for another. `out` may be x or gate.
        """
        out = torch.empty_like(x) if out is None else out
        native().run(*self.native(x, gate, weight, eps=eps, act=act, out=out))
        return out


class _Gated(RowProvider):
    """x times what an activation makes of gate, in their dtype, one rounding; shapes are the operations'."""

    def native(
        self, x: torch.Tensor, gate: torch.Tensor, *, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises TypeError if gate or out is not of x's dtype."""
        if not x.dtype is gate.dtype is out.dtype:
            raise TypeError(f"{self.op} takes one dtype, not {x.dtype} and {gate.dtype}")
        args: Any = STRUCTS[self.op](
            x=x.data_ptr(), gate=gate.data_ptr(), out=out.data_ptr(), dtype=CODES[x.dtype]
        )
        self.lay(args, x, gate, out)
        return NUMBERS[self.op], args

    @abstractmethod
    def lay(self, args: Any, x: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
        """Writes the sizes and strides into `args`."""

    def run(
        self, x: torch.Tensor, gate: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As the definition; `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        native().run(*self.native(x, gate, out=out))
        return out


@register
class MulSigmoidCpu(_Gated):
    """x, gate [T, C]; `out` may be gate too."""

    op = "mul_sigmoid"

    def lay(self, args: Any, x: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
        args.rows, args.width, args.x_stride = plane(x)
        args.gate_stride, args.out_stride = plane(gate)[2], plane(out)[2]


@register
class MulSoftplusCpu(_Gated):
    """x [T, H, D], gate [T, H]."""

    op = "mul_softplus"

    def lay(self, args: Any, x: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
        args.rows, args.heads, args.D, args.x_stride, args.x_head = heads(x)
        _, _, _, args.out_stride, args.out_head = heads(out)
        args.gate_stride = gate.stride(0)


@register
class TellKeysCpu(RowProvider):
    op = "tell_keys"

    def native(
        self,
        x: torch.Tensor,
        steps: torch.Tensor,
        rates: torch.Tensor,
        *,
        scale: float,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises TypeError if steps or out is not of the heads' dtype."""
        if not x.dtype is steps.dtype is out.dtype:
            raise TypeError(f"tell_keys takes one dtype, not {x.dtype}, {steps.dtype}, {out.dtype}")
        num_rows, num_heads, width, stride, head = heads(x)
        return NUMBERS["tell_keys"], STRUCTS["tell_keys"](
            x=x.data_ptr(),
            steps=steps.data_ptr(),
            rates=floats(rates),
            out=out.data_ptr(),
            rows=num_rows,
            queries=num_heads - steps.shape[1],
            keys=steps.shape[1],
            D=width,
            R=out.shape[2] - width,
            x_stride=stride,
            x_head=head,
            steps_stride=steps.stride(0),
            of_queries=1.0 / scale,
            dtype=CODES[x.dtype],
        )

    def run(
        self,
        x: torch.Tensor,
        steps: torch.Tensor,
        rates: torch.Tensor,
        *,
        scale: float,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """x [T, H + K, D], queries first, into out [T, H + K, D + R], contiguous: 1 / scale behind queries.

        e^(rate * softplus(step)) behind keys, and then zeros. steps [T, K]; rates [K] float32; x may be strided.
        """
        native().run(*self.native(x, steps, rates, scale=scale, out=out))
        return out
