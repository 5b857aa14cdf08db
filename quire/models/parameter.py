"""One parameter of a decoder: its shape, and what it is counted and kept as.

Which ones a description implies is `models.parameters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

ParameterGroup = Literal[
    "embedding",
    "attention",
    "latent",
    "state",
    "recurrent",
    "feed_forward",
    "router",
    "router_float32",
    "choice",
    "norm",
    "head",
    "other",
]


@dataclass(frozen=True)
class Parameter:
    """One parameter as the decoder holds it.

    parts  shapes of the pieces stacked along the first axis: one, or q, k and v, or gate and up.
    group  what the memory ledger counts it under.
    """

    parts: tuple[tuple[int, ...], ...]
    group: ParameterGroup

    @property
    def shape(self) -> tuple[int, ...]:
        if not self.parts[0]:  # a single number
            return ()
        return (sum(part[0] for part in self.parts), *self.parts[0][1:])

    @property
    def is_float32(self) -> bool:
        """Whether it is kept in float32 whatever the model's dtype."""
        return self.group in ("norm", "choice", "router_float32", "state")

    @property
    def numel(self) -> int:
        return prod(self.shape)
