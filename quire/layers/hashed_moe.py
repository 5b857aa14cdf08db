"""The feed-forward part whose experts are told by the token alone: a table has those of each.

Parts whose experts are chosen by a router are `layers.moe`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.moe import Experts
from quire.layers.shared_part import SharedPart
from quire.ops.arena import Arena
from quire.ops.elementwise import TO_FLOAT32
from quire.ops.moe import ExpertSizes, RouteRule
from quire.ops.registry import Table
from quire.ops.route_root import ROUTE_TOKENS
from quire.protocol.errors import ModelLoadError
from quire.quant.formats import PLAIN, Formats


class HashedMoe:
    """Routed experts, weighed by a router in float32, and a part of `shared_width` that all tokens pass.

    Its parameters are those of `layers.moe.MoeMlp`, and `<name>.chosen` [V, k], the experts of each token.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: ExpertSizes,
        rule: RouteRule,
        *,
        shared_width: int,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self._name = name
        self._num_experts, self._rule = sizes.num_experts, rule
        self._widen = table.bind(TO_FLOAT32, dtype_name(dtype), C=sizes.size)
        self._router = Linear(
            table,
            f"{name}.router",
            in_size=sizes.size,
            out_size=sizes.num_experts,
            bias=False,
            dtype=torch.float32,
        )
        self._route = table.bind(ROUTE_TOKENS, "float32", E=sizes.num_experts, K=rule.top_k)
        self._experts = Experts(table, name, sizes, bias=False, dtype=dtype, format=format)
        self._shared = SharedPart(
            table,
            name,
            sizes,
            size=sizes.size,
            width=shared_width,
            has_gate=False,
            dtype=dtype,
            format=format,
        )
        self._chosen = torch.empty(0)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters. Raises ModelLoadError for an expert that there is not."""
        chosen = weights(f"{self._name}.chosen")
        if chosen.min() < 0 or chosen.max() >= self._num_experts:
            raise ModelLoadError(
                f"{self._name}.chosen sends tokens to experts {int(chosen.min())} to {int(chosen.max())}, "
                f"but there are {self._num_experts}"
            )
        self._chosen = chosen.to(torch.int32)
        for part in (self._router, self._experts, self._shared):
            part.load(weights)

    def __call__(
        self, x: torch.Tensor, tokens: torch.Tensor, arena: Arena, *, out: torch.Tensor
    ) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x; tokens [T] int64."""
        num_tokens, top_k = x.shape[0], self._rule.top_k
        wide = self._widen(x, out=arena.take(tuple(x.shape), torch.float32))
        logits = self._router(wide, out=arena.take((num_tokens, self._num_experts), torch.float32))
        ids = arena.take((num_tokens, top_k), torch.int32)
        weights = arena.take((num_tokens, top_k), torch.float32)
        self._route(logits, self._rule, tokens=tokens, table=self._chosen, ids=ids, weights=weights)
        made = self._experts(x, ids, weights, arena, out=arena.take(tuple(x.shape), x.dtype))
        return self._shared(x, made, arena, out=out)
