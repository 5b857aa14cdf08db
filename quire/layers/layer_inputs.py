"""What every layer gets of a token beside the residual stream: numbers of its own from a table and a product.

Gemma 3n and 4 have them. Where they enter a layer is `models.decoder_layers`' business.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear, read_to_pack
from quire.layers.norm import Norm, RmsNorm
from quire.ops.elementwise import ACT, ADD, SCALE
from quire.ops.embedding import EMBEDDING, KNOWN_IDS
from quire.ops.registry import Table
from quire.ops.streams import MULTIPLY
from quire.quant.formats import PLAIN, Formats


class LayerInputs:
    """Tokens and their embeddings [T, C] to [T, L, P]: a row of a table and a normed product, added.

    Its parameters: `<name>.table` [V, L * P], `<name>.product` [L * P, C], `<name>.norm` [P]. A token that the
    table lacks has the row of token 0.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        vocab_size: int,
        num_layers: int,
        input_size: int,
        size: int,
        eps: float,
        dtype: torch.dtype,
    ) -> None:
        kind, width = dtype_name(dtype), num_layers * input_size
        self._name = name
        self._shape = (num_layers, input_size)
        self._limit = vocab_size
        self._row_scale, self._product_scale, self._both_scale = (
            float(torch.tensor(scale, dtype=dtype).item())
            for scale in (input_size**0.5, size**-0.5, 2.0**-0.5)
        )
        self._known = table.bind(KNOWN_IDS, "int64")
        self._rows = table.bind(EMBEDDING, kind, V=vocab_size, C=width)
        self._product = Linear(
            table, f"{name}.product", in_size=size, out_size=width, bias=False, dtype=dtype
        )
        self._norm = RmsNorm(table, f"{name}.norm", size=input_size, eps=eps, dtype=dtype)
        self._scale = table.bind(SCALE, kind, C=width)
        self._add = table.bind(ADD, kind, C=width)
        self._packed: object = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        weight = read_to_pack(weights, f"{self._name}.table.weight", self._rows)
        self._packed = self._rows.provider.pack(weight)
        self._product.load(weights)
        self._norm.load(weights)

    def __call__(self, hidden: torch.Tensor, ctx: ForwardContext) -> None:
        """Sets `ctx.layer_inputs` for embeddings hidden [T, C]."""
        arena, num_tokens = ctx.arena, hidden.shape[0]
        shape = (num_tokens, self._shape[0] * self._shape[1])
        rows, made = arena.take(shape, hidden.dtype), arena.take(shape, hidden.dtype)
        ids = self._known(ctx.ids, limit=self._limit, out=arena.take((num_tokens,), torch.int64))
        self._rows(ids, self._packed, scale=self._row_scale, out=rows)
        self._product(hidden, out=made)
        self._scale(made, factor=self._product_scale, out=made)
        parts = made.view(num_tokens, *self._shape)
        self._norm(parts, out=parts)
        self._add(made, rows, out=made)
        self._scale(made, factor=self._both_scale, out=made)
        ctx.layer_inputs = parts


class InputPart:
    """norm(up(act(gate(x)) * a layer's own input)) for x [T, C].

    Its parameters: `<name>.gate` [P, C], `<name>.up` [C, P], `<name>.norm` [C]. number  the layer's.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        number: int,
        *,
        size: int,
        input_size: int,
        act: str,
        norm: Callable[[str], Norm],
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self._number = number
        self._width = input_size
        self._act_name = act
        self._gate = Linear(
            table,
            f"{name}.gate",
            in_size=size,
            out_size=input_size,
            bias=False,
            dtype=dtype,
            format=format,
        )
        self._act = table.bind(ACT, dtype_name(dtype), F=input_size)
        self._multiply = table.bind(MULTIPLY, dtype_name(dtype), C=input_size)
        self._up = Linear(
            table,
            f"{name}.up",
            in_size=input_size,
            out_size=size,
            bias=False,
            dtype=dtype,
            format=format,
        )
        self._norm = norm(f"{name}.norm")

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (self._gate, self._up, self._norm):
            part.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        assert ctx.layer_inputs is not None
        gated = self._gate(x, out=ctx.arena.take((x.shape[0], self._width), x.dtype))
        self._act(gated, act=self._act_name, out=gated)
        self._multiply(gated, ctx.layer_inputs[:, self._number], out=gated)
        self._up(gated, out=out)
        return self._norm(out, out=out)
