"""The product with a plain weight through torch's own matrix library, in tiles of known shapes.

The definition is in `ops.linear`; this differs in where it rounds: the product with its bias is
rounded to the weight's dtype by the library, and a delta is added to that.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from quire.ops.linear import TILE_ROWS, PlainWeight, widened
from quire.ops.registry import Provider, Signature, register

_DTYPES = ("float32", "bfloat16", "float16")

_SMALL_TILES = (4, 16)
"""Smaller tiles that may stand in for a full one. A single row in a tile of 4 instead of 64 took a
fortieth of the time for a bf16 weight of 1024 x 2048 on a core with AVX-512 BF16."""


@dataclass(frozen=True)
class TorchWeight(PlainWeight):
    """A contiguous weight, widened, with the numbers of rows that its products may have, rising."""

    tiles: tuple[int, ...]
    num_columns: int


class _Pads(threading.local):
    """One buffer [TILE_ROWS, K] for each K and dtype and thread, for tiles that are not full."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, torch.dtype], torch.Tensor] = {}

    def take(self, width: int, dtype: torch.dtype) -> torch.Tensor:
        key = (width, dtype)
        if key not in self.known:
            with torch.inference_mode(False):  # so that it may be written in either mode
                self.known[key] = torch.zeros(TILE_ROWS, width, dtype=dtype)
        return self.known[key]


@register
class LinearTorch(Provider):
    op = "linear"
    name = "torch"

    def __init__(self) -> None:
        self._pads = _Pads()
        self._tiles: dict[tuple[int, int, torch.dtype, bool, int], tuple[int, ...]] = {}

    def accepts(self, signature: Signature) -> str | None:
        if signature.device != "cpu":
            return f"its rows were shown to be independent on cpu only, not on {signature.device}"
        if signature.format != "plain":
            return f"it multiplies plain weights only, not {signature.format}"
        if signature.dtype not in _DTYPES:
            return f"it knows {', '.join(_DTYPES)}, not {signature.dtype}"
        return None

    def pack(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> TorchWeight:
        """weight [N, K] made contiguous, bias [N] in the weight's dtype.

        The first weight of a shape is multiplied with random rows to see which small tiles give the
        bits of the full one; those that do not are never used for that shape.
        """
        num_columns = weight.shape[0]
        weight = widened(weight.contiguous())
        if bias is not None:
            bias = F.pad(bias.to(weight.dtype), (0, weight.shape[0] - num_columns)).contiguous()
        key = (*weight.shape, weight.dtype, bias is not None, torch.get_num_threads())
        if key not in self._tiles:
            self._tiles[key] = equal_tiles(weight, bias)
        return TorchWeight(weight, bias, self._tiles[key], num_columns)

    def run(
        self,
        x: torch.Tensor,
        packed: TorchWeight,
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
            out = x.new_empty(num_rows, packed.num_columns)
        for start in range(0, num_rows, TILE_ROWS):
            rows = min(TILE_ROWS, num_rows - start)
            tile = x[start : start + rows]
            size = next(size for size in packed.tiles if size >= rows)
            if rows < size or not tile.is_contiguous():
                tile = self._pads.take(x.shape[1], x.dtype)[:size]
                tile[:rows] = x[start : start + rows]
                tile[rows:] = 0
            product = F.linear(tile, packed.weight, packed.bias)[:rows, : packed.num_columns]
            if delta is not None:
                product = product.to(torch.float32) + delta[start : start + rows]
            out[start : start + rows] = product
        return out


def equal_tiles(weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[int, ...]:
    """The tile sizes, the full one last, whose products with this weight [N, K] have equal bits.

    A size counts if every row of a full tile keeps its bits in a small one, wherever it stands there.
    """
    random = torch.Generator().manual_seed(weight.shape[1])
    x = torch.randn(TILE_ROWS, weight.shape[1], generator=random).to(weight.dtype)
    if not weight.any():  # not loaded yet, or all zero: nothing can be seen
        weight = torch.randn(weight.shape, generator=random).to(weight.dtype)
    full = F.linear(x, weight, bias)  # [TILE_ROWS, N]
    return (*(size for size in _SMALL_TILES if _same(x, weight, bias, full, size)), TILE_ROWS)


def _same(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    full: torch.Tensor,
    size: int,
) -> bool:
    starts = range(0, TILE_ROWS - size + 1, max(size // 2, 1))
    return all(
        torch.equal(
            F.linear(x[start : start + size].clone(), weight, bias), full[start : start + size]
        )
        for start in starts
    )
