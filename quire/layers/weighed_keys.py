"""Attention in which each key adds to its scores a number that is made of its token's values.

All else is `layers.attention`.
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
from quire.ops.gating import TELL_KEYS
from quire.ops.registry import Table


class WeighedKeys(AttentionLayer):
    """AttentionLayer whose keys of head h add e^(rate[h] * softplus(steps(v)[h])); source: arXiv 2412.11834.

    That is a further number of the cached key, which queries have in turn; `sizes.told` are kept for it.
    Its parameters beyond those: `<name>.steps` [K, K * D], `<name>.rates` [K].
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        qkv_bias: bool,
        dtype: torch.dtype,
        **rest: Any,
    ) -> None:
        super().__init__(table, name, index, sizes, qkv_bias=qkv_bias, dtype=dtype, **rest)
        self._name, heads = name, sizes.num_kv_heads
        in_size = heads * sizes.value_size
        self._steps = Linear(
            table, f"{name}.steps", in_size=in_size, out_size=heads, bias=qkv_bias, dtype=dtype
        )
        tell = table.bind(TELL_KEYS, dtype_name(dtype), K=heads, D=sizes.head_size)
        self._tell = partial(tell, scale=sizes.scale)
        self._rates: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        super().load(weights)
        self._steps.load(weights)
        self._rates = weights(f"{self._name}.rates")

    def _told(self, q_and_k: torch.Tensor, v: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        num_tokens, heads, size = q_and_k.shape
        values = v.view(num_tokens, -1)
        room = ctx.arena.take((num_tokens, self._sizes.num_kv_heads), v.dtype)
        steps = self._steps(values, out=room)
        told = ctx.arena.take((num_tokens, heads, size + self._sizes.told), v.dtype)
        self._tell(q_and_k, steps, self._rates, out=told)
        return told
