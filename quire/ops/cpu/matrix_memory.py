"""Matrices that forget by gates, by the native library.

Their definition is in `ops.matrix_memory`; the kernel is csrc/ops/matrix_memory.cpp.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.states import state_fields
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, plane
from quire.ops.registry import register
from quire.ops.state import StatePlan, StateView


@register
class MatrixMemoryCpu(RowProvider):
    op = "matrix_memory"

    def native(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        gates: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        eps: float,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again.

        Raises ValueError if the heads of a token do not lie side by side.
        """
        return NUMBERS["matrix_memory"], STRUCTS["matrix_memory"](
            q=q.data_ptr(),
            k=k.data_ptr(),
            v=v.data_ptr(),
            gates=gates.data_ptr(),
            out=out.data_ptr(),
            q_stride=_stride(q),
            k_stride=_stride(k),
            v_stride=_stride(v),
            gates_stride=plane(gates)[2],
            out_stride=_stride(out),
            H=q.shape[1],
            K=q.shape[2],
            V=v.shape[2],
            eps=eps,
            dtype=CODES[q.dtype],
            **state_fields(states, plan),
        )

    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        gates: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        eps: float,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """As the reference; all of them in one dtype, the heads of a token side by side."""
        native().run(*self.native(q, k, v, gates, states, plan, eps=eps, out=out))
        return out


def _stride(x: torch.Tensor) -> int:
    """Elements from token to token of x [T, H, D]. Raises ValueError if heads do not lie side by side."""
    if x.stride(2) != 1 or x.stride(1) != x.shape[2]:
        raise ValueError(
            f"matrix_memory got shape {tuple(x.shape)} with strides {x.stride()}; the heads of a token must lie "
            "side by side: call contiguous() before"
        )
    return x.stride(0)
