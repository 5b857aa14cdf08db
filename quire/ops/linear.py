"""The product with a weight, which is most of what a model does.

The reference works in tiles of 64 rows padded with zeros, so that a row's bits do not depend on how
many rows came with it. Stored number formats other than plain floats belong to `quant`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quire.ops.quantized import (
    QuantizedWeight,
    StoredWeight,
    byte_product,
    float_product,
    integer_product,
    super_product,
)
from quire.ops.registry import Provider, declare, register

TILE_ROWS = 64
"""Rows of one product. Plain products choose their order of additions from the number of rows;
products of one constant shape do not depend on a row's place in the tile or on the other rows."""

LEAST_COLUMNS = 16
"""A product of fewer columns is made with rows of zeros under the weight: a library's kernels for narrow
results may treat the rows of a tile unlike, seen with MKL's on an AMD Zen 4."""

LINEAR = declare(
    "linear",
    "packed",
    "pack(weight [N,K], bias [N]); run(x [T,K], packed, delta [T,N]) -> x @ weight.T + delta + bias",
)


def widened(weight: torch.Tensor) -> torch.Tensor:
    """weight [N, K] itself, or with rows of zeros up to LEAST_COLUMNS."""
    missing = LEAST_COLUMNS - weight.shape[0]
    if missing <= 0:
        return weight
    return torch.cat((weight, weight.new_zeros(missing, weight.shape[1])))


@dataclass(frozen=True)
class PlainWeight:
    """A weight as it came: weight [N, K], bias [N] or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@register
class LinearReference(Provider):
    op = "linear"
    name = "reference"

    def pack(
        self, weight: torch.Tensor | QuantizedWeight, bias: torch.Tensor | None = None
    ) -> PlainWeight | StoredWeight:
        """Keeps weight [N, K] and bias [N] by reference."""
        if isinstance(weight, QuantizedWeight):
            return StoredWeight(weight, bias)
        return PlainWeight(weight, bias)

    def run(
        self,
        x: torch.Tensor,
        packed: PlainWeight | StoredWeight,
        *,
        delta: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x @ weight.T + delta + bias in float32, rounded once.

        x [T, K]; delta [T, N] float32; returns [T, N] in x's dtype, or `out` in that or in float32, where
        nothing is rounded. A weight of fewer bits meets x as `ops.quantized` says.
        """
        if isinstance(packed, StoredWeight):
            return _run_stored(x, packed, delta, out)
        num_columns = packed.weight.shape[0]
        weight = widened(packed.weight.to(torch.float32))  # [N, K]
        if out is None:
            out = x.new_empty(x.shape[0], num_columns)
        tile = torch.zeros(TILE_ROWS, weight.shape[1], dtype=torch.float32, device=x.device)
        for start in range(0, x.shape[0], TILE_ROWS):
            rows = x[start : start + TILE_ROWS]
            tile.zero_()
            tile[: rows.shape[0]] = rows
            product = torch.mm(tile, weight.t())[: rows.shape[0], :num_columns]  # [rows, N]
            if delta is not None:
                product += delta[start : start + TILE_ROWS]
            if packed.bias is not None:
                product += packed.bias.to(torch.float32)
            out[start : start + TILE_ROWS] = product
        return out


def tile_product(x: torch.Tensor, packed: PlainWeight | StoredWeight) -> torch.Tensor:
    """x [T, K] times a weight, plus its bias: [T, N] float32. Of a plain weight, T is at most TILE_ROWS."""
    if isinstance(packed, StoredWeight):
        product = _stored_product(x, packed)
    else:
        weight = widened(packed.weight.to(torch.float32))  # [N, K]
        tile = weight.new_zeros(TILE_ROWS, weight.shape[1])
        tile[: x.shape[0]] = x
        product = torch.mm(tile, weight.t())[: x.shape[0], : packed.weight.shape[0]]
    return product if packed.bias is None else product + packed.bias.to(torch.float32)


def _stored_product(x: torch.Tensor, packed: StoredWeight) -> torch.Tensor:
    if packed.weight.format.kind == "fp8":
        return float_product(x, packed.weight, TILE_ROWS)
    if packed.weight.format.has_byte_rows:
        return byte_product(x, packed.weight)
    if packed.weight.inner is not None:
        return super_product(x, packed.weight)
    return integer_product(x, packed.weight)


def _run_stored(
    x: torch.Tensor,
    packed: StoredWeight,
    delta: torch.Tensor | None,
    out: torch.Tensor | None,
) -> torch.Tensor:
    """`LinearReference.run` for a weight of fewer bits."""
    product = _stored_product(x, packed)
    if delta is not None:
        product += delta
    if packed.bias is not None:
        product += packed.bias.to(torch.float32)
    return product.to(x.dtype) if out is None else out.copy_(product)
