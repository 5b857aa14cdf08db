"""Products with packed weights by the native library.

The definition is in `ops.linear`; kernels are csrc/ops/linear.cpp.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from quire.ops.cpu import quantized
from quire.ops.cpu.library import native
from quire.ops.cpu.memory import Take, allocate
from quire.ops.cpu.quantized import PackedQuantized
from quire.ops.cpu.structs import DTYPES, NUMBERS, STRUCTS
from quire.ops.formats import PLAIN, Format
from quire.ops.quantized import QuantizedWeight
from quire.ops.registry import Provider, Signature, register

_LINEAR = NUMBERS["linear"]
_LinearArgs = STRUCTS["linear"]
_COLUMNS, _DEPTH = 32, 32  # what N and K are rounded up to


@dataclass(frozen=True)
class PackedLinear:
    """A weight [N, K] in blocks of 32 columns, and all of a call's arguments but x and out.

    data  the blocks as bytes; bias  [N] float32 or None.
    """

    num_columns: int
    data: torch.Tensor
    bias: torch.Tensor | None
    args: ctypes.Structure


@register
class LinearCpu(Provider):
    op = "linear"
    name = "cpu"
    copies_weights = True

    def accepts(self, signature: Signature) -> str | None:
        return quantized.refuses_format(signature, signature.sizes.get("K", 0))

    def pack(
        self, weight: torch.Tensor | QuantizedWeight, bias: torch.Tensor | None = None
    ) -> PackedLinear | PackedQuantized:
        """Rearranges weight [N, K], whose rows may be strided; bias [N] is kept in float32."""
        if isinstance(weight, QuantizedWeight):
            return quantized.pack(weight, bias)
        if weight.stride(1) != 1:
            weight = weight.contiguous()
        num_columns, depth = weight.shape
        packed = self.room(num_columns, depth, weight.dtype, PLAIN, bias)
        native().run(
            NUMBERS["pack_linear"],
            STRUCTS["pack_linear"](
                weight=weight.data_ptr(),
                out=packed.data.data_ptr(),
                N=num_columns,
                K=depth,
                stride=weight.stride(0),
                dtype=DTYPES[str(weight.dtype).removeprefix("torch.")],
                format=0,
            ),
        )
        return packed

    def room(
        self,
        num_columns: int,
        depth: int,
        dtype: torch.dtype,
        format: Format,
        bias: torch.Tensor | None,
        take: Take = allocate,
    ) -> PackedLinear | PackedQuantized:
        """A packed weight [N, K] that multiplies rows of `dtype`, in memory of `take` that is filled or to be."""
        if format.bits is not None:
            return quantized.room(num_columns, depth, dtype, format, bias, take)
        blocks, deep = -(-num_columns // _COLUMNS), -(-depth // _DEPTH) * _DEPTH
        data = take(blocks * _COLUMNS * deep * dtype.itemsize)
        bias = None if bias is None else bias.to(torch.float32).contiguous()
        args = _LinearArgs(
            weight=data.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            N=num_columns,
            K=depth,
            dtype=DTYPES[str(dtype).removeprefix("torch.")],
        )
        return PackedLinear(num_columns, data, bias, args)

    def parts(self, packed: PackedLinear | PackedQuantized) -> list[torch.Tensor]:
        """What a packed weight is made of, uint8 [n] each: filled with the same, room is the same weight."""
        return [packed.data] if isinstance(packed, PackedLinear) else packed.parts

    def native(
        self,
        x: torch.Tensor,
        packed: PackedLinear | PackedQuantized,
        *,
        delta: torch.Tensor | None = None,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        is_plain = isinstance(packed, PackedLinear)
        args = (_LinearArgs if is_plain else quantized.Args).from_buffer_copy(packed.args)
        args.x = x.data_ptr()
        args.out = out.data_ptr()
        args.rows, args.x_stride = x.shape[0], x.stride(0)
        args.out_stride, args.is_wide = out.stride(0), out.dtype == torch.float32
        if delta is not None:
            args.delta, args.delta_stride = delta.data_ptr(), delta.stride(0)
        return _LINEAR if is_plain else quantized.LINEAR_QUANTIZED, args

    def run(
        self,
        x: torch.Tensor,
        packed: PackedLinear | PackedQuantized,
        *,
        delta: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x @ weight.T + delta + bias in float32, rounded once.

        x [T, K] in the weight's dtype and delta [T, N] float32, rows may be strided; returns [T, N] in x's dtype,
        or `out` in that or in float32.
        """
        if out is None:
            out = x.new_empty(x.shape[0], packed.num_columns)
        native().run(*self.native(x, packed, delta=delta, out=out))
        return out
