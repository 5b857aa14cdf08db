"""Log-probabilities of chosen and best tokens, with their ranks.

Which rows want them, and taken at which stage, is `sampling.logprobs`' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from quire.ops.pieces import count_above, ids_from, kth_best, log_sum_exp
from quire.ops.registry import Provider, declare, register

TOP_LOGPROBS = declare(
    "top_logprobs",
    "pure",
    "run(x [B,V], chosen, counts, extra, normalize, rows) -> ids, values and ranks of each row",
)

TopRow = tuple[list[int], list[float], list[int]]
"""Ids, values and ranks of one row."""


@register
class TopLogprobsReference(Provider):
    op = "top_logprobs"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        chosen: Sequence[int],
        *,
        counts: Sequence[int],
        extra: Sequence[Sequence[int]],
        normalize: bool,
        rows: Sequence[int] | None = None,
    ) -> list[TopRow]:
        """For each row: the chosen id, its `counts` best in falling order, the ids in `extra`.

        rows       which rows of x; None is all.
        counts     for each row; -1 is the whole vocabulary.
        extra      for each row: further ids, reported in this order.
        normalize  whether values are log_softmax(x), or x itself; float32 either way.
        Ranks count from 1; of equal entries the lowest id is better.
        """
        found: list[TopRow] = []
        for at, choice in enumerate(chosen):
            line = x[at if rows is None else rows[at]]
            shift = log_sum_exp(line) if normalize else 0.0
            best = top_ids(
                line, line.shape[0] if counts[at] < 0 else min(counts[at], line.shape[0])
            )
            asked = [choice, *extra[at]]
            ids = torch.cat(
                [
                    torch.tensor(asked[:1], device=x.device),
                    best,
                    torch.tensor(asked[1:], device=x.device),
                ]
            )
            ids = ids.to(torch.int64)
            values = (line[ids].to(torch.float64) - shift).to(torch.float32)
            places = {token_id: place for place, token_id in enumerate(best.tolist(), 1)}
            ranks = [places.get(one) or rank(line, one) for one in asked]
            between = range(1, best.shape[0] + 1)
            found.append((ids.tolist(), values.tolist(), [ranks[0], *between, *ranks[1:]]))
        return found


def top_ids(line: torch.Tensor, count: int) -> torch.Tensor:
    """The ids of the `count` best entries, falling, ties to the lowest id; int64 [count]."""
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=line.device)
    if count == line.shape[0]:
        return line.sort(descending=True, stable=True).indices
    ids = ids_from(line, kth_best(line, count))
    return ids[line[ids].sort(descending=True, stable=True).indices[:count]]


def rank(line: torch.Tensor, token_id: int) -> int:
    """1 + the number of better entries; of equal entries those with a lower id are better."""
    value = float(line[token_id])
    return 1 + count_above(line, value) + int((line[:token_id] == value).sum())
