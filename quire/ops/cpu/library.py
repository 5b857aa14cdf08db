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

from quire.hardware import kernels, pulse
from quire.hardware.cpu import read_machine
from quire.ops.cpu import checks
from quire.ops.cpu.structs import DTYPES, VERSION, Call
from quire.ops.registry import Signature

_log = logging.getLogger(__name__)


class Library:
    """One loaded library. Calls come from one thread at a time.

    isa  a key of `hardware.kernels.NEEDS`. handle  for what is no operation.
    """

    def __init__(self, path: Path, isa: str) -> None:
        self.isa = isa
        self.path = path
        handle = ctypes.CDLL(str(path))
        handle.quire_isa.restype = ctypes.c_char_p
        if handle.quire_version() != VERSION or handle.quire_isa() != isa.encode():
            raise OSError(f"{path} was built from other sources; build it again: pip install .")
        if handle.quire_start() != 0:
            raise OSError("the system does not let this process use these instructions")
        handle.quire_pulse.argtypes = (ctypes.c_void_p,)
        handle.quire_pulse(pulse.address())
        self.handle = handle
        self._run = handle.quire_run
        self._run.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
        self._call = Call()
        self._address = ctypes.addressof(self._call)
        checks.check(self.run)

    def run(self, operation: int, args: ctypes.Structure, threads: int = 0) -> None:
        """Carries out one operation on so many threads; 0 is as many as torch has here."""
        call = self._call
        call.operation = operation
        call.args = ctypes.addressof(args)
        self._run(self._address, 1, threads or torch.get_num_threads())

    def run_list(self, calls: CallList) -> None:
        """Carries out a list of calls in order, in one parallel region."""
        wrong = self._run(calls.address, calls.count, torch.get_num_threads())
        if wrong:
            raise ValueError(f"call {wrong - 1} of {calls.count} names an unknown operation")


class CallList:
    """Calls for `Library.run_list`, with copies of their arguments in one piece of memory."""

    def __init__(self, entries: Sequence[tuple[int, ctypes.Structure]]) -> None:
        calls = (Call * len(entries))()
        packed = b"".join(bytes(args).ljust(_room(args), b"\0") for _, args in entries)
        self._arguments = ctypes.create_string_buffer(packed, len(packed))
        place = ctypes.addressof(self._arguments)
        for call, (operation, args) in zip(calls, entries, strict=True):
            call.operation, call.args = operation, place
            place += _room(args)
        self._calls = calls
        self.count = len(entries)
        self.address = ctypes.addressof(calls)


def _room(args: ctypes.Structure) -> int:
    """Bytes of a struct, rounded up so that the next one is aligned."""
    return -(-ctypes.sizeof(args) // 8) * 8


def usable() -> list[str]:
    """The ISAs, best first, whose library is there and runs on this machine."""
    return kernels.usable(read_machine().isa)


@functools.cache
def load(isa: str) -> Library:
    """The library of one ISA. Raises OSError if it cannot be loaded."""
    return Library(kernels.path_of(isa), isa)


@functools.cache
def library() -> Library | None:
    """The best library for this machine, or the one that QUIRE_CPU_ISA names; None without any.

    Raises SettingsError if QUIRE_CPU_ISA names an ISA that this machine or installation lacks.
    """
    wanted = kernels.wanted(read_machine().isa)
    for isa in wanted:
        try:
            return load(isa)
        except OSError as error:
            _log.warning("The native kernels for %s cannot be loaded: %s", isa, error)
    if not usable():
        _log.warning(
            "There are no native kernels in this installation (no compiler was found when it was "
            "built): arithmetic goes through torch, which is slower. Install a C++ compiler and "
            "Quire again."
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
