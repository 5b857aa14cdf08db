"""Streams beside the residual stream: each layer foretells all of them, and corrects them by what it made.

Gemma 3n has them. What stands between the two is `models.decoder_layers`' business. Source: arXiv 2301.13310.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import RmsNorm
from quire.ops.arena import Arena
from quire.ops.elementwise import ADD, SCALE, SOFT_CAP
from quire.ops.registry import Table
from quire.ops.streams import CORRECT_STREAMS, MATCH_SIZE, MIX_STREAMS

_LEAST_SQUARE = 1e-5
"""What the mean of squares of a stream counts as at least, where it gets another's size."""


class Streams:
    """The two ends: an embedding [T, C] to streams [S, T, C], and streams to the hidden state [T, C].

    Its parameters: `<name>.open.<i>` and `<name>.close.<i>` [C, C] for each stream but the first.
    """

    def __init__(
        self, table: Table, name: str, *, count: int, active: int, size: int, dtype: torch.dtype
    ) -> None:
        kind = dtype_name(dtype)
        self._count, self._active = count, active
        self._open, self._close = (
            [
                Linear(
                    table, f"{name}.{end}.{i}", in_size=size, out_size=size, bias=False, dtype=dtype
                )
                for i in range(count - 1)
            ]
            for end in ("open", "close")
        )
        self._match = table.bind(MATCH_SIZE, kind, C=size)
        self._add = table.bind(ADD, kind, C=size)
        self._scale = table.bind(SCALE, kind, C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for product in (*self._open, *self._close):
            product.load(weights)

    def open(self, hidden: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[S, T, C] from the arena: the embedding, and products of it of its size."""
        streams = arena.take((self._count, *hidden.shape), hidden.dtype)
        self._scale(hidden, factor=1.0, out=streams[0])
        for product, stream in zip(self._open, streams[1:], strict=True):
            product(hidden, out=stream)
            self._match(stream, hidden, eps=_LEAST_SQUARE, out=stream)
        return streams

    def shown(self, streams: torch.Tensor) -> torch.Tensor:
        """The stream [T, C] that layers compute with."""
        return streams[self._active]

    def close(self, streams: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[T, C] from the arena: the mean of the first stream and of products of the others of its size."""
        total, made = (arena.take(tuple(streams.shape[1:]), streams.dtype) for _ in range(2))
        self._scale(streams[0], factor=1.0, out=total)
        for product, stream in zip(self._close, streams[1:], strict=True):
            product(stream, out=made)
            self._match(made, streams[0], eps=_LEAST_SQUARE, out=made)
            self._add(total, made, out=total)
        self._scale(total, factor=1.0 / self._count, out=total)
        return total


class AltUp:
    """One layer's foretelling and correction; the `active` stream is what it computes with.

    Its parameters: `<name>.router` [S, C] with the norm `<name>.router_norm`, `<name>.predict` [S * S, S],
    `<name>.correct` [S, S].
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        count: int,
        active: int,
        size: int,
        eps: float,
        dtype: torch.dtype,
    ) -> None:
        kind = dtype_name(dtype)
        self._active, self._count = active, count
        self._norm = RmsNorm(table, f"{name}.router_norm", size=size, eps=eps, dtype=dtype)
        self._router, self._predict, self._correct = (
            Linear(table, f"{name}.{part}", in_size=width, out_size=made, bias=False, dtype=dtype)
            for part, width, made in (
                ("router", size, count),
                ("predict", count, count * count),
                ("correct", count, count),
            )
        )
        self._tanh = table.bind(SOFT_CAP, kind, C=count)
        self._mix = table.bind(MIX_STREAMS, kind, S=count, C=size)
        self._amend = table.bind(CORRECT_STREAMS, kind, S=count, C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._norm.load(weights)
        for product in (self._router, self._predict, self._correct):
            product.load(weights)

    def _modes(self, x: torch.Tensor, arena: Arena) -> torch.Tensor:
        """What x [T, C] says of the streams [T, S], each within -1 and 1."""
        normed = self._norm(x, out=arena.take(tuple(x.shape), x.dtype))
        modes = self._router(normed, out=arena.take((x.shape[0], self._count), x.dtype))
        self._tanh(modes, cap=1.0, out=modes)
        return modes

    def predict(self, streams: torch.Tensor, arena: Arena) -> torch.Tensor:
        """[S, T, C] from the arena: what the layer expects the streams [S, T, C] to become."""
        modes = self._modes(streams[self._active], arena)
        room = arena.take((modes.shape[0], self._count**2), streams.dtype)
        shares = self._predict(modes, out=room)
        expected = arena.take(tuple(streams.shape), streams.dtype)
        self._mix(streams, shares, out=expected)
        return expected

    def correct(
        self, expected: torch.Tensor, made: torch.Tensor, arena: Arena, *, out: torch.Tensor
    ) -> None:
        """Writes to `out` the expected streams [S, T, C], moved by what was made [T, C] instead of the active."""
        modes = self._modes(made, arena)
        shares = self._correct(modes, out=arena.take(tuple(modes.shape), modes.dtype))
        self._amend(expected, made, shares, active=self._active, out=out)
