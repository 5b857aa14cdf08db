"""What native row operations read from a tensor: rows, strides, codes of types.

Memory is never copied or moved here; what each operation does with it is in the files beside this one.
"""

from __future__ import annotations

import torch

from quire.ops.cpu.library import refuses
from quire.ops.cpu.structs import DTYPES
from quire.ops.registry import Provider, Signature

CODES = {getattr(torch, name): number for name, number in DTYPES.items()}
"""The kernels' number of each torch dtype."""


class RowProvider(Provider):
    """A native operation on rows, which takes every plain signature on a CPU."""

    name = "cpu"

    def accepts(self, signature: Signature) -> str | None:
        return refuses(signature)


def plane(x: torch.Tensor) -> tuple[int, int, int]:
    """(rows, width, elements from row to row): x [T, C] with any distance of rows, or dense.

    Raises ValueError for another layout.
    """
    shape, strides = x.shape, x.stride()
    if len(shape) == 2 and strides[1] == 1:
        return shape[0], shape[1], strides[0]
    if x.is_contiguous():
        size = x.numel()
        return 1, size, size
    raise ValueError(
        f"a native row operation got shape {tuple(shape)} with strides {strides}; it takes "
        "[T, C] with neighbours in a row, or a contiguous tensor: call contiguous() before"
    )


def heads(x: torch.Tensor) -> tuple[int, int, int, int, int]:
    """(rows, heads, width, elements from row to row, from head to head) of x [..., C].

    x is [T, C] or [T, H, C], whose rows and heads may be any distance apart, or contiguous.
    Raises ValueError for another layout.
    """
    strides, shape = x.stride(), x.shape
    if strides[-1] == 1 or shape[-1] == 1:
        if len(shape) == 3:
            return shape[0], shape[1], shape[2], strides[0], strides[1]
        if len(shape) == 2:
            return shape[0], 1, shape[1], strides[0], 0
        if x.is_contiguous():
            width = shape[-1]
            return x.numel() // max(width, 1), 1, width, width, 0
    raise ValueError(
        f"a native row operation got shape {tuple(shape)} with strides {strides}; it takes "
        "[T, C] or [T, H, C] with neighbours in a row: call contiguous() before"
    )


def floats(table: torch.Tensor) -> int:
    """The address of a weight or table. Raises TypeError if it is not contiguous float32."""
    if table.dtype is not torch.float32 or not table.is_contiguous():
        raise TypeError(
            f"a native row operation got a weight or table of {table.dtype} with strides "
            f"{table.stride()}; it takes contiguous float32: convert it when it is loaded"
        )
    return table.data_ptr()


def indices(numbers: torch.Tensor) -> int:
    """The address of indices [n]. Raises TypeError if they are not contiguous int64."""
    if numbers.dtype is not torch.int64 or not numbers.is_contiguous():
        raise TypeError(
            f"a native row operation got indices of {numbers.dtype} with strides "
            f"{numbers.stride()}; it takes contiguous int64"
        )
    return numbers.data_ptr()
