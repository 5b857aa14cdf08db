"""Memory asked of the system in huge pages, and what the C library keeps of freed memory given back to it.

How much memory there is belongs to `hardware.cpu`.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

_HUGE = 2 << 20  # bytes of a huge page


def map_pages(num_bytes: int) -> tuple[mmap.mmap, int]:
    """Fresh memory, and the offset in it from which `num_bytes` are ours: a huge page starts there.

    Zeros at first; pages are the system's until written, and huge where it has such. Raises MemoryError.
    """
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory has no huge pages
        mapped = mmap.mmap(-1, num_bytes + _HUGE, flags=flags)
    except OSError as error:
        raise MemoryError(
            f"the system has no memory for {num_bytes} bytes more: {error}"
        ) from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapped.madvise(mmap.MADV_HUGEPAGE)
    return mapped, -address_of(mapped) % _HUGE


def address_of(mapped: mmap.mmap) -> int:
    """Where writable mapped memory begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(mapped))


def give_back() -> None:
    """Returns the whole pages of freed memory to the system; nothing where the C library is not glibc."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
