"""Operations on each element by the native library.

Definitions are in `ops.elementwise` and `ops.gating`; kernels are csrc/ops/elementwise.cpp. Tensors are [T, C] whose
rows may be strided, or contiguous of any shape.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.structs import ACTS, NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, plane
from quire.ops.elementwise import activation
from quire.ops.registry import register


def _act(name: str) -> int:
    """The kernels' number of an activation. Raises ValueError for an unknown one."""
    code = ACTS.get(name)
    if code is None:
        activation(name)
        raise ValueError(f"activation {name!r} has no native kernel; it has {sorted(ACTS)}")
    return code


def _map(
    operation: str, x: torch.Tensor, out: torch.Tensor, **numbers: float
) -> tuple[int, ctypes.Structure]:
    """A call from x to out of the same shape."""
    num_rows, width, stride = plane(x)
    return NUMBERS[operation], STRUCTS[operation](
        x=x.data_ptr(),
        out=out.data_ptr(),
        rows=num_rows,
        width=width,
        x_stride=stride,
        out_stride=plane(out)[2],
        dtype=CODES[x.dtype],
        **numbers,
    )


@register
class AddCpu(RowProvider):
    op = "add"

    def native(
        self, x: torch.Tensor, y: torch.Tensor, *, scale: float = 1.0, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises TypeError if y or out is not of x's dtype."""
        if not x.dtype is y.dtype is out.dtype:
            raise TypeError(f"add takes one dtype, not {x.dtype}, {y.dtype} and {out.dtype}")
        number, args = _map("add", x, out, scale=scale)
        args.y, args.y_stride = y.data_ptr(), plane(y)[2]
        return number, args

    def run(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        *,
        scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x + scale * y, of one shape and dtype; one rounding. `out` may be x or y."""
        out = torch.empty_like(x) if out is None else out
        native().run(*self.native(x, y, scale=scale, out=out))
        return out


@register
class AddRowCpu(RowProvider):
    op = "add_row"

    def native(
        self, x: torch.Tensor, row: torch.Tensor, *, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes: a sum whose second rows are one. TypeError if row or out is not of x's dtype."""
        if not x.dtype is row.dtype is out.dtype:
            raise TypeError(f"add_row takes one dtype, not {x.dtype}, {row.dtype} and {out.dtype}")
        number, args = _map("add", x, out, scale=1.0)
        args.y = row.data_ptr()
        args.rows, args.width = x.shape
        return number, args

    def run(
        self, x: torch.Tensor, row: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x [T, C] + row [C], contiguous, of one dtype; one rounding. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        native().run(*self.native(x, row, out=out))
        return out


@register
class AddGatedCpu(RowProvider):
    op = "add_gated"

    def native(
        self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, *, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises TypeError if y, gate or out is not of x's dtype."""
        if not x.dtype is y.dtype is gate.dtype is out.dtype:
            raise TypeError(f"add_gated takes one dtype, not {x.dtype}, {y.dtype}, {gate.dtype}")
        number, args = _map("add_gated", x, out)
        args.y, args.y_stride = y.data_ptr(), plane(y)[2]
        args.gate, args.gate_stride = gate.data_ptr(), gate.stride(0)
        return number, args

    def run(
        self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, *, out: torch.Tensor
    ) -> torch.Tensor:
        """x + sigmoid(gate) * y, x and y [T, C], gate [T, 1]; one rounding. `out` may be x or y."""
        native().run(*self.native(x, y, gate, out=out))
        return out


@register
class ClampCpu(RowProvider):
    op = "clamp"

    def native(
        self, x: torch.Tensor, *, limit: float, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return _map("clamp", x, out, limit=limit)

    def run(
        self, x: torch.Tensor, *, limit: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x, but what is beyond it becomes limit or -limit; NaN stays. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        native().run(*_map("clamp", x, out, limit=limit))
        return out


@register
class ScaleCpu(RowProvider):
    op = "scale"

    def native(
        self, x: torch.Tensor, *, factor: float, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return _map("scale", x, out, factor=factor)

    def run(
        self, x: torch.Tensor, *, factor: float, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """factor * x in x's dtype, one rounding. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        native().run(*_map("scale", x, out, factor=factor))
        return out


@register
class ActCpu(RowProvider):
    op = "act"

    def native(
        self, x: torch.Tensor, *, act: str, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return _map("act", x, out, act=_act(act))

    def run(self, x: torch.Tensor, *, act: str, out: torch.Tensor | None = None) -> torch.Tensor:
        """act(x) in x's dtype, one rounding; ValueError for an unknown act. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        native().run(*_map("act", x, out, act=_act(act)))
        return out


@register
class ActMulCpu(RowProvider):
    op = "act_mul"

    def native(
        self, gate_up: torch.Tensor, *, act: str, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; gate_up is [T, 2F]."""
        number, args = _map("act_mul", gate_up, out, act=_act(act))
        args.rows, args.width = out.shape
        return number, args

    def run(
        self, gate_up: torch.Tensor, *, act: str, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """act(gate) * up for gate_up [T, 2F], to [T, F]; ValueError for an unknown act."""
        if out is None:
            out = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
        native().run(*self.native(gate_up, act=act, out=out))
        return out


@register
class SwigluClampedCpu(RowProvider):
    op = "swiglu_clamped"

    def native(
        self, x: torch.Tensor, *, limit: float, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; x is [T, 2F]."""
        number, args = _map("swiglu_clamped", x, out, limit=limit)
        args.rows, args.width = out.shape
        return number, args

    def run(self, x: torch.Tensor, *, limit: float, out: torch.Tensor) -> torch.Tensor:
        """(up + 1) * gate * sigmoid(1.702 gate) of the halves of x [T, 2F], both below limit, up above -limit."""
        native().run(*self.native(x, limit=limit, out=out))
        return out


@register
class SoftCapCpu(RowProvider):
    op = "soft_cap"

    def native(
        self, x: torch.Tensor, *, cap: float, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return _map("soft_cap", x, out, cap=cap)

    def run(self, x: torch.Tensor, *, cap: float, out: torch.Tensor | None = None) -> torch.Tensor:
        """cap * tanh(x / cap) in x's dtype. `out` may be x."""
        out = torch.empty_like(x) if out is None else out
        native().run(*_map("soft_cap", x, out, cap=cap))
        return out


@register
class ToFloat32Cpu(RowProvider):
    op = "to_float32"

    def native(self, x: torch.Tensor, *, out: torch.Tensor) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return _map("to_float32", x, out)

    def run(self, x: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        """x as float32, exact."""
        out = torch.empty_like(x, dtype=torch.float32) if out is None else out
        native().run(*_map("to_float32", x, out))
        return out
