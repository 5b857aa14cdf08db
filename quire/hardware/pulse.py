"""A count that rises while arithmetic moves: once for every operation, native ones included.

Who watches it from outside this process is `engine.client`; where it lies there, `engine.record`.
"""

from __future__ import annotations

import ctypes
from typing import Any

_count = ctypes.c_uint64()


def place_in(memory: Any, offset: int) -> None:
    """Counts in this writable buffer from now on, as a uint64 at `offset` bytes.

    Must come before the native library is loaded, which is told the address once.
    """
    global _count
    _count = ctypes.c_uint64.from_buffer(memory, offset)


def beat() -> None:
    """The arithmetic has moved."""
    _count.value += 1


def address() -> int:
    """Where the count lies in this process."""
    return ctypes.addressof(_count)
