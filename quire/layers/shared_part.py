"""The part of a mixture of experts that all tokens pass.

The routed ones are `layers.moe`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.mlp import FEED_FORWARDS
from quire.ops.arena import Arena
from quire.ops.elementwise import ADD, ADD_GATED
from quire.ops.moe import ExpertSizes
from quire.ops.registry import Table
from quire.quant.formats import Formats


class SharedPart:
    """made + g * mlp(x), where g is 1, or if it `has_gate` the sigmoid of a product of x; mlp as the experts are."""

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: ExpertSizes,
        *,
        size: int,
        width: int,
        has_gate: bool,
        dtype: torch.dtype,
        format: Formats,
    ) -> None:
        self._mlp = FEED_FORWARDS[sizes.gated](
            table,
            f"{name}.shared",
            size=size,
            width=width,
            act=sizes.act,
            bias=False,
            dtype=dtype,
            format=format,
            **({"limit": sizes.limit, "gate_limit": sizes.gate_limit} if sizes.gated else {}),
        )
        self._gate: Linear | None = None
        if has_gate:
            self._gate = Linear(
                table, f"{name}.shared_gate", in_size=size, out_size=1, bias=False, dtype=dtype
            )
            self._add_gated = table.bind(ADD_GATED, dtype_name(dtype), C=size)
        self._add = table.bind(ADD, dtype_name(dtype), C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._mlp.load(weights)
        if self._gate is not None:
            self._gate.load(weights)

    def __call__(
        self, x: torch.Tensor, made: torch.Tensor, arena: Arena, *, out: torch.Tensor
    ) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        if self._gate is None:
            self._add(made, self._mlp(x, arena, out=out), out=out)
            return out
        gate = self._gate(x, out=arena.take((x.shape[0], 1), x.dtype))
        self._add_gated(made, self._mlp(x, arena, out=out), gate, out=out)
        return out
