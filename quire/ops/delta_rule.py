"""The gated delta rule: a matrix for each head that forgets, is corrected by each token, and answers it.

For a token with query q, key k, value v, of a head with the matrix S [Dk, Dv]:
    S *= decay;  S += k (strength * (v - k S));  answer = q S
Convolutions before it and gates behind it are other operations. Source: arXiv 2412.06464; a decay of each
channel of a key: arXiv 2510.26692; without the correction: arXiv 2401.04658.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quire.ops.gating import sigmoid
from quire.ops.registry import Provider, declare, register
from quire.ops.state import StatePlan, StateView

DELTA_RULE = declare(
    "delta_rule",
    "pure",
    "run(qkv [T,2 Hk Dk + H Dv], decay, strength, rule, states, plan) -> [T,H,Dv]: a matrix a head, token by token",
)

UNIT_EPS = 1e-6
"""Added to the sum of squares of a query or key that is made to have length 1."""

_SOFTPLUS_END = 20.0  # above it softplus(x) is x in float32


@dataclass(frozen=True)
class DeltaRule:
    """The numbers of one layer.

    key_heads   Hk; a head of them serves H / Hk neighbouring heads.
    in_turns    it serves every Hk-th head instead.
    unit        queries and keys are divided by their lengths.
    scale       factor of queries, after that.
    strength    factor of the sigmoid of a token's strength, or the strength itself where no token has one.
    corrects    what the matrix says to the key is taken off the value; without it values are added whole.
    bound       not 0: the most that a matrix forgets in a token, as `Forgetting` says.
    """

    key_heads: int
    heads: int
    key_size: int
    value_size: int
    unit: bool = True
    scale: float = 1.0
    strength: float = 1.0
    corrects: bool = True
    in_turns: bool = False
    bound: float = 0.0

    @property
    def width(self) -> int:
        """Numbers of a token's queries, keys and values together."""
        return 2 * self.key_heads * self.key_size + self.heads * self.value_size


@dataclass(frozen=True)
class Forgetting:
    """How matrices forget: decay = e^(-rate * softplus(x + bias)), x of the token; or e^(-rate).

    Of a rule with a bound decay = e^(-bound * sigmoid(rate * (x + bias))).

    rate  [H] float32.
    bias  [H] float32: one decay a head; [H, Dk]: one for each channel of a key; None: no token has an x.
    """

    rate: torch.Tensor
    bias: torch.Tensor | None

    @property
    def by_channel(self) -> bool:
        return self.bias is not None and self.bias.dim() == 2


@register
class DeltaRuleReference(Provider):
    op = "delta_rule"
    name = "reference"

    def run(
        self,
        qkv: torch.Tensor,
        decay: torch.Tensor | None,
        strength: torch.Tensor | None,
        rule: DeltaRule,
        forgetting: Forgetting,
        view: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Writes the answers [T, H, Dv] of packed tokens, rounded once, and their matrices into `view`.

        qkv       [T, 2 Hk Dk + H Dv]: all queries, all keys, all values.
        decay     [T, H], or [T, H * Dk], or None, as `forgetting` has it; strength [T, H] or None.
        view      matrices [H, Dk, Dv] float32; plan says whose token goes on from which block.
        All in one dtype, computed in float32, one token after the other. `out` may not be qkv.
        """
        for piece in plan.pieces():
            state = view.start(piece)  # [H, Dk, Dv]
            for token in range(piece.begin, piece.end):
                q, k, v = _heads(qkv[token].to(torch.float32), rule)
                state *= _left(None if decay is None else decay[token], rule, forgetting)
                news = v - (state * k).sum(1) if rule.corrects else v
                if strength is not None:
                    news = news * sigmoid(strength[token].to(torch.float32)).unsqueeze(-1)
                state += k * (news * rule.strength).unsqueeze(1)
                out[token] = (state * q).sum(1)
            view.at(piece.target).copy_(state)
        return out


def _heads(row: torch.Tensor, rule: DeltaRule) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k [H, Dk, 1] and v [H, Dv] of one token's row."""
    keys = rule.key_heads * rule.key_size
    q, k = row[: 2 * keys].view(2, rule.key_heads, rule.key_size)
    if rule.unit:
        q, k = (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + UNIT_EPS) for x in (q, k))
    repeats = rule.heads // rule.key_heads
    q = q * rule.scale
    if rule.in_turns:
        q, k = (x.repeat(repeats, 1) for x in (q, k))
    else:
        q, k = (x.repeat_interleave(repeats, 0) for x in (q, k))
    return q.unsqueeze(-1), k.unsqueeze(-1), row[2 * keys :].view(rule.heads, -1)


def _left(x: torch.Tensor | None, rule: DeltaRule, forgetting: Forgetting) -> torch.Tensor:
    """What is left of a matrix after one token: [H, 1, 1] or [H, Dk, 1]."""
    rate = forgetting.rate.unsqueeze(-1)
    if x is None or forgetting.bias is None:
        return torch.exp(-rate).unsqueeze(-1)
    y = x.to(torch.float32).view(rate.shape[0], -1) + forgetting.bias.view(rate.shape[0], -1)
    if rule.bound:
        return torch.exp(-rule.bound * sigmoid(rate * y)).unsqueeze(-1)
    return torch.exp(-rate * softplus(y)).unsqueeze(-1)


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + e^x), float32 in and out."""
    return torch.where(x > _SOFTPLUS_END, x, torch.log1p(torch.exp(x.clamp(max=_SOFTPLUS_END))))
