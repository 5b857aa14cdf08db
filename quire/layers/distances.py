"""What distances from query to key add to scores, as attention takes it: slopes, or learned numbers.

Adding them to scores is `ops.attention`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Buckets:
    """Which distances share a number; fields as in `models.spec.Distances`."""

    count: int
    farthest: int
    both_ways: bool

    def of(self, distance: int) -> int:
        """The bucket of a key `distance` positions behind the query; negative: before it.

        Source: arXiv 1910.10683 and its published code; powers in the place of logarithms, which round.
        """
        count, first = self.count, 0
        if self.both_ways:
            count //= 2
            first = count if distance > 0 else 0
            away = abs(distance)
        else:
            away = max(-distance, 0)
        near = count // 2
        if away < near:
            return first + away
        wide, step = count - near, 0
        # The largest step with away / near >= (farthest / near) ** (step / wide).
        while (
            step + 1 < wide
            and away**wide * near ** (step + 1) >= self.farthest ** (step + 1) * near**wide
        ):
            step += 1
        return first + near + step

    def spread(self, scores: torch.Tensor) -> torch.Tensor:
        """[H, 2 M + 1] float32 for the distances -M to M = farthest, of scores [buckets, H]."""
        distances = range(-self.farthest, self.farthest + 1)
        index = torch.tensor([self.of(one) for one in distances], device=scores.device)
        return scores.float()[index].t().contiguous()


def alibi_slopes(num_heads: int) -> torch.Tensor:
    """[H] float32: powers of 2^(-8/n) for the largest power of two n up to H, then those in between.

    Source: arXiv 2108.12409.
    """
    whole = 1 << (num_heads.bit_length() - 1)
    exponents = [-8.0 * (place + 1) / whole for place in range(whole)]
    exponents += [-4.0 * (2 * place + 1) / whole for place in range(num_heads - whole)]
    return torch.tensor([2.0**exponent for exponent in exponents], dtype=torch.float32)
