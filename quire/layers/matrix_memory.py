"""A matrix of keys and values for each head, with gates: products around `ops.matrix_memory`.

States and the plan of a step come from the worker. Source: arXiv 2503.13427.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.elementwise import SOFT_CAP
from quire.ops.gating import MUL_SIGMOID
from quire.ops.matrix_memory import MATRIX_MEMORY
from quire.ops.norm import LAYER_NORM
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, Formats


@dataclass(frozen=True, kw_only=True)
class MatrixMemorySizes:
    """The numbers of one layer, as in `models.recurrent.MatrixMemory`; size is C."""

    size: int
    num_heads: int
    key_size: int
    value_size: int
    cap: float
    eps: float
    norm_eps: float


class MatrixMemoryLayer:
    """x [T, C] to [T, C] for mixer `index`.

    Its parameters: `<name>.in` [2 H K + 2 H V, C] of queries, keys, values and what gates the result, `<name>.gates`
    [2 H, C] with a bias, those of what enters before those of what stays, `<name>.norm.weight` [H V] float32,
    `<name>.back` [C, H V].
    """

    attends = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: MatrixMemorySizes,
        *,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index, self._name, self._sizes = index, name, sizes
        at, heads = dtype_name(dtype), sizes.num_heads
        self._keys, self._values = heads * sizes.key_size, heads * sizes.value_size
        linear = partial(Linear, table, dtype=dtype)
        self._wide = 2 * (self._keys + self._values)
        plain = partial(linear, bias=False, format=format)
        self._in = plain(f"{name}.in", in_size=sizes.size, out_size=self._wide)
        self._gates = linear(f"{name}.gates", in_size=sizes.size, out_size=2 * heads, bias=True)
        self._cap = table.bind(SOFT_CAP, at, C=2 * heads)
        self._run = table.bind(MATRIX_MEMORY, at, H=heads, K=sizes.key_size, V=sizes.value_size)
        self._norm = table.bind(LAYER_NORM, at, C=sizes.value_size)
        self._multiply = table.bind(MUL_SIGMOID, at, C=self._values)
        self._back = plain(f"{name}.back", in_size=self._values, out_size=sizes.size)
        self._weight: torch.Tensor | None = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._in.load(weights)
        self._gates.load(weights)
        weight = weights(f"{self._name}.norm.weight")
        self._weight = weight.view(self._sizes.num_heads, -1)
        self._back.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Brings the states forward; writes [T, C] into `out`, which may be x."""
        (states,), plan = ctx.cached(self.index)
        sizes, count = self._sizes, x.shape[0]
        made = self._in(x, out=ctx.arena.take((count, self._wide), x.dtype))
        gates = self._gates(x, out=ctx.arena.take((count, 2 * sizes.num_heads), x.dtype))
        self._cap(gates, cap=sizes.cap, out=gates)
        keys, values = self._keys, self._values
        q, k, v = made[:, :keys], made[:, keys : 2 * keys], made[:, 2 * keys : 2 * keys + values]
        opened = made[:, 2 * keys + values :]
        mixed = ctx.arena.take((count, self._values), x.dtype)
        heads = mixed.view(count, sizes.num_heads, -1)
        q, k, v = (part.view(count, sizes.num_heads, -1) for part in (q, k, v))
        self._run(q, k, v, gates, states, plan, eps=sizes.eps, out=heads)
        self._norm(heads, self._weight, None, eps=sizes.norm_eps, out=heads)
        self._multiply(mixed, opened, out=mixed)
        return self._back(mixed, out=out)
