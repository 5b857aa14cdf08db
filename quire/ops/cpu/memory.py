"""Memory for what is read again in every step: in huge pages where the system has them.

Scratch memory of a step is `ops.arena`; that of a kernel belongs to the library.
"""

from __future__ import annotations

import ctypes
import mmap

import torch

_HUGE = 2 << 20  # bytes of a huge page, and below it plain memory is as good
_ALIGNMENT = 64


def allocate(num_bytes: int) -> torch.Tensor:
    """uint8 [num_bytes] of zeros or anything, aligned to 64 bytes; large ones to 2 MiB.

    Pages are the system's until written. Raises MemoryError if there is no room.
    """
    if num_bytes < _HUGE:
        return torch.empty(num_bytes, dtype=torch.uint8)
    try:
        mapped = mmap.mmap(-1, num_bytes + _HUGE)
    except OSError as error:
        raise MemoryError(f"no memory for {num_bytes} bytes of weights: {error}") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    start = -address % _HUGE
    return torch.frombuffer(mapped, dtype=torch.uint8)[start : start + num_bytes]
