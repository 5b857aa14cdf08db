"""Gates of what the heads of an attention mixed: the sigmoid of a product of the layer's input.

Attention itself is `layers.attention`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.arena import Arena
from quire.ops.elementwise import ADD_GATED
from quire.ops.gating import MUL_SIGMOID
from quire.ops.registry import Table


class OutputGate:
    """A gate for each number, of a product `<name>` [H * D, C] of the layer's input."""

    def __init__(
        self,
        table: Table,
        name: str,
        linear: Callable[..., Linear],
        *,
        size: int,
        num_heads: int,
        head_size: int,
        dtype: torch.dtype,
    ) -> None:
        width = num_heads * head_size
        self._product = linear(name, in_size=size, out_size=width, bias=False)
        self._multiply = table.bind(MUL_SIGMOID, dtype_name(dtype), C=width)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its weight."""
        self._product.load(weights)

    def __call__(self, x: torch.Tensor, mixed: torch.Tensor, arena: Arena) -> None:
        """Changes mixed [T, H * D] in place, by x [T, C]."""
        gates = self._product(x, out=arena.take(tuple(mixed.shape), x.dtype))
        self._multiply(mixed, gates, out=mixed)


class HeadGate:
    """A gate for each head, of a product `<name>` [H, C] of the layer's input."""

    def __init__(
        self,
        table: Table,
        name: str,
        linear: Callable[..., Linear],
        *,
        size: int,
        num_heads: int,
        head_size: int,
        dtype: torch.dtype,
    ) -> None:
        self._heads = (num_heads, head_size)
        self._product = linear(name, in_size=size, out_size=num_heads, bias=False)
        self._add_gated = table.bind(ADD_GATED, dtype_name(dtype), C=head_size)
        self._nothing = torch.zeros((1, head_size), dtype=dtype, device=table.device)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its weight."""
        self._product.load(weights)

    def __call__(self, x: torch.Tensor, mixed: torch.Tensor, arena: Arena) -> None:
        """Changes mixed [T, H * D] in place, by x [T, C]."""
        num_heads, head_size = self._heads
        gates = self._product(x, out=arena.take((x.shape[0], num_heads), x.dtype))
        heads, count = mixed.view(-1, head_size), x.shape[0] * num_heads
        self._add_gated(self._nothing.expand(count, -1), heads, gates.view(count, 1), out=heads)


GATES: dict[str, Callable[..., OutputGate | HeadGate]] = {
    "numbers": OutputGate,
    "heads": HeadGate,
}
"""The class by what has a gate of its own."""


def output_gates(
    kind: str | None,
    table: Table,
    name: str,
    linear: Callable[..., Linear],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
) -> list[OutputGate | HeadGate]:
    """The gate of a kind, or nothing for None; shape is C, H and D."""
    size, num_heads, head_size = shape
    made = [] if kind is None else [GATES[kind]]
    return [
        make(table, name, linear, size=size, num_heads=num_heads, head_size=head_size, dtype=dtype)
        for make in made
    ]
