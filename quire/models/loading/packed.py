"""Weights kept on disk as their kernels want them, so that a second start neither rounds nor packs them.

One file for a checkpoint, a form of its weights and a build of the kernels; asked for by a setting. A file that
is damaged, or cannot be written, costs a line in the log and the time that it would have saved, never a start.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch

from quire.ops.cpu.library import library, native
from quire.ops.cpu.memory import Take, allocate
from quire.protocol.errors import SettingsError

_MAGIC = b"quire packed 1\0\0"
_HEAD_BYTES = 64  # the magic, where the index stands, its bytes, and 32 bytes of its digest
_ALIGNMENT = 64
_LARGEST_INDEX = 1 << 26
_ABANDONED_SECONDS = 3600
_ENDING, _UNFINISHED = ".packed", ".unfinished"
logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Keeping:
    """Where packed weights are kept, how many bytes all files may have together, and what names the form.

    about  all that packed bytes depend on besides the checkpoint's files and the kernels.
    """

    folder: Path
    limit: int
    about: str

    def path(self, files: Iterable[Path]) -> Path:
        """The file of a checkpoint: by its files' identity, their first bytes, the kernels and `about`."""
        digest = hashlib.sha256(self.about.encode())
        if library() is not None:
            kernels = native()
            digest.update(kernels.isa.encode() + kernels.path.read_bytes())
        for path in sorted(files):
            state = path.stat()
            digest.update(repr((state.st_size, state.st_mtime_ns, state.st_ino)).encode())
            with path.open("rb") as file:
                digest.update(file.read(1 << 20))
        return self.folder / (digest.hexdigest()[:32] + _ENDING)


class KeptWeights:
    """The file of one checkpoint: read if it is there and whole, else written while weights are packed."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._limit = path, limit
        self._index: dict[str, list[list[int]]] = {}
        self._file: BinaryIO | None = None
        self._end = _HEAD_BYTES
        self._is_new = False
        self._moved = 0
        self._temporary = ""
        try:
            self._file = path.open("rb")
            self._index = _read_index(self._file)
            os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            self._begin()
        except (OSError, ValueError) as error:
            self._distrust(error)

    def has(self, name: str) -> bool:
        """Whether parts are kept under the name."""
        return not self._is_new and name in self._index

    def packed(self, name: str, room: Callable[[Take], T]) -> T | None:
        """What `room` makes in memory that is filled with what is kept; None where that is not good."""
        places = iter(self._index[name])

        def take(num_bytes: int) -> torch.Tensor:
            begin, size, check = next(places, (0, -1, 0))
            if self._file is None or num_bytes != size:
                raise ValueError(f"{name} has other sizes")
            part = allocate(num_bytes)
            self._file.seek(begin)
            if self._file.readinto(part.numpy().data) != num_bytes:  # type: ignore[attr-defined]
                raise ValueError(f"{name} is cut short")
            if checksum(part) != check:
                raise ValueError(f"{name} has other bytes than were written")
            self._moved += num_bytes
            return part

        try:
            return room(take)
        except (OSError, ValueError) as error:
            self._distrust(error)
            return None

    def add(self, name: str, parts: Sequence[torch.Tensor]) -> None:
        """Writes parts, uint8 [n] each, if a file is being written."""
        if not self._is_new or self._file is None:
            return
        places = []
        try:
            for part in parts:
                begin = -(-self._end // _ALIGNMENT) * _ALIGNMENT
                if begin + part.numel() > self._limit:
                    raise OSError(f"they need more than the {self._limit:,} bytes that are allowed")
                self._file.seek(begin)
                self._file.write(part.numpy().data)
                self._end = begin + part.numel()
                self._moved += part.numel()
                places.append([begin, part.numel(), checksum(part)])
        except OSError as error:
            self._give_up(error)
            return
        self._index[name] = places

    def close(self, *, is_whole: bool) -> None:
        """Puts a new file in its place if all was written, and makes room for it."""
        file, self._file = self._file, None
        if file is None:
            return
        if not self._is_new:
            file.close()
            logger.info("packed weights: %.2f GiB read from %s", self._moved / 2**30, self._path)
            return
        temporary = Path(self._temporary)
        try:
            if is_whole and self._index:
                _write_index(file, self._index, self._end)
                file.close()
                _make_room(self._path.parent, self._limit - temporary.stat().st_size)
                temporary.replace(self._path)
                size = self._moved / 2**30
                logger.info("packed weights: %.2f GiB kept in %s", size, self._path)
        except OSError as error:
            logger.warning("packed weights are not kept in %s: %s", self._path.parent, error)
        finally:
            _close(file)
            temporary.unlink(missing_ok=True)

    def _begin(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            number, self._temporary = tempfile.mkstemp(_UNFINISHED, dir=self._path.parent)
            self._file = open(number, "wb")  # noqa: SIM115
            self._is_new = True
        except OSError as error:
            logger.warning("packed weights are not kept in %s: %s", self._path.parent, error)

    def _distrust(self, error: Exception) -> None:
        """The file is taken away, and the checkpoint read instead; the next start writes it again."""
        logger.warning(
            "packed weights in %s are not used and taken away: %s", self._path, error or repr(error)
        )
        if self._file is not None:
            self._file.close()
        self._file, self._index = None, {}
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            logger.warning("packed weights in %s cannot be taken away", self._path)

    def _give_up(self, error: OSError) -> None:
        """What was written goes away; the disk may be full."""
        logger.warning("packed weights are not kept in %s: %s", self._path.parent, error)
        assert self._file is not None
        _close(self._file)
        Path(self._temporary).unlink(missing_ok=True)
        self._file, self._index = None, {}


def bytes_kept(gib: float) -> int:
    """The setting in bytes. Raises SettingsError for what is no size."""
    if not 0.0 <= gib < float("inf"):
        raise SettingsError(f"packed_weights_gib is {gib}; it must be a number from 0 on")
    return int(gib * 2**30)


def checksum(part: torch.Tensor) -> int:
    """A sum of uint8 [n] that changes with any byte and where most of them stand."""
    whole = part.numel() // 4096 * 4096
    pages = part[:whole].view(torch.int64).view(-1, 512).sum(1)
    total = int((pages * torch.arange(1, len(pages) + 1)).sum())
    return total + int(part[whole:].sum(dtype=torch.int64)) * 3 & (1 << 63) - 1


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # what was to be written is thrown away
        file.close()


def _write_index(file: BinaryIO, index: dict[str, list[list[int]]], end: int) -> None:
    text = json.dumps(index).encode()
    file.seek(end)
    file.write(text)
    file.seek(0)
    numbers = end.to_bytes(8, "little") + len(text).to_bytes(8, "little")
    file.write(_MAGIC + numbers + hashlib.sha256(text).digest())


def _read_index(file: BinaryIO) -> dict[str, list[list[int]]]:
    """Raises ValueError if the file is not a whole one."""
    head = file.read(_HEAD_BYTES)
    begin, size = int.from_bytes(head[16:24], "little"), int.from_bytes(head[24:32], "little")
    if len(head) != _HEAD_BYTES or head[:16] != _MAGIC or size > _LARGEST_INDEX:
        raise ValueError("it is not a whole file of packed weights")
    file.seek(begin)
    text = file.read(size)
    if hashlib.sha256(text).digest() != head[32:]:
        raise ValueError("its index is damaged")
    found: dict[str, list[list[int]]] = json.loads(text)
    return found


def _make_room(folder: Path, room: int) -> None:
    """Takes away the files that were used longest ago until the others have at most `room` bytes."""
    for path in folder.glob(f"*{_UNFINISHED}"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    files = sorted(folder.glob(f"*{_ENDING}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
            logger.info("packed weights: %s is taken away, others need its room", path)
