"""Experts weighed by the root of a softplus of their logits; chosen by that, or by the token alone.

Other ways to choose, and what the experts make, are in `ops.moe`. Source: the DeepSeek V4 report, section 2.1.
"""

from __future__ import annotations

import torch

from quire.ops.gating import softplus
from quire.ops.moe import RouteRule
from quire.ops.registry import Provider, declare, register

ROUTE_ROOT = declare(
    "route_root",
    "pure",
    "run(logits [T,E], rule, bias [E]) -> the k best experts of each token, their weights [T,k]",
)
ROUTE_TOKENS = declare(
    "route_tokens",
    "pure",
    "run(logits [T,E], rule, tokens [T], table [V,k]) -> the experts of each token, their weights [T,k]",
)


@register
class RouteRootReference(Provider):
    op = "route_root"
    name = "reference"

    def run(
        self,
        logits: torch.Tensor,
        rule: RouteRule,
        *,
        bias: torch.Tensor | None = None,
        ids: torch.Tensor,
        weights: torch.Tensor,
    ) -> None:
        """Writes ids [T, k] int32 and weights [T, k] float32, the best expert first.

        logits [T, E] in any dtype; bias [E] float32 is added for the choice only. Equal choices go to the
        lower expert. Of the rule top_k, normalize and scale count.
        """
        scores = torch.sqrt(softplus(logits.to(torch.float32)))
        choices = scores if bias is None else scores + bias
        order = torch.sort(choices, dim=-1, descending=True, stable=True).indices[:, : rule.top_k]
        ids.copy_(order)
        weights.copy_(_weighed(scores.gather(-1, order), rule))


@register
class RouteTokensReference(Provider):
    op = "route_tokens"
    name = "reference"

    def run(
        self,
        logits: torch.Tensor,
        rule: RouteRule,
        *,
        tokens: torch.Tensor,
        table: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
    ) -> None:
        """Writes ids [T, k] int32, rows of the table [V, k] int32, and weights [T, k] float32.

        tokens [T] int64, each below V. Of the rule normalize and scale count.
        """
        scores = torch.sqrt(softplus(logits.to(torch.float32)))
        chosen = table.index_select(0, tokens)
        ids.copy_(chosen)
        weights.copy_(_weighed(scores.gather(-1, chosen.to(torch.int64)), rule))


def _weighed(found: torch.Tensor, rule: RouteRule) -> torch.Tensor:
    if rule.normalize:
        total = found[:, :1].clone()
        for place in range(1, found.shape[1]):
            total += found[:, place : place + 1]
        found = found / (total + 1e-20)
    return found * rule.scale
