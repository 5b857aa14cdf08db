"""Attention in which what the second half of the heads mixed is taken off what the first half mixed.

All that comes before is `layers.attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import exp
from typing import Any

import torch

from quire.layers.attention import AttentionLayer, AttentionSizes
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.elementwise import ADD
from quire.ops.norm import RMS_NORM
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, Formats


class PairedAttention(AttentionLayer):
    """AttentionLayer whose head h becomes head h - share * head (h + H / 2), RMS normed; source: arXiv 2410.05258.

    Values have twice the numbers of keys, so that half of the heads fill the product back.
    Its parameters beyond those: `<name>.halves` [4 D], of which the share is made: e to the product of the first
    two D, minus e to that of the last two, plus `first`. What is normed is multiplied by 1 - `first`.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        first: float,
        qk_eps: float,
        out_bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        **rest: Any,
    ) -> None:
        kinds: dict[str, Any] = {"qk_eps": qk_eps, "out_bias": out_bias, "dtype": dtype}
        super().__init__(table, name, index, sizes, format=format, **kinds, **rest)
        self._name, self._first, self._share = name, first, 0.0
        self._pairs = (sizes.num_heads // 2, sizes.value_size)
        half = sizes.num_heads // 2 * sizes.value_size
        self._add = table.bind(ADD, dtype_name(dtype), C=half)
        norm = table.bind(RMS_NORM, dtype_name(dtype), C=sizes.value_size)
        weight = torch.full((sizes.value_size,), 1 - first, device=table.device)
        self._norm = partial(norm, weight=weight, eps=qk_eps)
        linear = partial(Linear, table, dtype=dtype, format=format)
        self._out = linear(f"{name}.out", in_size=half, out_size=sizes.size, bias=out_bias)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        super().load(weights)
        vectors = weights(f"{self._name}.halves").view(2, 2, -1).tolist()
        one, other = (sum(a * b for a, b in zip(*pair, strict=True)) for pair in vectors)
        self._share = exp(one) - exp(other) + self._first

    def _finish(
        self, x: torch.Tensor, mixed: torch.Tensor, ctx: ForwardContext, out: torch.Tensor
    ) -> torch.Tensor:
        rows = mixed.view(x.shape[0], self._mixed)
        first, second = rows.chunk(2, dim=1)
        self._add(first, second, scale=-self._share, out=first)
        normed = ctx.arena.take((x.shape[0], *self._pairs), x.dtype)
        self._norm(first.view(-1, *self._pairs), out=normed)
        return self._out(normed.view(x.shape[0], -1), out=out)
