"""What stands between a decoder's final norm and its output matrix, in the few models that have it.

The output matrix is `layers.embedding.Head`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import Norm
from quire.ops.arena import Arena
from quire.ops.elementwise import ACT
from quire.ops.registry import Table


class BeforeHead:
    """norm(act(product(x))) for x [B, C]; the product is `<name>` [C, C].

    act  of `ops.elementwise`. norm: of C numbers, with its own name.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        size: int,
        act: str,
        bias: bool,
        norm: Norm,
        dtype: torch.dtype,
    ) -> None:
        self._product = Linear(table, name, in_size=size, out_size=size, bias=bias, dtype=dtype)
        self._act_name = act
        self._act = table.bind(ACT, dtype_name(dtype), C=size)
        self._norm = norm

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._product.load(weights)
        self._norm.load(weights)

    def __call__(self, x: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[B, C] in the arena; x is used up."""
        made = self._product(x, out=arena.take(tuple(x.shape), x.dtype))
        self._act(made, act=self._act_name, out=made)
        return self._norm(made, out=x)
