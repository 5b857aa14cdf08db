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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch

from quire.models.loading.kept import ENDING, HEAD_BYTES, MAGIC, ReadAhead, read_index
from quire.ops.cpu.memory import Take, allocate
from quire.protocol.errors import SettingsError

_ALIGNMENT = 64
_ABANDONED_SECONDS = 3600
_UNFINISHED = ".unfinished"
logger = logging.getLogger(__name__)

T = TypeVar("T")


class KeptWeights:
    """The file of one checkpoint: read if it is there and whole, else written while weights are packed."""

    def __init__(self, path: Path, limit: int, ahead: ReadAhead | None = None) -> None:
        """`ahead` is asked for what it has read already, if that was this file."""
        self._path, self._limit = path, limit
        self._ahead: ReadAhead | None = None
        self._index: dict[str, list[list[int]]] = {}
        self._file: BinaryIO | None = None
        self._end = HEAD_BYTES
        self._is_new = False
        self._moved = 0
        self._temporary = ""
        try:
            self._file = path.open("rb")
            self._index = read_index(self._file)
            if ahead is not None and ahead.is_of(self._file):
                self._ahead = ahead
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
            part: torch.Tensor
            begin, size, check = next(places, (0, -1, 0))
            if self._file is None or num_bytes != size:
                raise ValueError(f"{name} has other sizes")
            if self._ahead is not None:
                part, found = self._ahead.part(begin, num_bytes)
            else:
                part = allocate(num_bytes)
                self._file.seek(begin)
                if self._file.readinto(part.numpy().data) != num_bytes:  # type: ignore[attr-defined]
                    raise ValueError(f"{name} is cut short")
                found = checksum(part)
            if found != check:
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
                os.fchmod(file.fileno(), 0o400)  # it is mapped by those who read it
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
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
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
    file.write(MAGIC + numbers + hashlib.sha256(text).digest())


def _make_room(folder: Path, room: int) -> None:
    """Takes away the files that were used longest ago until the others have at most `room` bytes."""
    for path in folder.glob(f"*{_UNFINISHED}"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    files = sorted(folder.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files:
        room -= path.stat().st_size
        if room < 0:
            path.unlink(missing_ok=True)
            logger.info("packed weights: %s is taken away, others need its room", path)
