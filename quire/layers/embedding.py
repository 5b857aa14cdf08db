"""The two ends of a decoder: rows for token ids and positions, and logits for hidden states.

Which of the two share a weight is decided in `models.build`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear, read_to_pack
from quire.layers.rope import waves
from quire.ops.arena import Arena
from quire.ops.elementwise import ADD, SCALE, SOFT_CAP
from quire.ops.embedding import EMBEDDING, PUT_ROWS
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, Formats


class Embedding:
    """Token ids to rows of the table [V, C] times `scale`; its parameter is `<name>.weight`.

    scale  is rounded to `dtype` first, as models that use one were trained.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        vocab_size: int,
        size: int,
        scale: float,
        dtype: torch.dtype,
    ) -> None:
        self.name = name
        self._dtype = dtype
        self._size = size
        self._scale = float(torch.tensor(scale, dtype=dtype).item())
        self._rows = table.bind(EMBEDDING, dtype_name(dtype), V=vocab_size, C=size)
        self._put = table.bind(PUT_ROWS, dtype_name(dtype), C=size)
        self._packed: object = None

    def load(self, weights: Callable[[str], torch.Tensor], head: Linear | None = None) -> None:
        """Takes its parameter [V, C] and packs it, for a head that shares it too.

        Rows are then read from what the head has packed, where that can be.
        """
        name, provider = f"{self.name}.weight", self._rows.provider
        if head is None:
            self._packed = provider.pack(read_to_pack(weights, name, self._rows))
            return
        weight = None
        if not head.take_packed(weights):
            weight = read_to_pack(weights, name, self._rows, head.product)
            tied = getattr(weights, "tied", None)
            head.pack(weight if tied is None else tied(weight), head.bias_of(weights))
            head.keep_packed(weights)
        self._packed = provider.share(head.packed)
        if self._packed is None:
            weight = read_to_pack(weights, name, self._rows) if weight is None else weight
            self._packed = provider.pack(weight)

    def __call__(self, ctx: ForwardContext) -> torch.Tensor:
        """[T, C] in the arena: rows of ctx.ids, and ctx.embeds where it names rows."""
        out = ctx.arena.take((ctx.num_tokens, self._size), self._dtype)
        self._rows(ctx.ids, self._packed, scale=self._scale, out=out)
        if ctx.embeds is not None:
            self._put(out, ctx.embed_rows, ctx.embeds)
        return out


class AddedRows:
    """Adds a row of a table [rows, C] to each token: that of its position, or of its type.

    Its parameter: `<name>.weight`. A position at or past `rows` is an error of `ops.embedding`;
    lengths are limited long before.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        rows: int,
        size: int,
        dtype: torch.dtype,
        by_type: bool = False,
    ) -> None:
        self.name = name
        self._by_type = by_type
        self._num_rows, self._dtype, self._device = rows, dtype, table.device
        self._rows = table.bind(EMBEDDING, dtype_name(dtype), V=rows, C=size)
        self._add = table.bind(ADD, dtype_name(dtype), C=size)
        self._packed: object = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameter."""
        weight = read_to_pack(weights, f"{self.name}.weight", self._rows)
        self._packed = self._rows.provider.pack(weight)

    def __call__(self, hidden: torch.Tensor, ctx: ForwardContext) -> None:
        """Adds to hidden [T, C] in place."""
        mark = ctx.arena.mark()
        rows = ctx.arena.take(tuple(hidden.shape), hidden.dtype)
        which = ctx.types if self._by_type else ctx.positions[0]
        self._rows(which, self._packed, out=rows)
        self._add(hidden, rows, out=hidden)
        ctx.arena.release(mark)


class WaveRows(AddedRows):
    """AddedRows of `layers.rope.waves`, which are no parameter; the first position has the row `first`."""

    def __init__(self, *args: Any, size: int, first: int, **kwargs: Any) -> None:
        super().__init__(*args, size=size, **kwargs)
        self._size, self._first = size, first

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Makes and packs the table."""
        table = waves(self._num_rows, self._size, self._first)
        self._packed = self._rows.provider.pack(table.to(self._dtype).to(self._device))


class Head:
    """Hidden states [B, C] to logits [B, V], float32 from the product on: times `scale`, then capped if `softcap`."""

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        size: int,
        vocab_size: int,
        bias: bool = False,
        scale: float = 1.0,
        softcap: float,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.linear = Linear(
            table,
            name,
            in_size=size,
            out_size=vocab_size,
            bias=bias,
            dtype=dtype,
            format=format,
        )
        self._vocab_size = vocab_size
        self._finish: list[Callable[[torch.Tensor], torch.Tensor]] = []
        if scale != 1.0:
            multiply = table.bind(SCALE, "float32", C=vocab_size)
            self._finish.append(lambda x: multiply(x, factor=scale, out=x))
        if softcap:
            cap = table.bind(SOFT_CAP, "float32", C=vocab_size)
            self._finish.append(lambda x: cap(x, cap=softcap, out=x))

    def __call__(self, x: torch.Tensor, arena: Arena) -> torch.Tensor:
        """Logits in the arena."""
        logits = self.linear(x, out=arena.take((x.shape[0], self._vocab_size), torch.float32))
        for step in self._finish:
            logits = step(logits)
        return logits
