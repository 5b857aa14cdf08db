"""Several residual streams: what each layer reads of them, and how it writes and mixes them.

What stands between is `models.hyper_layers`' business; the arithmetic is `ops.hyper`. Source: arXiv 2512.24880.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import PlainNorm
from quire.ops.arena import Arena
from quire.ops.elementwise import SCALE, TO_FLOAT32
from quire.ops.hyper import READ_STREAMS, STREAM_SHARES, WRITE_STREAMS
from quire.ops.registry import Table


class HyperConnection:
    """Shares of the streams x [T, S, C]: to read them, and as `num_shares` says to write and to mix them too.

    Its parameters, float32: `<name>.weight` [W, S * C], `<name>.base` [W], `<name>.scale` [1, 2 or 3].

    num_shares  W: S, S + S to write too, or S + S + S * S.
    most        of what a part made a stream gets; that and rounds as in `ops.hyper`.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        count: int,
        size: int,
        num_shares: int,
        rounds: int,
        eps: float,
        most: float,
        norm_eps: float,
        dtype: torch.dtype,
    ) -> None:
        self._name = name
        self._count = count
        self._rule = {"count": count, "rounds": rounds, "eps": eps, "most": most}
        self._width = num_shares
        wide, kind = count * size, dtype_name(dtype)
        self._widen = table.bind(TO_FLOAT32, kind, C=wide)
        self._norm = PlainNorm(table, wide, norm_eps, torch.float32)
        self._product = Linear(
            table, name, in_size=wide, out_size=self._width, bias=False, dtype=torch.float32
        )
        self._shares = table.bind(STREAM_SHARES, "float32", S=count)
        self._read = table.bind(READ_STREAMS, kind, S=count, C=size)
        self._write = table.bind(WRITE_STREAMS, kind, S=count, C=size)
        self._scale = self._base = torch.empty(0)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._product.load(weights)
        self._scale, self._base = (weights(f"{self._name}.{part}") for part in ("scale", "base"))

    def read(self, streams: torch.Tensor, arena: Arena) -> tuple[torch.Tensor, torch.Tensor]:
        """What a part reads of the streams [T, C], and the shares [T, W] float32; both from the arena."""
        num_tokens, _, size = streams.shape
        x = arena.take((num_tokens, size), streams.dtype)
        shares = arena.take((num_tokens, self._width), torch.float32)
        mark = arena.mark()
        flat = streams.view(num_tokens, -1)
        wide = self._widen(flat, out=arena.take(tuple(flat.shape), torch.float32))
        self._product(self._norm(wide, arena), out=shares)
        arena.release(mark)
        self._shares(shares, self._scale, self._base, **self._rule)
        return self._read(streams, shares, out=x), shares

    def write(self, streams: torch.Tensor, made: torch.Tensor, shares: torch.Tensor) -> None:
        """Mixes the streams [T, S, C] in place and adds what a part made [T, C]."""
        self._write(streams, made, shares)


class HyperEnds:
    """The two ends: an embedding [T, C] to equal streams [T, S, C], and streams to the hidden state [T, C]."""

    def __init__(self, table: Table, closing: HyperConnection, count: int, dtype: torch.dtype):
        self._closing, self._count = closing, count
        self._copy = table.bind(SCALE, dtype_name(dtype))

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._closing.load(weights)

    def open(self, hidden: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[T, S, C] from the arena."""
        streams = arena.take((hidden.shape[0], self._count, hidden.shape[1]), hidden.dtype)
        for stream in range(self._count):
            self._copy(hidden, factor=1.0, out=streams[:, stream])
        return streams

    def shown(self, streams: torch.Tensor) -> torch.Tensor:
        """The first stream [T, C]."""
        return streams[:, 0]

    def close(self, streams: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[T, C] from the arena: the streams by their shares."""
        return self._closing.read(streams, arena)[0]
