"""Attention whose queries are made of a few numbers that are normed first; keys and values as elsewhere.

All that follows the products is `layers.attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from quire.layers.attention import AttentionLayer, AttentionSizes
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import RmsNorm
from quire.ops.elementwise import SCALE
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, Formats


class LowRankAttention(AttentionLayer):
    """AttentionLayer with queries up(norm(down(x))), `rank` numbers between; source: arXiv 2412.19255.

    Its parameters: `<name>.qkv`, whose first part is down, `<name>.latent_norm` [rank] with eps `qk_eps`,
    `<name>.up`; and those of an AttentionLayer without biases of q, k and v.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        rank: int,
        qk_eps: float,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        **rest: Any,
    ) -> None:
        super().__init__(
            table, name, index, sizes, qk_eps=qk_eps, dtype=dtype, format=format, **rest
        )
        linear = partial(Linear, table, bias=False, dtype=dtype, format=format)
        queries, _, end = self._bounds
        self._rank, self._queries = rank, queries
        self._qkv = linear(f"{name}.qkv", in_size=sizes.size, out_size=rank + end - queries)
        self._norm = RmsNorm(table, f"{name}.latent_norm", size=rank, eps=qk_eps, dtype=dtype)
        self._copy = table.bind(SCALE, dtype_name(dtype), C=end - queries)
        self._up = linear(f"{name}.up", in_size=rank, out_size=queries)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        super().load(weights)
        self._norm.load(weights)
        self._up.load(weights)

    def _project(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        num_tokens, end = x.shape[0], self._bounds[2]
        qkv = ctx.arena.take((num_tokens, end), x.dtype)
        first = ctx.arena.take((num_tokens, self._rank + end - self._queries), x.dtype)
        self._qkv(x, out=first)
        latent, others = first[:, : self._rank], first[:, self._rank :]
        self._norm(latent, out=latent)
        self._up(latent, out=qkv[:, : self._queries])
        self._copy(others, factor=1.0, out=qkv[:, self._queries :])
        return qkv
