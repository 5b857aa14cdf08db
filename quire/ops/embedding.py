"""Rows of the embedding table for token ids, and rows put in their place from outside.

Leaves the head's product with the same table to `ops.linear`.
"""

from __future__ import annotations

import torch

from quire.ops.registry import Provider, declare, register

EMBEDDING = declare(
    "embedding",
    "packed",
    "pack(weight [V,C]); run(ids [T], packed, scale) -> [T,C], rows of the table times scale",
)
PUT_ROWS = declare(
    "put_rows", "pure", "run(x [T,C] in place, rows [E], values [E,C]): x[rows] = values"
)

KNOWN_IDS = declare(
    "known_ids", "pure", "run(ids [T], limit) -> [T], 0 for an id of limit or above"
)


@register
class EmbeddingReference(Provider):
    op = "embedding"
    name = "reference"

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """The table as it is: weight [V, C], kept by reference."""
        return weight

    def share(self, packed: object) -> object | None:
        """What `run` may read instead of its own table: a `linear`'s packed form of it; or None."""
        return None

    def run(
        self,
        ids: torch.Tensor,
        packed: torch.Tensor,
        *,
        scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Row ids[t] of the table, times `scale`.

        ids [T] int64, each below V. Returns [T, C] in the table's dtype; the multiplication is in
        float32 with one rounding, and left out when scale is 1. An id outside raises IndexError, or gives
        a row of NaN where a provider does not look at ids.
        """
        if out is None:
            out = packed.new_empty(ids.shape[0], packed.shape[1])
        torch.index_select(packed, 0, ids, out=out)
        if scale != 1.0:
            out.copy_(out.to(torch.float32) * scale)
        return out


@register
class PutRowsReference(Provider):
    op = "put_rows"
    name = "reference"

    def run(self, x: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Overwrites rows of x, in place; returns x.

        x [T, C]; rows [E] int64, all different; values [E, C], converted to x's dtype.
        Raises IndexError for a row that x does not have.
        """
        return x.index_copy_(0, rows, values.to(x.dtype))


@register
class KnownIdsReference(Provider):
    op = "known_ids"
    name = "reference"

    def run(
        self, ids: torch.Tensor, *, limit: int, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """ids [T] int64, those that a table of `limit` rows lacks as 0."""
        out = torch.empty_like(ids) if out is None else out
        return torch.mul(ids, ids < limit, out=out)
