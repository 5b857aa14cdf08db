"""Norms by the native library.

Definitions are in `ops.norm`; kernels are csrc/ops/norm.cpp. Weights and biases are float32.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, floats, heads
from quire.ops.registry import register

_RMS_NORM, _RmsNorm = NUMBERS["rms_norm"], STRUCTS["rms_norm"]
_ADD_RMS_NORM, _AddRmsNorm = NUMBERS["add_rms_norm"], STRUCTS["add_rms_norm"]
_LAYER_NORM, _LayerNorm = NUMBERS["layer_norm"], STRUCTS["layer_norm"]


@register
class RmsNormCpu(RowProvider):
    op = "rms_norm"

    def native(
        self, x: torch.Tensor, weight: torch.Tensor, *, eps: float, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        num_rows, num_heads, width, stride, head = heads(x)
        _, _, _, out_stride, out_head = heads(out)
        return _RMS_NORM, _RmsNorm(
            x=x.data_ptr(),
            weight=floats(weight),
            out=out.data_ptr(),
            rows=num_rows,
            heads=num_heads,
            C=width,
            x_stride=stride,
            x_head=head,
            out_stride=out_stride,
            out_head=out_head,
            eps=eps,
            dtype=CODES[x.dtype],
        )

    def run(
        self, x: torch.Tensor, weight: torch.Tensor, *, eps: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x / sqrt(mean(x^2) + eps) * weight, over the last axis, one rounding.

        x [T, C] or [T, H, C], rows and heads may be strided; weight [C]. `out` may be x.
        """
        out = torch.empty_like(x) if out is None else out
        native().run(*self.native(x, weight, eps=eps, out=out))
        return out


@register
class AddRmsNormCpu(RowProvider):
    op = "add_rms_norm"

    def native(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        *,
        eps: float,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        num_rows, width = residual.shape
        return _ADD_RMS_NORM, _AddRmsNorm(
            x=x.data_ptr(),
            residual=residual.data_ptr(),
            weight=floats(weight),
            out=out.data_ptr(),
            rows=num_rows,
            C=width,
            x_stride=x.stride(0),
            residual_stride=residual.stride(0),
            out_stride=out.stride(0),
            eps=eps,
            dtype=CODES[residual.dtype],
        )

    def run(
        self,
        x: torch.Tensor,
        residual: torch.Tensor,
        weight: torch.Tensor,
        *,
        eps: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """residual += x, rounded; returns the norm of the sum. x, residual [T, C] of one dtype.

        Equal bit for bit to native `add` and `rms_norm`. `out` may be x, not residual.
        """
        out = torch.empty_like(residual) if out is None else out
        native().run(*self.native(x, residual, weight, eps=eps, out=out))
        return out


@register
class LayerNormCpu(RowProvider):
    op = "layer_norm"

    def native(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        eps: float,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        num_rows, num_heads, width, stride, head = heads(x)
        _, _, _, out_stride, out_head = heads(out)
        return _LAYER_NORM, _LayerNorm(
            x=x.data_ptr(),
            weight=floats(weight),
            bias=None if bias is None else floats(bias),
            out=out.data_ptr(),
            rows=num_rows,
            heads=num_heads,
            C=width,
            x_stride=stride,
            x_head=head,
            out_stride=out_stride,
            out_head=out_head,
            weight_head=width if weight.dim() == 2 else 0,
            eps=eps,
            dtype=CODES[x.dtype],
        )

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        eps: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, one rounding.

        x [T, C] or [T, H, C], rows and heads may be strided; weight [C] or [H, C], bias of its
        shape or None. `out` may be x.
        """
        out = torch.empty_like(x) if out is None else out
        native().run(*self.native(x, weight, bias, eps=eps, out=out))
        return out
