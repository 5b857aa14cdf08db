"""Attention in which a router chooses, for each token, some of the heads that share one head of keys.

All that comes before is `layers.attention`; how a choice is made is `ops.moe`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quire.layers.attention import AttentionLayer, AttentionSizes
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.moe import Router
from quire.ops.moe import WEIGH_SETS, RouteRule
from quire.ops.registry import Table


class ChosenHeads(AttentionLayer):
    """AttentionLayer of which `top_k` sets of heads count, one head of each k in each; source: arXiv 2404.07413.

    What the heads of a set mixed is multiplied by the set's weight, a softmax over the chosen ones, and by 0 where
    the set is not chosen. Its parameters beyond those: `<name>.router` [H / K, C].
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        top_k: int,
        dtype: torch.dtype,
        **rest: Any,
    ) -> None:
        super().__init__(table, name, index, sizes, dtype=dtype, **rest)
        sets = sizes.num_heads // sizes.num_kv_heads
        self._shape = (sizes.num_kv_heads, sets, sizes.value_size)
        self._router = Router(
            table,
            name,
            size=sizes.size,
            num_experts=sets,
            rule=RouteRule(top_k=top_k),
            bias=False,
            choice_bias=False,
            dtype=dtype,
            router_dtype=dtype,
        )
        self._weigh = table.bind(WEIGH_SETS, dtype_name(dtype), E=sets, D=sizes.value_size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        super().load(weights)
        self._router.load(weights)

    def _finish(
        self, x: torch.Tensor, mixed: torch.Tensor, ctx: ForwardContext, out: torch.Tensor
    ) -> torch.Tensor:
        ids, weights = self._router(x, ctx.arena)
        heads = mixed.view(-1, *self._shape)
        self._weigh(heads, ids, weights, out=heads)
        return super()._finish(x, mixed, ctx, out)
