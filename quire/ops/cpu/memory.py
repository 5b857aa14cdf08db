"""Memory for what is read again in every step: in huge pages where the system has them.

Scratch memory of a step is `ops.arena`; that of a kernel belongs to the library.
"""

from __future__ import annotations

import ctypes
import mmap
import threading

import torch

_HUGE = 2 << 20  # bytes of a huge page
_CHUNKS = (256 << 20, 32 << 20)
"""Bytes asked of the system at once, so that neighbours share pages; the smaller where a limit forbids."""
_ALIGNMENT = 64


class _Chunk(threading.local):
    """The chunk that small pieces are cut from, and how much of it is taken; for each thread."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.used = 0


_chunk = _Chunk()


def allocate(num_bytes: int) -> torch.Tensor:
    """uint8 [num_bytes], aligned to 64 bytes, zeros at first; its pages are the system's until written.

    Pieces of one chunk are given back together, when the last of them is. Raises MemoryError if there
    is no room.
    """
    if num_bytes >= _CHUNKS[0]:
        return _map(num_bytes)
    start = -(-_chunk.used // _ALIGNMENT) * _ALIGNMENT
    if start + num_bytes > _chunk.memory.numel():
        _chunk.memory, start = _fresh_chunk(num_bytes), 0
    _chunk.used = start + num_bytes
    return _chunk.memory[start : start + num_bytes]


def _fresh_chunk(num_bytes: int) -> torch.Tensor:
    """A chunk for a piece of so many bytes, as large as the system gives."""
    for size in _CHUNKS:
        if size >= num_bytes:
            try:
                return _map(size)
            except MemoryError:
                continue
    return _map(num_bytes)


def _map(num_bytes: int) -> torch.Tensor:
    """Fresh memory that starts at a huge page."""
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory has no huge pages
        mapped = mmap.mmap(-1, num_bytes + _HUGE, flags=flags)
    except OSError as error:
        raise MemoryError(
            f"there is no memory for {num_bytes} bytes of weights: {error}"
        ) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    start = -address % _HUGE
    return torch.frombuffer(mapped, dtype=torch.uint8)[start : start + num_bytes]
