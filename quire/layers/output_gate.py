"""Gates of what the heads of an attention mixed, made by a product of the layer's input, or a norm of it.

Attention itself is `layers.attention`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import RmsNorm
from quire.ops.arena import Arena
from quire.ops.elementwise import ADD_GATED, ADD_ROW
from quire.ops.gating import MUL_SIGMOID, MUL_SOFTPLUS
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
        self._multiply(mixed, self._gates(x, mixed, arena), out=mixed)

    def _gates(self, x: torch.Tensor, mixed: torch.Tensor, arena: Arena) -> torch.Tensor:
        return self._product(x, out=arena.take(tuple(mixed.shape), x.dtype))


class BiasedGate(OutputGate):
    """OutputGate, to whose numbers one of each head is added before the sigmoid: `<name>.bias` [H]."""

    def __init__(
        self, table: Table, name: str, linear: Callable[..., Linear], **sizes: Any
    ) -> None:
        super().__init__(table, name, linear, **sizes)
        self._name, self._head_size = name, sizes["head_size"]
        width = sizes["num_heads"] * sizes["head_size"]
        self._add = table.bind(ADD_ROW, dtype_name(sizes["dtype"]), C=width)
        self._row: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        super().load(weights)
        self._row = weights(f"{self._name}.bias").repeat_interleave(self._head_size)

    def _gates(self, x: torch.Tensor, mixed: torch.Tensor, arena: Arena) -> torch.Tensor:
        gates = super()._gates(x, mixed, arena)
        self._add(gates, self._row, out=gates)
        return gates


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


class SoftplusGate:
    """A gate for each head, the softplus of a product `<name>` [H, C] of the layer's input."""

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
        self._multiply = table.bind(MUL_SOFTPLUS, dtype_name(dtype), H=num_heads, D=head_size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its weight."""
        self._product.load(weights)

    def __call__(self, x: torch.Tensor, mixed: torch.Tensor, arena: Arena) -> None:
        """Changes mixed [T, H * D] in place, by x [T, C]."""
        gates = self._product(x, out=arena.take((x.shape[0], self._heads[0]), x.dtype))
        heads = mixed.view(-1, *self._heads)
        self._multiply(heads, gates, out=heads)


class MixedNorm:
    """An RMS norm of what all heads mixed together; its parameter is `<name>.weight` [H * D]."""

    def __init__(
        self, table: Table, name: str, *, size: int, eps: float, dtype: torch.dtype
    ) -> None:
        self._norm = RmsNorm(table, name, size=size, eps=eps, dtype=dtype)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes its weight."""
        self._norm.load(weights)

    def __call__(self, x: torch.Tensor, mixed: torch.Tensor, arena: Arena) -> None:
        """Changes mixed [T, H * D] in place."""
        self._norm(mixed, out=mixed)


GATES: dict[str, Callable[..., OutputGate | HeadGate | SoftplusGate]] = {
    "numbers": OutputGate,
    "numbers_biased": BiasedGate,
    "heads": HeadGate,
    "heads_softplus": SoftplusGate,
}
"""The class by what has a gate of its own."""
KINDS = {
    (False, "sigmoid"): "numbers",
    (True, "sigmoid"): "heads",
    (True, "softplus"): "heads_softplus",
}
"""Keys of GATES by `gate_heads` and `gate_curve` of `models.spec.Attention`."""


def output_gates(
    kinds: tuple[str | None, float | None],
    table: Table,
    name: str,
    linear: Callable[..., Linear],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
) -> list[OutputGate | HeadGate | SoftplusGate | MixedNorm]:
    """What happens to mixed heads of attention `name`; shape is C, H and D.

    kinds  of a gate, and eps of a norm; None is none.
    """
    size, num_heads, head_size = shape
    kind, eps = kinds
    steps: list[OutputGate | HeadGate | SoftplusGate | MixedNorm] = []
    if kind is not None:
        sizes = {"size": size, "num_heads": num_heads, "head_size": head_size}
        steps.append(GATES[kind](table, f"{name}.gate", linear, **sizes, dtype=dtype))
    if eps is not None:
        whole = num_heads * head_size
        steps.append(MixedNorm(table, f"{name}.mixed_norm", size=whole, eps=eps, dtype=dtype))
    return steps
