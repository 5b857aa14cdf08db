"""Threads that carry out a list of native calls beside Python, which goes on; nothing of torch.

What the calls do is `models.loading.ahead` and `models.loading.kept`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quire.hardware import kernels
from quire.ops.cpu.structs import VERSION


class NativeThreads:
    """Calls that threads take in turn. `work(count, address of the next one's number)` takes until none is left."""

    def __init__(self, count: int, work: Callable[[int, Any], object]) -> None:
        self._count = count
        self._work = work
        self._next = ctypes.c_int64(0)
        self._threads: list[threading.Thread] = []

    def begin(self, num_threads: int) -> None:
        """Lets so many threads work."""
        for _ in range(num_threads):
            thread = threading.Thread(target=self._take, name="quire-ahead", daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        """Helps with what is left, and waits until all is done."""
        if self._threads:
            self._take()
        while self._threads:
            self._threads.pop().join()

    def close(self) -> None:
        """Begins nothing more, and waits for what is under way."""
        self._next.value = self._count
        self.finish()

    def _take(self) -> None:
        self._work(self._count, ctypes.byref(self._next))


def native_library(isa: str) -> Any:
    """The native library, on the OpenMP that torch will use. Raises OSError."""
    spec = importlib.util.find_spec("torch")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(place).glob("lib/libgomp*.so*"):
            ctypes.CDLL(str(path))
    library = ctypes.CDLL(str(kernels.path_of(isa)))
    library.quire_isa.restype = ctypes.c_char_p
    if library.quire_version() != VERSION or library.quire_isa() != isa.encode():
        raise OSError(f"the library for {isa} was built from other sources")
    return library
