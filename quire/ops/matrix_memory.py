"""Matrices that forget and take keys and values in by gates whose exponents are kept beside them.

A recurrence takes its tokens one by one, from a state in the cache to a state in the cache: see `ops.state`.
Everything is computed in float32 and rounded once; states are never rounded.
"""

from __future__ import annotations

import torch

from quire.ops.gating import softplus
from quire.ops.registry import Provider, declare, register
from quire.ops.state import StatePlan, StateView

MATRIX_MEMORY = declare(
    "matrix_memory",
    "planned",
    "run(q [T,H,K], k [T,H,K], v [T,H,V], gates [T,2H], states, plan, eps) -> [T,H,V], what each query reads of a "
    "matrix of keys and values, weighed by e^gate, over what it reads of their weights",
)


@register
class MatrixMemoryReference(Provider):
    op = "matrix_memory"
    name = "reference"

    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        gates: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        eps: float,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """For each head: matrix = sigmoid(f) matrix + e^i k v' and sums = sigmoid(f) sums + e^i k, then
        out[t] = q' matrix / (max(|q' sums|, 1) + eps e^m), q divided by the root of K.

        q, k [T, H, K], v [T, H, V], gates [T, 2 H], i of all heads before f; rows may be strided. states
        [H, K + 1, V + 1]: matrix and sums beside each other, both divided by e^m, and m, the largest exponent in
        them and at first 0, in the first place of the last row. `out` [T, H, V] may be v.
        Source: arXiv 2503.13427.
        """
        heads, scale = q.shape[1], q.shape[2] ** -0.5
        one = torch.ones(heads, 1, device=q.device)
        for piece in plan.pieces():
            state = states.start(piece)
            both, most = state[:, :-1], state[:, -1, 0]
            for t in range(piece.begin, piece.end):
                enters, stays = gates[t].to(torch.float32).view(2, heads)
                left = most - softplus(-stays)
                most = torch.maximum(left, enters)
                kept, added = torch.exp(left - most), torch.exp(enters - most)
                keys = k[t].to(torch.float32) * added.unsqueeze(-1)
                values = torch.cat((v[t].to(torch.float32), one), dim=1)
                both *= kept.view(-1, 1, 1)
                both += keys.unsqueeze(2) * values.unsqueeze(1)
                query = q[t].to(torch.float32) * scale
                read = (both * query.unsqueeze(2)).sum(1)  # [H, V + 1]
                weight = torch.maximum(read[:, -1].abs(), torch.exp(-most)) + eps
                out[t] = (read[:, :-1] / weight.unsqueeze(-1)).to(out.dtype)
            state[:, -1, 0] = most
            states.at(piece.target).copy_(state)
        return out
