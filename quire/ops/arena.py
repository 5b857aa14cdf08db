"""Scratch memory of one step, at addresses that do not move from step to step.

Who takes what is the layers' business; the worker resets it before each step.
"""

from __future__ import annotations

from math import prod

import torch

_ALIGNMENT = 64  # bytes: one cache line and one AVX-512 register


class Arena:
    """A stack of bytes. The same sequence of `take` calls gives the same addresses.

    Grows by new chunks when a step needs more than any before; chunks never move or shrink.
    """

    def __init__(self, device: torch.device, chunk_bytes: int = 64 << 20) -> None:
        self._device = device
        self._chunk_bytes = chunk_bytes
        self._chunks: list[torch.Tensor] = []
        self._chunk = 0
        self._used = 0

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor, valid until the mark below it is released."""
        num_bytes = prod(shape) * dtype.itemsize
        room = -(-max(num_bytes, 1) // _ALIGNMENT) * _ALIGNMENT
        while True:
            if self._chunk == len(self._chunks):
                size = max(room, self._chunk_bytes)
                self._chunks.append(
                    torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=self._device)
                )
            chunk = self._chunks[self._chunk]
            start = -chunk.data_ptr() % _ALIGNMENT + self._used
            if start + room <= chunk.numel():
                break
            self._chunk += 1
            self._used = 0
        self._used += room
        return chunk[start : start + num_bytes].view(dtype).view(shape)

    def mark(self) -> tuple[int, int]:
        """A place to come back to."""
        return self._chunk, self._used

    def release(self, mark: tuple[int, int]) -> None:
        """Gives back everything taken since `mark`."""
        self._chunk, self._used = mark

    def reset(self) -> None:
        """Gives back everything."""
        self._chunk = self._used = 0

    @property
    def num_bytes(self) -> int:
        """Bytes held, used or not."""
        return sum(chunk.numel() for chunk in self._chunks)
