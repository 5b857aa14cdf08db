"""The libraries of torch, loaded by a thread while Python imports other things.

Importing torch itself is `hardware.torch_import`, or just that.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import sys
import threading
from pathlib import Path

_LARGEST = "libtorch_cpu.so"
"""Binding it takes a quarter of the import of torch, 0.16 s, and needs nothing of Python."""

_EXTENSIONS = (
    "_bisect _blake2 _bz2 _csv _datetime _decimal _hashlib _heapq _json _lzma _opcode _pickle "
)
_EXTENSIONS += "_posixsubprocess _random _sha2 _sha512 _socket _uuid array binascii fcntl math mmap select zlib"
"""Of the standard library, as far as an engine imports them before torch."""


def load_ahead() -> None:
    """Begins, where that is Linux's torch for CPUs only; others look for further libraries first. Returns at once."""
    if sys.platform != "linux" or "torch" in sys.modules:
        return
    spec = importlib.util.find_spec("torch")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "lib"
        others = any((folder / f"libtorch_{kind}.so").exists() for kind in ("cuda", "hip", "xpu"))
        if (folder / _LARGEST).is_file() and not others:
            _import_first()
            path = str(folder / _LARGEST)
            threading.Thread(
                target=_load, args=(path,), name="quire-libraries", daemon=True
            ).start()


def _import_first() -> None:
    """What is loaded from shared libraries waits for the thread, so it comes before."""
    for name in ("msgspec", "zmq", *_EXTENSIONS.split()):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _load(path: str) -> None:
    """By an ordinary call: `ctypes.CDLL` stops Python meanwhile. Failures are the import's to tell."""
    load = ctypes.CDLL(None).dlopen
    load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
    load(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)
