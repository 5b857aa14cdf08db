"""Memory for what is read again in every step: in huge pages where the system has them.

Scratch memory of a step is `ops.arena`; that of a kernel belongs to the library.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import torch

from quire.hardware.allocator import map_pages
from quire.ops.cpu.library import library, native
from quire.ops.cpu.structs import NUMBERS, STRUCTS

Take = Callable[[int], torch.Tensor]
"""Gives memory of so many bytes: `allocate`, or what fills it too."""

_FIRST_CHUNK, _LAST_CHUNK = 32 << 20, 256 << 20
"""Bytes asked of the system at once, twice as many each time, so that neighbours share pages."""
_ALIGNMENT = 64


class _Chunk(threading.local):
    """The chunk that small pieces are cut from, and how much of it is taken; for each thread."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.used = 0
        self.next_size = _FIRST_CHUNK

    def renew(self) -> None:
        """Takes a fresh chunk; a smaller one where a limit forbids the next size."""
        size = self.next_size
        self.next_size = min(2 * size, _LAST_CHUNK)
        try:
            self.memory = fresh(size)
        except MemoryError:
            self.memory = fresh(_FIRST_CHUNK)
        self.used = 0


_chunk = _Chunk()


def allocate(num_bytes: int) -> torch.Tensor:
    """uint8 [num_bytes], aligned to 64 bytes, zeros at first; its pages are the system's until written.

    Pieces of one chunk are given back together, when the last of them is. Raises MemoryError if there
    is no room.
    """
    if num_bytes > _FIRST_CHUNK:
        return fresh(num_bytes)
    start = -(-_chunk.used // _ALIGNMENT) * _ALIGNMENT
    if start + num_bytes > _chunk.memory.numel():
        _chunk.renew()
        start = 0
    _chunk.used = start + num_bytes
    return _chunk.memory[start : start + num_bytes]


def fresh(num_bytes: int) -> torch.Tensor:
    """The same in memory of its own, which starts at a huge page and is given back with the tensor."""
    mapped, start = map_pages(num_bytes)
    return torch.frombuffer(mapped, dtype=torch.uint8)[start : start + num_bytes]


def reserve(common_bytes: int, own_bytes: int) -> None:
    """Takes scratch memory for the kernels that this thread will call: of all its threads, and of each.

    Raises MemoryError if there is no room. Does nothing without a native library.
    """
    if library() is None:
        return
    failed = ctypes.c_int32(0)
    args = STRUCTS["reserve"](
        failed=ctypes.addressof(failed), common_bytes=common_bytes, own_bytes=own_bytes
    )
    native().run(NUMBERS["reserve"], args)
    if failed.value:
        raise MemoryError(f"there is no memory for {common_bytes + own_bytes} bytes of scratch")
