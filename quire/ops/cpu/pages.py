"""Pages of the cache's memory asked of the system before tokens are written there.

A page costs from 0.3 to 12 us when it is first touched, the latter in virtual machines whose host has taken memory
back. The native thread that does it beforehand rests while steps run.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

import torch

from quire.ops.cpu.library import library

AHEAD_TOKENS, MOST_AHEAD = 4096, 512 << 20
"""Tokens for which there are pages beyond what is in use, and at most so many bytes, where nobody gave a size."""


class PagesAhead:
    """Memory, uint8, whose pages are touched in rising order, `ahead` bytes beyond the highest place in use."""

    def __init__(self, memory: torch.Tensor, handle: Any, ahead: int) -> None:
        """The thread begins at once."""
        self._num_bytes, self._ahead, self._highest = memory.numel(), ahead, -1
        self._want = handle.quire_pages_want
        self._want.argtypes = (ctypes.c_void_p, ctypes.c_int64)
        self._step = handle.quire_pages_step
        self._step.argtypes = (ctypes.c_void_p, ctypes.c_int32)
        handle.quire_pages_begin.argtypes = (ctypes.c_void_p,)
        handle.quire_pages_begin.restype = ctypes.c_void_p
        handle.quire_pages_end.argtypes = (ctypes.c_void_p,)
        self._thread = handle.quire_pages_begin(memory.data_ptr())
        end = handle.quire_pages_end if self._thread else None
        self._finalizer = weakref.finalize(self, _end, end, self._thread, os.getpid(), memory)
        self.use(0)

    def use(self, num_bytes: int) -> None:
        """Tells that the first `num_bytes` are in use."""
        if num_bytes <= self._highest or not self._thread or not self._finalizer.alive:
            return
        self._highest = num_bytes
        self._want(self._thread, min(num_bytes + self._ahead, self._num_bytes))

    def step(self, begins: bool) -> None:
        """Tells that a step begins, or that it has ended."""
        if self._thread and self._finalizer.alive:
            self._step(self._thread, begins)

    def close(self) -> None:
        """Ends the thread, which otherwise goes with this object."""
        self._finalizer()


def pages_ahead(
    memory: torch.Tensor, token_bytes: int, *, takes_all: bool = False
) -> PagesAhead | None:
    """For memory on the CPU, of which a token takes `token_bytes`, where there are native kernels; else None.

    takes_all  all of it is touched, as soon as cores have time: the user said that it is ours.
    """
    native = library() if memory.device.type == "cpu" else None
    if native is None:
        return None
    ahead = memory.numel() if takes_all else min(AHEAD_TOKENS * token_bytes, MOST_AHEAD)
    return PagesAhead(memory, native.handle, ahead)


def _end(end: Any, thread: int, process: int, memory: torch.Tensor) -> None:
    """Ends a thread of this process, for which `memory` has been kept; a fork has none."""
    if end is not None and os.getpid() == process:
        end(thread)
