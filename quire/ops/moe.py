"""Mixtures of experts: which experts a token is sent to, and what they make of it.

A router's logits come from `linear`. Experts shared by all tokens are ordinary feed-forward parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from quire.ops.elementwise import activation
from quire.ops.linear import TILE_ROWS, PlainWeight, tile_product
from quire.ops.quantized import QuantizedWeight, StoredWeight
from quire.ops.registry import Provider, declare, register

Scoring = Literal["softmax", "sigmoid", "logit", "sparse", "softplus_root"]
"""What a logit becomes: its share of all experts, or its own sigmoid; "logit": that, but experts are chosen by the
logit itself; "sparse" is `route_sparse`'s, and the last one `ops.route_root`'s."""

ROUTE = declare(
    "route",
    "pure",
    "run(logits [T,E], rule, bias [E]) -> the k best experts of each token, their weights [T,k]",
)
ROUTE_SPARSE = declare(
    "route_sparse",
    "pure",
    "run(logits [T,E], rule) -> the k best experts of each token, each weighed among those near it [T,k]",
)
WEIGH_CHOSEN = declare(
    "weigh_chosen",
    "pure",
    "run(weights [T,k] in place, ids [T,k], factors [E]): each weight times its expert's factor",
)
WEIGH_SETS = declare(
    "weigh_sets",
    "pure",
    "run(x [T,K,E,D], ids [T,k], weights [T,k]) -> x times the weight of e where ids have it, else 0",
)
EXPERTS = declare(
    "experts",
    "packed",
    "room(sizes, ...); put(packed, e, weights); run(x [T,C], ids [T,k], weights [T,k]) -> [T,C]",
)
ADD_IDENTITY = declare(
    "add_identity",
    "pure",
    "run(x [T,C], ids [T,k], weights [T,k], first, out [T,C] in place): out += x times weights of ids from first on",
)


@dataclass(frozen=True)
class RouteRule:
    """How a token's experts are chosen and weighed.

    top_k       experts of a token, 1 to 32.
    normalize   divide the weights of the chosen by their sum: with "softmax" their shares of each other.
    scale       factor of the weights.
    groups      the experts stand in so many groups of one size, of which the `top_groups` best are kept.
    group_best  a group counts as the sum of so many of its best choices: 1 or 2.
    jitter      of "sparse": an expert is near another if it falls short by at most twice this part.
    """

    top_k: int
    scoring: Scoring = "softmax"
    normalize: bool = True
    scale: float = 1.0
    groups: int = 1
    top_groups: int = 1
    group_best: int = 1
    jitter: float = 0.0


@dataclass(frozen=True)
class ExpertSizes:
    """E experts, each down(act(gate(x)) * up(x)), or down(act(up(x))) if not `gated`: x [C], gate and up [F].

    act    as in `act_mul`, or "swiglu_clamped": (clamp(up, ±limit) + 1) * g * sigmoid(1.702 g) where g is
           the gate, at most `limit`; that one is of gated ones only.
    limit  with another act: gate(x) is at most so much, up(x) within it on both sides; 0 is none.
    gate_limit  of the gate, if not 0, instead of `limit`.
    weigh_inputs  a weight multiplies gate and up, before they are rounded, instead of what comes down.
    """

    num_experts: int
    size: int
    width: int
    act: str
    limit: float = 0.0
    weigh_inputs: bool = False
    gated: bool = True
    gate_limit: float = 0.0

    @property
    def halves(self) -> int:
        """How many numbers of F stand beside each other before the activation."""
        return 2 if self.gated else 1


@register
class RouteReference(Provider):
    op = "route"
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
        lower expert. Source of groups and biases: arXiv 2412.19437.
        """
        x = logits.to(torch.float32)
        scores = _shares(x) if rule.scoring == "softmax" else _sigmoid(x)
        choices = x if rule.scoring == "logit" else scores
        choices = choices if bias is None else choices + bias
        if rule.groups > 1:
            choices = _within_groups(choices, rule)
        order = torch.sort(choices, dim=-1, descending=True, stable=True).indices[:, : rule.top_k]
        found = scores.gather(-1, order)
        if rule.normalize:
            found = found / (found.sum(-1, keepdim=True) + 1e-20)
        ids.copy_(order)
        weights.copy_(found * rule.scale)


@register
class RouteSparseReference(Provider):
    op = "route_sparse"
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

        logits [T, E] in any dtype. An expert's weight is its softmax among those that are left and near it:
        whose logit x is at most 2 * jitter * max(|x|, best) below the best. Equal logits go to the lower
        expert. The rule's other fields and bias are not used. Source: arXiv 2409.12136.
        """
        x = logits.to(torch.float32)
        order = torch.sort(x, dim=-1, descending=True, stable=True).indices[:, : rule.top_k]
        left = x
        for place in range(rule.top_k):
            best = left.gather(-1, order[:, place : place + 1])
            far = (best - x) / torch.maximum(x.abs(), best) > 2 * rule.jitter
            powers = torch.exp(left - best).masked_fill(far, 0.0)
            weights[:, place] = 1.0 / powers.sum(-1)
            left = left.scatter(-1, order[:, place : place + 1], -math.inf)
        ids.copy_(order)


@register
class AddIdentityReference(Provider):
    op = "add_identity"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        *,
        first: int,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """What experts add that give what they get: out [T, C] += x [T, C] * a row's weights of ids >= first, summed.

        ids [T, k] int32; weights [T, k] float32, added up in their order. One rounding to the dtype of out.
        """
        factors = torch.zeros(x.shape[0], dtype=torch.float32, device=x.device)
        for place in range(ids.shape[1]):
            factors += torch.where(ids[:, place] >= first, weights[:, place], 0.0)
        return out.copy_(out.to(torch.float32) + factors[:, None] * x.to(torch.float32))


@register
class WeighChosenReference(Provider):
    op = "weigh_chosen"
    name = "reference"

    def run(self, weights: torch.Tensor, ids: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        """weights *= factors[ids]: weights [T, k] float32 in place, ids [T, k] int32, factors [E] float32."""
        return weights.mul_(factors[ids.to(torch.int64)])


@register
class WeighSetsReference(Provider):
    op = "weigh_sets"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x[t, :, e] times the weight of e among ids[t], or 0 where e is not there; one rounding. `out` may be x.

        x [T, K, E, D]; ids [T, k] int32, no two of a token alike; weights [T, k] float32.
        """
        factors = torch.zeros(x.shape[0], x.shape[2], device=x.device)
        factors.scatter_(1, ids.to(torch.int64), weights)
        made = x.to(torch.float32) * factors[:, None, :, None]
        return (torch.empty_like(x) if out is None else out).copy_(made)


def _shares(x: torch.Tensor) -> torch.Tensor:
    """The softmax over the last axis."""
    powers = torch.exp(x - x.amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def _sigmoid(x: torch.Tensor) -> torch.Tensor:
    return 1.0 / (torch.exp(-x) + 1.0)


def _within_groups(choices: torch.Tensor, rule: RouteRule) -> torch.Tensor:
    """choices [T, E] with -inf in the groups that are not among the best."""
    grouped = choices.view(choices.shape[0], rule.groups, -1)  # [T, groups, E / groups]
    best = grouped.topk(rule.group_best, dim=-1).values.sum(-1)
    order = torch.sort(best, dim=-1, descending=True, stable=True).indices[:, : rule.top_groups]
    kept = torch.zeros_like(best, dtype=torch.bool).scatter_(-1, order, True)
    return grouped.masked_fill(~kept.unsqueeze(-1), -math.inf).view_as(choices)


@dataclass(frozen=True)
class PlainExperts:
    """What the reference keeps of each expert, with biases: gate and up [2F, C], or up alone [F, C]; down [C, F]."""

    sizes: ExpertSizes
    gate_up: dict[int, PlainWeight | StoredWeight]
    down: dict[int, PlainWeight | StoredWeight]


@register
class ExpertsReference(Provider):
    op = "experts"
    name = "reference"

    def room(
        self, sizes: ExpertSizes, *, dtype: torch.dtype, format: str, bias: bool
    ) -> PlainExperts:
        """Room for the experts' weights, which `put` fills."""
        return PlainExperts(sizes, {}, {})

    def put(
        self,
        packed: PlainExperts,
        expert: int,
        gate_up: torch.Tensor | QuantizedWeight,
        down: torch.Tensor | QuantizedWeight,
        gate_up_bias: torch.Tensor | None = None,
        down_bias: torch.Tensor | None = None,
    ) -> None:
        """Takes one expert's weights: gate_up [2F, C], the gate first; down [C, F]; biases [2F] and [C].

        Of experts without a gate gate_up is up alone, [F, C] and [F].
        """
        packed.gate_up[expert] = _kept(gate_up, gate_up_bias)
        packed.down[expert] = _kept(down, down_bias)

    def run(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        packed: PlainExperts,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """The sum over a token's experts, in their order, of weight * down(act(gate(x)) * up(x)).

        x [T, C]; ids [T, k] int32, those from E on of experts that are not here; weights [T, k] float32; out [T, C],
        which may be x.
        With `weigh_inputs` the weights multiply gate and up instead. gate and up are rounded to x's
        dtype, and so is their product; what comes down stays float32 until it is summed up.
        """
        sizes = packed.sizes
        total = torch.zeros(x.shape[0], sizes.size, dtype=torch.float32, device=x.device)
        made = torch.zeros(
            *ids.shape, sizes.size, dtype=torch.float32, device=x.device
        )  # [T, k, C]
        for expert in sorted(set(ids.flatten().tolist())):
            if expert >= sizes.num_experts:
                continue
            tokens, places = torch.nonzero(ids == expert, as_tuple=True)
            for start in range(0, len(tokens), TILE_ROWS):
                rows = slice(start, start + TILE_ROWS)
                wide = tile_product(x[tokens[rows]], packed.gate_up[expert])
                if sizes.weigh_inputs:
                    wide *= weights[tokens[rows], places[rows], None]
                gated = gate(wide.to(x.dtype), sizes)
                made[tokens[rows], places[rows]] = tile_product(gated, packed.down[expert])
        for place in range(ids.shape[1]):
            total += made[:, place] * (1.0 if sizes.weigh_inputs else weights[:, place, None])
        return out.copy_(total)


def _kept(
    weight: torch.Tensor | QuantizedWeight, bias: torch.Tensor | None
) -> PlainWeight | StoredWeight:
    if isinstance(weight, QuantizedWeight):
        return StoredWeight(weight, bias)
    return PlainWeight(weight, bias)


def gate(wide: torch.Tensor, sizes: ExpertSizes) -> torch.Tensor:
    """wide [T, 2F], or [T, F] of experts without a gate, as [T, F] in the same dtype, rounded once."""
    if not sizes.gated:
        return activation(sizes.act)(wide.to(torch.float32)).to(wide.dtype)
    act, limit = sizes.act, sizes.limit
    first, up = wide.to(torch.float32).chunk(2, dim=-1)
    if limit:
        first, up = first.clamp(max=sizes.gate_limit or limit), up.clamp(-limit, limit)
    if act == "swiglu_clamped":
        return ((up + 1.0) * (first * _sigmoid(1.702 * first))).to(wide.dtype)
    return (activation(act)(first) * up).to(wide.dtype)
