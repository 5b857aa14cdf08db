"""Masks, lists of ids, penalties and temperatures on logits by the native library.

The definitions are in `ops.sample`; kernels are csrc/ops/sampling_edits.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from quire.ops.cpu.library import native
from quire.ops.cpu.sampling import OverLogits, num_threads
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.registry import register

Ids = NDArray[np.int64]

_MASK, _MaskArgs = NUMBERS["mask_bits"], STRUCTS["mask_bits"]
_EDIT, _EditArgs = NUMBERS["edit_ids"], STRUCTS["edit_ids"]
_PENALIZE, _PenalizeArgs = NUMBERS["penalize"], STRUCTS["penalize"]
_DIVIDE, _DivideArgs = NUMBERS["divide_rows"], STRUCTS["divide_rows"]
_KEEP, _BIAS, _BAN = 0, 1, 2


@register
class MaskBitsCpu(OverLogits):
    op = "mask_bits"

    def run(
        self, x: torch.Tensor, rows: Sequence[int], words: Sequence[NDArray[np.uint32]]
    ) -> None:
        """words: for each row [ceil(V / 32)]; bit i % 32 of word i // 32 allows id i."""
        count = len(rows)
        kept = [np.ascontiguousarray(one) for one in words]
        listed = (ctypes.c_int64 * count)(*rows)
        places = (ctypes.c_void_p * count)(*[_address(one) for one in kept])
        native().run(
            _MASK,
            _MaskArgs(
                x.data_ptr(), ctypes.addressof(listed), ctypes.addressof(places), count,
                x.stride(0), x.shape[1],
            ),
            num_threads(count, x.shape[1]),
        )  # fmt: skip


@register
class KeepIdsCpu(OverLogits):
    op = "keep_ids"

    def run(self, x: torch.Tensor, rows: Sequence[int], ids: Sequence[Ids]) -> None:
        """Other ids get -inf; a row stays as it is if all its ids are -inf already."""
        _edit(x, rows, ids, _KEEP)


@register
class BanIdsCpu(OverLogits):
    op = "ban_ids"

    def run(self, x: torch.Tensor, rows: Sequence[int], ids: Sequence[Ids]) -> None:
        """A row stays as it is if the ban would leave it without any id."""
        _edit(x, rows, ids, _BAN)


@register
class AddBiasCpu(OverLogits):
    op = "add_bias"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        ids: Sequence[Ids],
        values: Sequence[NDArray[np.float32]],
    ) -> None:
        """The ids of one row differ from each other."""
        _edit(x, rows, ids, _BIAS, np.concatenate(values))


@register
class PenalizeCpu(OverLogits):
    op = "penalize"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        seen: Sequence[Ids],
        output: Sequence[Ids],
        repetition: Sequence[float],
        frequency: Sequence[float],
        presence: Sequence[float],
    ) -> None:
        """Repetition first, over the ids of `seen`; then frequency and presence over `output`."""
        count = len(rows)
        listed = (ctypes.c_int64 * count)(*rows)
        seen_offsets, seen_ids = _lay_out(seen)
        output_offsets, output_ids = _lay_out(output)
        factors = [(ctypes.c_float * count)(*some) for some in (repetition, frequency, presence)]
        native().run(
            _PENALIZE,
            _PenalizeArgs(
                x.data_ptr(), ctypes.addressof(listed),
                ctypes.addressof(seen_offsets), _address(seen_ids),
                ctypes.addressof(output_offsets), _address(output_ids),
                *[ctypes.addressof(some) for some in factors],
                count, x.stride(0), x.shape[1],
            ),
            num_threads(count, x.shape[1]),
        )  # fmt: skip


@register
class DivideRowsCpu(OverLogits):
    op = "divide_rows"

    def run(self, x: torch.Tensor, rows: Sequence[int], divisors: Sequence[float]) -> None:
        """A division in float32; rows with divisor 1 are not touched."""
        count = len(rows)
        listed, numbers = (ctypes.c_int64 * count)(*rows), (ctypes.c_float * count)(*divisors)
        native().run(
            _DIVIDE,
            _DivideArgs(
                x.data_ptr(), ctypes.addressof(listed), ctypes.addressof(numbers), count,
                x.stride(0), x.shape[1],
            ),
            num_threads(count, x.shape[1]),
        )  # fmt: skip


def _edit(
    x: torch.Tensor,
    rows: Sequence[int],
    ids: Sequence[Ids],
    mode: int,
    values: NDArray[np.float32] | None = None,
) -> None:
    listed = (ctypes.c_int64 * len(rows))(*rows)
    offsets, joined = _lay_out(ids)
    native().run(
        _EDIT,
        _EditArgs(
            x.data_ptr(), ctypes.addressof(listed), ctypes.addressof(offsets), _address(joined),
            None if values is None else _address(values), len(rows), x.stride(0), x.shape[1], mode, 0,
        ),
        num_threads(len(rows), x.shape[1]),
    )  # fmt: skip


def _lay_out(ids: Sequence[Ids]) -> tuple[ctypes.Array[ctypes.c_int64], Ids]:
    """Where the ids of each row begin, with the end of the last; and all of them, end to end."""
    offsets = (ctypes.c_int64 * (len(ids) + 1))()
    end = 0
    for at, one in enumerate(ids):
        offsets[at] = end
        end += len(one)
    offsets[len(ids)] = end
    joined = np.concatenate(ids) if len(ids) != 1 else np.ascontiguousarray(ids[0])
    return offsets, joined


def _address(array: NDArray[np.generic]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
