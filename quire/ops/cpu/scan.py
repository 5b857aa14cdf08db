"""State-space mixers by the native library.

Definitions are in `ops.scan`; kernels are csrc/ops/scans.cpp. Vectors and matrices that are no
activations are contiguous float32.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from quire.ops.cpu.library import native, refuses
from quire.ops.cpu.states import state_fields
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, floats
from quire.ops.registry import Signature, register
from quire.ops.scan import KERNELS, KINDS
from quire.ops.state import StatePlan, StateView

_CONV, _Conv = NUMBERS["causal_conv"], STRUCTS["causal_conv"]
_SSD, _Ssd = NUMBERS["ssd_scan"], STRUCTS["ssd_scan"]
_SELECTIVE, _Selective = NUMBERS["selective_scan"], STRUCTS["selective_scan"]
_LRU, _Lru = NUMBERS["gated_lru"], STRUCTS["gated_lru"]
_GATED, _Gated = NUMBERS["group_norm_gated"], STRUCTS["group_norm_gated"]


def _rows(name: str, x: torch.Tensor) -> int:
    """Elements from token to token. Raises ValueError unless a token's numbers lie side by side."""
    dense = 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:]), strict=True):
        if size > 1 and stride != dense:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)} and strides {x.stride()}: the numbers of a token must "
                "lie side by side"
            )
        dense *= size
    return x.stride(0)


@register
class CausalConvCpu(RowProvider):
    op = "causal_conv"

    def accepts(self, signature: Signature) -> str | None:
        width = signature.sizes.get("W", 0)
        if width not in KERNELS:
            return f"it sees {KERNELS[0]} to {KERNELS[-1]} tokens, not {width}"
        return refuses(signature)

    def native(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        inputs: StateView,
        plan: StatePlan,
        *,
        act: str = "silu",
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again."""
        return _CONV, _Conv(
            x=x.data_ptr(),
            weight=floats(weight),
            bias=None if bias is None else floats(bias),
            out=out.data_ptr(),
            x_stride=_rows("x", x),
            out_stride=_rows("out", out),
            C=x.shape[1],
            W=weight.shape[0],
            act=act == "silu",
            dtype=CODES[x.dtype],
            **state_fields(inputs, plan),
        )

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
        """As the reference. `out` may not be x."""
        native().run(*self.native(x, weight, bias, inputs, plan, act=act, out=out))
        return out


def _scan_fields(
    x: torch.Tensor,
    write: torch.Tensor,
    read: torch.Tensor,
    steps: torch.Tensor,
    step_bias: torch.Tensor,
    decay: torch.Tensor,
    skip: torch.Tensor,
    out: torch.Tensor,
) -> dict[str, Any]:
    """What both scans are told of their tensors."""
    rows = {
        "x": ("x", x),
        "b": ("write", write),
        "c": ("read", read),
        "steps": ("steps", steps),
        "out": ("out", out),
    }
    return {
        **{field: tensor.data_ptr() for field, (_, tensor) in rows.items()},
        **{f"{field}_stride": _rows(name, tensor) for field, (name, tensor) in rows.items()},
        "step_bias": floats(step_bias),
        "decay": floats(decay),
        "skip": floats(skip),
        "dtype": CODES[x.dtype],
    }


@register
class SsdScanCpu(RowProvider):
    op = "ssd_scan"

    def native(
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
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again."""
        return _SSD, _Ssd(
            **_scan_fields(x, write, read, steps, step_bias, decay, skip, out),
            H=x.shape[1],
            P=x.shape[2],
            N=write.shape[2],
            G=write.shape[1],
            least=limits[0],
            most=limits[1],
            **state_fields(states, plan),
        )

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
        """As the reference; every activation in x's dtype."""
        vectors = (step_bias, decay, skip)
        native().run(
            *self.native(x, write, read, steps, *vectors, states, plan, limits=limits, out=out)
        )
        return out


@register
class SelectiveScanCpu(RowProvider):
    op = "selective_scan"

    def native(
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
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again."""
        return _SELECTIVE, _Selective(
            **_scan_fields(x, write, read, steps, step_bias, decay, skip, out),
            D=x.shape[1],
            N=write.shape[1],
            **state_fields(states, plan),
        )

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
        """As the reference; every activation in x's dtype."""
        vectors = (step_bias, decay, skip)
        native().run(*self.native(x, write, read, steps, *vectors, states, plan, out=out))
        return out


@register
class GatedLruCpu(RowProvider):
    op = "gated_lru"

    def native(
        self,
        x: torch.Tensor,
        gates: torch.Tensor,
        bias: torch.Tensor,
        rate: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again."""
        return _LRU, _Lru(
            x=x.data_ptr(),
            gates=gates.data_ptr(),
            bias=floats(bias),
            rate=floats(rate),
            out=out.data_ptr(),
            x_stride=_rows("x", x),
            gates_stride=_rows("gates", gates),
            out_stride=_rows("out", out),
            H=bias.shape[0],
            W=bias.shape[1] // 2,
            dtype=CODES[x.dtype],
            **state_fields(states, plan),
        )

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
        """As the reference; every activation in x's dtype."""
        native().run(*self.native(x, gates, bias, rate, states, plan, out=out))
        return out


@register
class GroupNormGatedCpu(RowProvider):
    op = "group_norm_gated"

    def native(
        self,
        x: torch.Tensor,
        gate: torch.Tensor,
        weight: torch.Tensor | None,
        *,
        eps: float,
        groups: int = 1,
        kind: str = "gated",
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return _GATED, _Gated(
            x=x.data_ptr(),
            gate=gate.data_ptr(),
            weight=None if weight is None else floats(weight),
            out=out.data_ptr(),
            rows=x.shape[0],
            C=x.shape[1],
            x_stride=_rows("x", x),
            gate_stride=_rows("gate", gate),
            out_stride=_rows("out", out),
            groups=groups,
            eps=eps,
            kind=KINDS.index(kind),
            dtype=CODES[x.dtype],
        )

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
        """As the reference. `out` may be x."""
        native().run(*self.native(x, gate, weight, eps=eps, groups=groups, kind=kind, out=out))
        return out
