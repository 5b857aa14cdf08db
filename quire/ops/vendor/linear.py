"""The product with a plain weight through torch's own matrix library, in tiles of constant shape.

The definition is in `ops.linear`; this differs in where it rounds: the product with its bias is
rounded to the weight's dtype by the library, and a delta is added to that.
"""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F

from quire.ops.linear import TILE_ROWS, PlainWeight
from quire.ops.registry import Provider, Signature, register

_DTYPES = ("float32", "bfloat16", "float16")


class _Pads(threading.local):
    """One buffer [TILE_ROWS, K] for each K and dtype and thread, for tiles that are not full."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def take(self, width: int, dtype: torch.dtype) -> torch.Tensor:
        key = (width, dtype)
        if key not in self.known:
            self.known[key] = torch.zeros(TILE_ROWS, width, dtype=dtype)
        return self.known[key]


@register
class LinearTorch(Provider):
    op = "linear"
    name = "torch"

    def __init__(self) -> None:
        self._pads = _Pads()

    def accepts(self, signature: Signature) -> str | None:
        if signature.device != "cpu":
            return f"its rows were shown to be independent on cpu only, not on {signature.device}"
        if signature.format != "plain":
            return f"it multiplies plain weights only, not {signature.format}"
        if signature.dtype not in _DTYPES:
            return f"it knows {', '.join(_DTYPES)}, not {signature.dtype}"
        return None

    def pack(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> PlainWeight:
        """weight [N, K] made contiguous, bias [N] in the weight's dtype."""
        return PlainWeight(
            weight.contiguous(), None if bias is None else bias.to(weight.dtype).contiguous()
        )

    def run(
        self,
        x: torch.Tensor,
        packed: PlainWeight,
        *,
        delta: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x @ weight.T + bias, rounded to x's dtype; then + delta, rounded again.

        x [T, K] in the weight's dtype, rows may be strided; delta [T, N] float32. Returns [T, N].
        A row whose delta is zero has the bits of the call without delta.
        """
        num_rows = x.shape[0]
        if out is None:
            out = x.new_empty(num_rows, packed.weight.shape[0])
        for start in range(0, num_rows, TILE_ROWS):
            rows = min(TILE_ROWS, num_rows - start)
            tile = x[start : start + rows]
            if rows < TILE_ROWS or not tile.is_contiguous():
                tile = self._pads.take(x.shape[1], x.dtype)
                tile[:rows] = x[start : start + rows]
                tile[rows:] = 0
            product = F.linear(tile, packed.weight, packed.bias)[:rows]  # [rows, N]
            if delta is not None:
                product = product.to(torch.float32) + delta[start : start + rows]
            out[start : start + rows] = product
        return out
