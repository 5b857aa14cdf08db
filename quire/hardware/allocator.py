"""What the C library's allocator keeps of freed memory, given back to the system.

How much memory there is belongs to `hardware.cpu`.
"""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Returns the whole pages of freed memory to the system; nothing where the C library is not glibc."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
