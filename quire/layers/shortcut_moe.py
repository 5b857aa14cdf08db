"""Experts whose result is wanted later than that of the part that all tokens pass, some of them without weights.

Experts whose result is added at once are `layers.moe`. Source: arXiv 2509.01322.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.mlp import GatedMlp
from quire.layers.moe import Experts, Router
from quire.ops.arena import Arena
from quire.ops.moe import ADD_IDENTITY, ExpertSizes, RouteRule
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, Formats


class ShortcutMoe:
    """Routed experts, of which the last `num_identity` give what they get, and a gated part of `shared_width`.

    Its parameters are those of `layers.moe.MoeMlp`; the router chooses among all experts, in float32.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: ExpertSizes,
        rule: RouteRule,
        *,
        num_identity: int,
        choice_bias: bool,
        shared_width: int,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self._num_experts = sizes.num_experts
        self._router = Router(
            table,
            name,
            size=sizes.size,
            num_experts=sizes.num_experts + num_identity,
            rule=rule,
            bias=False,
            choice_bias=choice_bias,
            dtype=dtype,
            router_dtype=torch.float32,
        )
        self._experts = Experts(table, name, sizes, bias=False, dtype=dtype, format=format)
        self._add_identity = table.bind(ADD_IDENTITY, dtype_name(dtype), C=sizes.size)
        self._shared = GatedMlp(
            table,
            f"{name}.shared",
            size=sizes.size,
            width=shared_width,
            act=sizes.act,
            bias=False,
            dtype=dtype,
            format=format,
        )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (self._router, self._experts, self._shared):
            part.load(weights)

    def __call__(
        self, x: torch.Tensor, arena: Arena, *, routed: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """Writes what the experts make of x [T, C] into `routed`, and the other part into `out`, which may be x."""
        ids, weights = self._router(x, arena)
        self._experts(x, ids, weights, arena, out=routed)
        self._add_identity(x, ids, weights, first=self._num_experts, out=routed)
        return self._shared(x, arena, out=out)
