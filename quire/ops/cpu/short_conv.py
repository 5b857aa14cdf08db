"""The gated short convolution by the native library.

Its definition is in `ops.short_conv`; the kernel is csrc/ops/short_conv.cpp.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.states import state_fields
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, floats, plane
from quire.ops.registry import register
from quire.ops.state import StatePlan, StateView


@register
class ShortConvCpu(RowProvider):
    op = "short_conv"

    def native(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        view: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises TypeError if out is not of x's dtype."""
        if out.dtype is not x.dtype:
            raise TypeError(f"short_conv takes one dtype, not {x.dtype} and {out.dtype}")
        return NUMBERS["short_conv"], STRUCTS["short_conv"](
            x=x.data_ptr(),
            weight=floats(weight),
            bias=None if bias is None else floats(bias),
            out=out.data_ptr(),
            **state_fields(view, plan),
            x_stride=plane(x)[2],
            out_stride=plane(out)[2],
            C=weight.shape[1],
            W=weight.shape[0],
            dtype=CODES[x.dtype],
        )

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
        """
        native().run(*self.native(x, weight, bias, view, plan, out=out))
        return out
