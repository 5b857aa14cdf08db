"""Root-mean-square norms with their weight, alone or joined with the residual addition before them.

Variants such as 1 + w are folded into the weight when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.ops.norm import ADD_RMS_NORM, RMS_NORM
from quire.ops.registry import Table


class RmsNorm:
    """x / rms(x) * weight over the last axis; its parameter is `<name>.weight` [C] float32."""

    def __init__(
        self, table: Table, name: str, *, size: int, eps: float, dtype: torch.dtype
    ) -> None:
        self.name = name
        self._eps = eps
        self._norm = table.bind(RMS_NORM, dtype_name(dtype), C=size)
        self._weight: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameter."""
        self._weight = weights(f"{self.name}.weight")

    def __call__(self, x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        """Writes the norm of x [..., C] into `out` of the same shape, which may be x."""
        self._norm(x, self._weight, eps=self._eps, out=out)
        return out


class AddRmsNorm:
    """residual += x, then the norm of the sum; its parameter is `<name>.weight` [C] float32."""

    def __init__(
        self, table: Table, name: str, *, size: int, eps: float, dtype: torch.dtype
    ) -> None:
        self.name = name
        self._eps = eps
        self._norm = table.bind(ADD_RMS_NORM, dtype_name(dtype), C=size)
        self._weight: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its parameter."""
        self._weight = weights(f"{self.name}.weight")

    def __call__(
        self, x: torch.Tensor, residual: torch.Tensor, *, out: torch.Tensor
    ) -> torch.Tensor:
        """Adds x [T, C] to `residual` in place; the norm of the sum goes to `out`, maybe x."""
        self._norm(x, residual, self._weight, eps=self._eps, out=out)
        return out
