"""Mixers that blend each token with the one before it and weigh what came by decaying exponentials.

A recurrence takes its tokens one by one, from a state in the cache to a state in the cache: see
`ops.state`. Everything is computed in float32 and rounded once; states are never rounded.
"""

from __future__ import annotations

import torch

from quire.ops.gating import sigmoid
from quire.ops.registry import Provider, declare, register
from quire.ops.state import NO_BLOCK, StatePlan, StateView

TOKEN_SHIFT = declare(
    "token_shift",
    "planned",
    "run(x [T,C], shares [M,C], before, plan) -> [T,M,C], x blended with the token before it in M ways",
)
WKV = declare(
    "wkv",
    "planned",
    "run(key [T,D], value [T,D], gate [T,D], decay [D], first [D], states, plan) -> [T,D], "
    "sigmoid(gate) * means of values weighed by e^key, which decay",
)

NO_EXPONENT = -1e38
"""The largest exponent before the first token: e to its difference from any other is 0."""


@register
class TokenShiftReference(Provider):
    op = "token_shift"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        shares: torch.Tensor,
        before: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """out[t, m] = shares[m] * x[t] + (1 - shares[m]) * x[t - 1]; zeros are before the first token.

        x [T, C], rows may be strided; shares [M, C] float32; before: the last token's x [1, C].
        `out` [T, M, C] may not be x.
        """
        for piece in plan.pieces():
            rows = x[piece.begin : piece.end].to(torch.float32)
            seen = torch.cat([before.start(piece), rows])
            for place, share in enumerate(shares):
                blended = (rows * share).add_(seen[:-1] * (1.0 - share))
                out[piece.begin : piece.end, place] = blended.to(out.dtype)
            before.at(piece.target).copy_(seen[-1:])
        return out


@register
class WkvReference(Provider):
    op = "wkv"
    name = "reference"

    def run(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        gate: torch.Tensor,
        decay: torch.Tensor,
        first: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """out[t] = sigmoid(gate[t]) * (a + e^(first + key[t]) value[t]) / (b + e^(first + key[t])), then
        a = e^decay a + e^key[t] value[t] and b = e^decay b + e^key[t], for each of D numbers.

        key, value, gate [T, D], rows may be strided; decay (negative), first [D] float32. states [3, D]: a and
        b divided by e^c, and c, the largest exponent in them, so that nothing overflows. `out` [T, D] may be any
        of the three. Source: arXiv 2305.13048, appendix D.
        """
        for piece in plan.pieces():
            total, weight, most = states.start(piece)
            if piece.source == NO_BLOCK:
                most.fill_(NO_EXPONENT)
            for t in range(piece.begin, piece.end):
                exponent, added = key[t].to(torch.float32), value[t].to(torch.float32)
                now = first + exponent
                top = torch.maximum(most, now)
                old, new = torch.exp(most - top), torch.exp(now - top)
                mean = (old * total + new * added) / (old * weight + new)
                left = most + decay
                most = torch.maximum(left, exponent)
                old, new = torch.exp(left - most), torch.exp(exponent - most)
                total = old * total + new * added
                weight = old * weight + new
                out[t] = (sigmoid(gate[t].to(torch.float32)) * mean).to(out.dtype)
            states.at(piece.target).copy_(torch.stack((total, weight, most)))
        return out
