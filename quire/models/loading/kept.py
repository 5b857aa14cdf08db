"""Files of packed weights: which one is a checkpoint's, what stands where in it, and reading it early; no torch.

Writing them, and what is made of what was read, is `models.loading.packed`.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import logging
import mmap
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from quire import __version__
from quire.hardware import kernels
from quire.hardware.allocator import address_of
from quire.models.loading.native_threads import NativeThreads, native_library
from quire.models.spec import DecoderSpec
from quire.quant.schemes.checkpoint import Scheme
from quire.quant.schemes.outside import code_of_method

MAGIC = b"quire packed 1\0\0"
HEAD_BYTES = 64  # the magic, where the index stands, its bytes, and 32 bytes of its digest
ENDING = ".packed"
_LARGEST_INDEX = 1 << 26
_PIECE_BYTES = 4 << 20  # what a thread takes at once, whole pages
_PAGE = 4096

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keeping:
    """Where packed weights are kept, how many bytes all files may have together, and what names the form.

    about  all that packed bytes depend on besides the checkpoint's files and the kernels. isa  of those.
    """

    folder: Path
    limit: int
    about: str
    isa: str

    def path(self, files: Iterable[Path]) -> Path:
        """The file of a checkpoint: by its files' identity, their first bytes, the kernels and `about`."""
        digest = hashlib.sha256(self.about.encode())
        if self.isa:
            digest.update(self.isa.encode() + kernels.path_of(self.isa).read_bytes())
        for path in sorted(files):
            state = path.stat()
            digest.update(repr((state.st_size, state.st_mtime_ns, state.st_ino)).encode())
            with path.open("rb") as file:
                digest.update(file.read(1 << 20))
        return self.folder / (digest.hexdigest()[:32] + ENDING)


def about_packed(config: Mapping[str, Any], spec: DecoderSpec, dtype: str, scheme: Scheme) -> str:
    """What packed bytes of a model depend on; `spec` for the longest sequence."""
    own = config.get("quantization_config")
    outside = code_of_method(own.get("quant_method")) if isinstance(own, dict) else ""
    parts = (__version__, config.get("architectures"), spec, dtype, scheme)
    return repr(parts if not outside else (*parts, own, outside))


def read_index(file: BinaryIO) -> dict[str, list[list[int]]]:
    """Raises ValueError if the file is not a whole one."""
    head = file.read(HEAD_BYTES)
    begin, size = int.from_bytes(head[16:24], "little"), int.from_bytes(head[24:32], "little")
    if len(head) != HEAD_BYTES or head[:16] != MAGIC or size > _LARGEST_INDEX:
        raise ValueError("it is not a whole file of packed weights")
    file.seek(begin)
    text = file.read(size)
    if hashlib.sha256(text).digest() != head[32:]:
        raise ValueError("its index is damaged")
    found: dict[str, list[list[int]]] = json.loads(text)
    return found


class _Piece(ctypes.Structure):
    """What csrc/ops/kept.cpp reads at once."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("sum", ctypes.c_void_p),
        ("num_bytes", ctypes.c_int64),
        ("first", ctypes.c_int64),
    ]


class ReadAhead(NativeThreads):
    """A file of packed weights, mapped, that threads bring into memory and add up: the system's copy is the only one.

    Such a file is never written again, only replaced. Nobody writes to the mapping either; if it were done, the
    process would have a copy of that page.
    """

    def __init__(self, path: Path, library: Any) -> None:
        """Raises OSError, MemoryError or ValueError where it cannot."""
        self._file = path.open("rb")
        places = {
            (begin, size) for parts in read_index(self._file).values() for begin, size, _ in parts
        }
        self._memory = mmap.mmap(
            self._file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        )
        if any(begin < 0 or begin + size > len(self._memory) for begin, size in places):
            raise ValueError("it is cut short")
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._numbers = {place: number for number, place in enumerate(sorted(places))}
        self._sums = (ctypes.c_uint64 * len(places))()
        self._failed = ctypes.c_int32(0)
        self._pieces = self._cut()
        read = library.quire_read
        read.argtypes = (*(ctypes.c_void_p, ctypes.c_int32), *(ctypes.c_void_p, ctypes.c_void_p))
        super().__init__(
            len(self._pieces),
            lambda count, taken: read(self._pieces, count, taken, ctypes.byref(self._failed)),
        )

    def is_of(self, file: BinaryIO) -> bool:
        """Whether this is the file that is read, unchanged."""
        ours, other = (os.fstat(one.fileno()) for one in (self._file, file))
        return all(
            getattr(ours, name) == getattr(other, name)
            for name in ("st_dev", "st_ino", "st_size", "st_mtime_ns")
        )

    def part(self, begin: int, num_bytes: int) -> tuple[Any, int]:
        """What stands at `begin`, uint8 [num_bytes], and its sum as `packed.checksum` gives it.

        Helps to read what is not read yet. Raises ValueError if that failed.
        """
        self.finish()
        number = self._numbers.pop((begin, num_bytes), None)
        if self._failed.value or number is None:
            raise ValueError("it is cut short")
        torch = importlib.import_module("torch")
        part = torch.frombuffer(self._memory, dtype=torch.uint8, count=num_bytes, offset=begin)
        return part, self._sums[number] & (1 << 63) - 1

    def close(self) -> None:
        """Ends what is under way; what was taken stays mapped."""
        super().close()
        self._file.close()
        self._numbers = {}

    def _cut(self) -> Any:
        pieces = []
        sums, base = ctypes.addressof(self._sums), address_of(self._memory)
        for (begin, size), number in self._numbers.items():
            for start in range(0, size, _PIECE_BYTES):
                pieces.append(
                    _Piece(
                        data=base + begin + start,
                        sum=sums + number * 8,
                        num_bytes=min(_PIECE_BYTES, size - start),
                        first=start // _PAGE,
                    )
                )
        return (_Piece * len(pieces))(*pieces)


def read_ahead(path: Path, isa: str | None, num_threads: int) -> ReadAhead | None:
    """Begins to read a file of packed weights; None where there is none, or it cannot be."""
    if isa is None or sys.platform != "linux" or not path.is_file():
        return None
    try:
        ahead = ReadAhead(path, native_library(isa))
    except (OSError, MemoryError, ValueError, AttributeError) as error:
        logger.debug("packed weights are not read ahead: %s", error)  # loading says what is wrong
        return None
    ahead.begin(num_threads)
    return ahead
