"""Rotary positions by the native library, alone or with the norms of query and key heads.

Definitions are in `ops.rope`; kernels are csrc/ops/rope.cpp.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, floats, heads, indices
from quire.ops.registry import register

_ROPE, _Rope = NUMBERS["rope"], STRUCTS["rope"]
_QK_ROPE, _QkRope = NUMBERS["qk_rope"], STRUCTS["qk_rope"]


@register
class RopeCpu(RowProvider):
    op = "rope"

    def native(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        table: torch.Tensor,
        *,
        interleaved: bool = False,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        num_rows, num_heads, _, stride, head = heads(x)
        max_len, rot = table.shape
        return _ROPE, _Rope(
            x=x.data_ptr(),
            positions=indices(positions),
            table=floats(table),
            rows=num_rows,
            heads=num_heads,
            stride=stride,
            head=head,
            rot=rot,
            max_len=max_len,
            interleaved=interleaved,
            dtype=CODES[x.dtype],
        )

    def run(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        table: torch.Tensor,
        *,
        interleaved: bool = False,
    ) -> torch.Tensor:
        """As the reference, bit for bit; a position outside of the table makes NaN, not an error.

        x [T, H, D] in place, strided by rows and heads; positions [T] int64; table [max_len, rot].
        """
        native().run(*self.native(x, positions, table, interleaved=interleaved))
        return x


@register
class QkRopeCpu(RowProvider):
    op = "qk_rope"

    def native(
        self,
        x: torch.Tensor,
        q_weight: torch.Tensor,
        k_weight: torch.Tensor,
        positions: torch.Tensor,
        table: torch.Tensor,
        *,
        num_q_heads: int,
        eps: float,
        interleaved: bool = False,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        num_rows, num_heads, size, stride, head = heads(x)
        max_len, rot = table.shape
        return _QK_ROPE, _QkRope(
            x=x.data_ptr(),
            q_weight=floats(q_weight),
            k_weight=floats(k_weight),
            positions=indices(positions),
            table=floats(table),
            rows=num_rows,
            heads=num_heads,
            q_heads=num_q_heads,
            D=size,
            stride=stride,
            head=head,
            rot=rot,
            max_len=max_len,
            eps=eps,
            interleaved=interleaved,
            dtype=CODES[x.dtype],
        )

    def run(
        self,
        x: torch.Tensor,
        q_weight: torch.Tensor,
        k_weight: torch.Tensor,
        positions: torch.Tensor,
        table: torch.Tensor,
        *,
        num_q_heads: int,
        eps: float,
        interleaved: bool = False,
    ) -> torch.Tensor:
        """Native `rms_norm` of the heads and `rope`, bit for bit, in one pass over x [T, H+K, D].

        weights [D] float32; positions [T] int64; table [max_len, rot].
        """
        call = self.native(
            x,
            q_weight,
            k_weight,
            positions,
            table,
            num_q_heads=num_q_heads,
            eps=eps,
            interleaved=interleaved,
        )
        native().run(*call)
        return x
