"""The native library: which file is loaded, and how a call reaches it.

What the calls mean is in the provider files beside this one; argument structs are `ops.cpu.structs`.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from quire.config import env
from quire.hardware.cpu import read_machine
from quire.ops.cpu.structs import DTYPES, VERSION, Call
from quire.ops.registry import Signature

_FOLDER = env.cpu_kernels() or Path(__file__).parent / "_lib"
NEEDS = {
    "avx512": frozenset(("x86_64", "avx2", "avx512", "vnni", "bf16")),
    "avx2": frozenset(("x86_64", "avx2")),
    "portable": frozenset[str](),
}
"""Best first: what the name of a machine's ISA must hold for a library."""

_log = logging.getLogger(__name__)


class Library:
    """One loaded library. Calls come from one thread at a time.

    isa  "avx512", "avx2" or "portable".
    """

    def __init__(self, path: Path, isa: str) -> None:
        self.isa = isa
        self.path = path
        handle = ctypes.CDLL(str(path))
        handle.quire_isa.restype = ctypes.c_char_p
        if handle.quire_version() != VERSION or handle.quire_isa() != isa.encode():
            raise OSError(f"{path} was built from other sources; build it again: pip install .")
        self._run = handle.quire_run
        self._run.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
        self._call = Call()
        self._address = ctypes.addressof(self._call)

    def run(self, operation: int, args: ctypes.Structure, threads: int = 0) -> None:
        """Carries out one operation on so many threads; 0 is as many as torch has here."""
        call = self._call
        call.operation = operation
        call.args = ctypes.addressof(args)
        self._run(self._address, 1, threads or torch.get_num_threads())

    def run_list(self, calls: ctypes.Array[Call]) -> None:
        """Carries out a list of calls in order, in one parallel region."""
        wrong = self._run(calls, len(calls), torch.get_num_threads())
        if wrong:
            raise ValueError(f"call {wrong - 1} of {len(calls)} names an unknown operation")


def make_calls(entries: Sequence[tuple[int, ctypes.Structure]]) -> ctypes.Array[Call]:
    """A list for `Library.run_list`; the caller keeps the structs alive."""
    calls = (Call * len(entries))()
    for call, (operation, args) in zip(calls, entries, strict=True):
        call.operation, call.args = operation, ctypes.addressof(args)
    return calls


def usable() -> list[str]:
    """The ISAs, best first, whose library is there and runs on this machine."""
    present = frozenset(read_machine().isa.split())
    return [
        isa
        for isa, needs in NEEDS.items()
        if needs <= present and (_FOLDER / f"libquire_{isa}.so").exists()
    ]


@functools.cache
def load(isa: str) -> Library:
    """The library of one ISA. Raises OSError if it cannot be loaded."""
    return Library(_FOLDER / f"libquire_{isa}.so", isa)


@functools.cache
def library() -> Library | None:
    """The best library for this machine, or the one that QUIRE_CPU_ISA names; None without any.

    Raises ValueError if QUIRE_CPU_ISA names an ISA that this machine or installation lacks.
    """
    found = usable()
    wanted = env.cpu_isa()
    if wanted == "none":
        return None
    if wanted is not None:
        if wanted not in found:
            raise ValueError(
                f"QUIRE_CPU_ISA is {wanted!r}; on this machine it may be one of {[*found, 'none']}."
            )
        found = [wanted]
    for isa in found:
        try:
            return load(isa)
        except OSError as error:
            _log.warning("The native kernels for %s cannot be loaded: %s", isa, error)
    _log.warning(
        "There are no native kernels in this installation (no compiler was found when it was built): "
        "arithmetic goes through torch, which is slower. Install a C++ compiler and Quire again."
    )
    return None


_used: Library | None = None


@contextmanager
def using(isa: str) -> Iterator[None]:
    """Inside the block native operations run on this ISA's library; weights must be packed there too.

    For tests: it holds for all threads. Raises OSError if the library cannot be loaded.
    """
    global _used
    before, _used = _used, load(isa)
    try:
        yield
    finally:
        _used = before


def native() -> Library:
    """The library of this machine, which `accepts` found."""
    found = _used or library()
    assert found is not None, "a native operation is run without a library"
    return found


def refuses(signature: Signature, *, formats: tuple[str, ...] = ("plain",)) -> str | None:
    """Why the native library cannot serve a signature, or None."""
    if signature.device != "cpu":
        return f"it computes on cpu only, not on {signature.device}"
    if library() is None:
        return "there is no native library for this machine"
    if signature.dtype not in DTYPES:
        return f"it knows {', '.join(DTYPES)}, not {signature.dtype}"
    if signature.format not in formats:
        return f"it knows the formats {', '.join(formats)}, not {signature.format}"
    return None
