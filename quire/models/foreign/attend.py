"""Attention of a program that was written down: over the paged cache, as that of our own layers.

What stands before and behind it is `models.foreign.operations`'.
"""

from __future__ import annotations

from typing import Any

import torch

from quire.layers.cache_scales import CacheScales, with_scales
from quire.layers.context import ForwardContext
from quire.models.spec import Attention
from quire.ops.registry import Bound


class Attend:
    """One attention of a program: writes keys and values, then attends."""

    def __init__(self, index: int, attend: Bound, mixer: Attention, scales: CacheScales) -> None:
        self.attend, self._index = attend, index
        self.sinks: torch.Tensor | None = None
        numbers: dict[str, Any] = {"window": mixer.window, "softcap": mixer.softcap}
        if mixer.bidirectional:  # which a provider of causal attention does not know
            numbers["bidirectional"] = True
        self._to_write, self._numbers = with_scales(mixer.query_scale, scales, **numbers)

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        ctx: ForwardContext,
        out: torch.Tensor,
    ) -> None:
        """q [T, H, D], k and v [T, K, D], out [T, H, D]."""
        cache, plan = ctx.cached(self._index)
        self.attend.call("write", k, v, cache, plan, **self._to_write)
        self.attend(q, cache, plan, sinks=self.sinks, slopes=None, **self._numbers, out=out)
