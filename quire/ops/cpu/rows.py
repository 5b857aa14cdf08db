"""Rows taken from tables and put into them, and blocks of cache copied, by the native library.

Definitions are in `ops.elementwise`, `ops.embedding` and `ops.cache`; kernels are csrc/ops/rows.cpp.
Indices are tested where requests enter. Here one that is outside of its table never reads or writes
outside of it: it gives a row of NaN, which no sampler takes.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cache import check_blocks
from quire.ops.cpu.library import library, native
from quire.ops.cpu.linear import PackedLinear
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, indices
from quire.ops.registry import Provider, Signature, register

_TAKE_ROWS, _TakeRows = NUMBERS["take_rows"], STRUCTS["take_rows"]
_TAKE_PACKED, _TakePacked = NUMBERS["take_packed"], STRUCTS["take_packed"]
_PUT_ROWS, _PutRows = NUMBERS["put_rows"], STRUCTS["put_rows"]
_COPY_BLOCKS, _CopyBlocks = NUMBERS["copy_blocks"], STRUCTS["copy_blocks"]


def _take(
    x: torch.Tensor, chosen: torch.Tensor, scale: float, out: torch.Tensor
) -> tuple[int, ctypes.Structure]:
    num_rows, width = x.shape
    return _TAKE_ROWS, _TakeRows(
        x=x.data_ptr(),
        chosen=indices(chosen),
        out=out.data_ptr(),
        count=chosen.shape[0],
        rows=num_rows,
        width=width,
        x_stride=x.stride(0),
        out_stride=out.stride(0),
        scale=scale,
        dtype=CODES[x.dtype],
    )


@register
class TakeRowsCpu(RowProvider):
    op = "take_rows"

    def native(
        self, x: torch.Tensor, rows: torch.Tensor, *, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return _take(x, rows, 1.0, out)

    def run(
        self, x: torch.Tensor, rows: torch.Tensor, *, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x[rows]: x [T, C], rows [B] int64 to [B, C]; NaN for a row that x does not have."""
        out = x.new_empty(rows.shape[0], x.shape[1]) if out is None else out
        native().run(*_take(x, rows, 1.0, out))
        return out


@register
class EmbeddingCpu(RowProvider):
    op = "embedding"
    copies_weights = True

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """A copy of weight [V, C]: what is given may lie in a file."""
        return weight.clone()

    def share(self, packed: object) -> PackedLinear | None:
        """The packed weight of a head that has this table, if its numbers are kept as they are."""
        return packed if isinstance(packed, PackedLinear) else None

    def native(
        self,
        ids: torch.Tensor,
        packed: torch.Tensor | PackedLinear,
        *,
        scale: float = 1.0,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        if isinstance(packed, torch.Tensor):
            return _take(packed, ids, scale, out)
        return _TAKE_PACKED, _TakePacked(
            table=packed.data.data_ptr(),
            chosen=indices(ids),
            out=out.data_ptr(),
            count=ids.shape[0],
            rows=packed.num_columns,
            width=out.shape[1],
            out_stride=out.stride(0),
            scale=scale,
            dtype=CODES[out.dtype],
        )

    def run(
        self,
        ids: torch.Tensor,
        packed: torch.Tensor | PackedLinear,
        *,
        scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Rows ids [T] int64 of the table [V, C] times `scale`; NaN for an id that it lacks.

        `out` must be given where the table is a head's.
        """
        if out is None:
            assert isinstance(packed, torch.Tensor), "a shared table needs `out`"
            out = packed.new_empty(ids.shape[0], packed.shape[1])
        native().run(*self.native(ids, packed, scale=scale, out=out))
        return out


@register
class PutRowsCpu(RowProvider):
    op = "put_rows"

    def native(
        self, x: torch.Tensor, rows: torch.Tensor, values: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; a row that x does not have is left out."""
        num_rows, width = x.shape
        return _PUT_ROWS, _PutRows(
            x=x.data_ptr(),
            chosen=indices(rows),
            values=values.data_ptr(),
            count=rows.shape[0],
            rows=num_rows,
            width=width,
            x_stride=x.stride(0),
            values_stride=values.stride(0),
            dtype=CODES[x.dtype],
            values_dtype=CODES[values.dtype],
        )

    def run(self, x: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """x[rows] = values in place: x [T, C]; rows [E] int64, all different; values [E, C].

        Raises IndexError for a row that x does not have.
        """
        wrong = [row for row in rows.tolist() if not 0 <= row < x.shape[0]]
        if wrong:
            raise IndexError(f"row {wrong[0]} of a tensor with {x.shape[0]} rows cannot be put")
        native().run(*self.native(x, rows, values))
        return x


@register
class CopyBlocksCpu(Provider):
    op = "copy_blocks"
    name = "cpu"

    def accepts(self, signature: Signature) -> str | None:
        if signature.device != "cpu":
            return f"it copies on cpu only, not on {signature.device}"
        return None if library() else "there is no native library for this machine"

    def run(
        self,
        buffer: torch.Tensor,
        *,
        block_bytes: int,
        blocks_per_slab: int,
        sources: list[int],
        targets: list[int],
    ) -> torch.Tensor:
        """Copies blocks of buffer [num_slabs, slab_bytes] uint8 in order, as the reference does."""
        check_blocks(buffer.shape[0] * blocks_per_slab, sources, targets)
        numbers = ctypes.c_int64 * len(sources)
        copied, replaced = numbers(*sources), numbers(*targets)
        args = _CopyBlocks(
            buffer=buffer.data_ptr(),
            sources=ctypes.addressof(copied),
            targets=ctypes.addressof(replaced),
            count=len(sources),
            block_bytes=block_bytes,
            blocks_per_slab=blocks_per_slab,
            num_slabs=buffer.shape[0],
            slab_bytes=buffer.stride(0),
        )
        native().run(_COPY_BLOCKS, args)
        return buffer
