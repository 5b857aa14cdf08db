"""What stands at the start of a GGUF file: its settings, and where each tensor's blocks lie.

A file may come from anywhere: every count, length and offset is compared with the size of the file before
it is used. Source: the ggml project's description of the format, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from quire.protocol.errors import ModelLoadError
from quire.quant.schemes.gguf import TYPES, BlockType

_MAGIC = b"GGUF"
_MAX_ALIGNMENT, _MAX_AXES, _MAX_NESTING = 1 << 16, 4, 3
_MAX_NAME = 1 << 16
_MAX_HEADER = 256 << 20  # settings of the largest vocabularies are a tenth of it
_NUMBERS = "BbHhIif?"  # of the types 0 to 7, as struct names them
_TEXT, _LIST = 8, 9
_WIDE = {10: "Q", 11: "q", 12: "d"}
_SPLIT = ("split.count", "split.no")


@dataclass(frozen=True)
class BlockTensor:
    """A tensor in a file: bytes from `begin` on; shape as torch has it, the longest stride first."""

    path: Path
    kind: BlockType
    shape: tuple[int, ...]
    begin: int

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) // self.kind.numbers * self.kind.num_bytes


@dataclass
class GgufHeader:
    """Settings by name, and tensors by theirs."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, BlockTensor] = field(default_factory=dict)


def read_header(path: Path) -> GgufHeader:
    """The header of one file.

    Raises ModelLoadError, with the file and what of it is wrong, for one that is damaged.
    """
    try:
        if not path.is_file():
            raise ModelLoadError(f"{path} is not a regular file")
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < 24 or file.read(4) != _MAGIC:
                raise ModelLoadError(f"{path} is not a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).header()
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path} cannot be read as GGUF: {error}") from error


class _Reader:
    """Walks through the header; `place` is always inside the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._size = len(data)
        self._end = min(self._size, _MAX_HEADER)
        self._place = 4

    def header(self) -> GgufHeader:
        version = self._number("I", "version")
        if version & 0xFFFF == 0:
            raise self._bad(
                "it is written for big-endian machines; convert it with gguf-convert-endian"
            )
        if version not in (2, 3):
            raise self._bad(f"version {version} is not known; 2 and 3 are")
        num_tensors = self._count("number of tensors", 24)
        num_values = self._count("number of settings", 13)
        found = GgufHeader(self._path)
        for _ in range(num_values):
            name = self._text("name of a setting", _MAX_NAME)
            if name in found.values:
                raise self._bad(f"setting {name!r} is there twice")
            found.values[name] = self._value(name, self._number("I", f"type of {name!r}"), 0)
        alignment = found.values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment % 8:
            raise self._bad(
                f"general.alignment is {alignment!r}; it must be a multiple of 8 up to {_MAX_ALIGNMENT}"
            )
        entries = [self._tensor() for _ in range(num_tensors)]
        start = -(-self._place // alignment) * alignment
        for name, kind, shape, offset in entries:
            if name in found.tensors:
                raise self._bad(f"tensor {name!r} is there twice")
            if offset % alignment:
                raise self._bad(
                    f"tensor {name!r} begins at {offset}, not a multiple of {alignment}"
                )
            tensor = BlockTensor(self._path, kind, shape, start + offset)
            if tensor.begin + tensor.num_bytes > self._size:
                raise self._bad(
                    f"the numbers of {name!r} end at byte {tensor.begin + tensor.num_bytes} of "
                    f"{self._size}: the file is cut short, download it again"
                )
            found.tensors[name] = tensor
        _check_overlap(found)
        return found

    def _tensor(self) -> tuple[str, BlockType, tuple[int, ...], int]:
        name = self._text("name of a tensor", _MAX_NAME)
        axes = self._number("I", f"axes of {name!r}")
        if not 1 <= axes <= _MAX_AXES:
            raise self._bad(f"tensor {name!r} has {axes} axes; 1 to {_MAX_AXES} are possible")
        sizes = [self._number("Q", f"shape of {name!r}") for _ in range(axes)]
        number = self._number("I", f"type of {name!r}")
        offset = self._number("Q", f"offset of {name!r}")
        kind = TYPES.get(number)
        if kind is None:
            raise self._bad(f"tensor {name!r} is of type {number}, which is not known")
        if min(sizes) < 1 or sizes[0] % kind.numbers or prod(sizes) > self._size * kind.numbers:
            raise self._bad(
                f"tensor {name!r} of type {kind.name} cannot have the shape {sizes}: rows are whole "
                f"blocks of {kind.numbers}, and the file has {self._size} bytes"
            )
        return name, kind, tuple(reversed(sizes)), offset

    def _value(self, name: str, kind: int, depth: int) -> Any:
        if kind == _TEXT:
            return self._text(name, self._end)
        if kind == _LIST:
            return self._list(name, depth)
        return self._number(self._letter(name, kind), name)

    def _letter(self, name: str, kind: int) -> str:
        """How struct names a type of numbers."""
        letter = _NUMBERS[kind] if kind < len(_NUMBERS) else _WIDE.get(kind)
        if letter is None:
            raise self._bad(f"setting {name!r} has the type {kind}, which is not known")
        return letter

    def _list(self, name: str, depth: int) -> list[Any]:
        if depth >= _MAX_NESTING:
            raise self._bad(f"setting {name!r} has lists more than {_MAX_NESTING} deep")
        kind = self._number("I", f"type in {name!r}")
        if kind in (_TEXT, _LIST):
            length = self._count(f"length of {name!r}", 8)
            return [self._value(name, kind, depth + 1) for _ in range(length)]
        letter = self._letter(name, kind)
        width = struct.calcsize(f"<{letter}")
        length = self._count(f"length of {name!r}", width)
        values = struct.unpack_from(f"<{length}{letter}", self._data, self._place)
        self._place += length * width
        return list(values)

    def _text(self, what: str, most: int) -> str:
        length = self._count(f"length of the {what}" if most == _MAX_NAME else what, 1)
        if length > most:
            raise self._bad(f"the {what} has {length} bytes; {most} are possible")
        begin = self._place
        self._place += length
        return self._data[begin : self._place].decode("utf-8", errors="replace")

    def _count(self, what: str, width: int) -> int:
        """How many things follow, each of at least `width` bytes."""
        count = int(self._number("Q", what))
        if count * width > self._end - self._place:
            raise self._bad(
                f"{what} is {count}, more than the {self._end - self._place} bytes that follow can hold"
            )
        return count

    def _number(self, letter: str, what: str) -> Any:
        width = struct.calcsize(f"<{letter}")
        if self._place + width > self._end:
            raise self._bad(f"the header ends before {what}: it is cut short, download it again")
        (value,) = struct.unpack_from(f"<{letter}", self._data, self._place)
        self._place += width
        return value

    def _bad(self, what: str) -> ModelLoadError:
        return ModelLoadError(f"{self._path}: {what}")


def _check_overlap(header: GgufHeader) -> None:
    """Raises ModelLoadError if two tensors share bytes."""
    end, before = 0, ""
    for name, tensor in sorted(header.tensors.items(), key=lambda item: item[1].begin):
        if tensor.begin < end:
            raise ModelLoadError(f"{header.path}: tensors {before!r} and {name!r} share bytes")
        end, before = tensor.begin + tensor.num_bytes, name


def read_all(path: Path) -> GgufHeader:
    """The header of a file, or of all files of a model that was split, of which `path` is the first.

    Raises ModelLoadError if one is missing, or as `read_header` does.
    """
    first = read_header(path)
    count = first.values.get(_SPLIT[0], 0)
    if not isinstance(count, int) or count <= 1:
        return first
    ending = f"-00001-of-{count:05d}.gguf"
    if not path.name.endswith(ending):
        raise ModelLoadError(
            f"{path} is one of {count} files of a model; give the first, which ends in {ending}"
        )
    stem = path.name.removesuffix(ending)
    for number in range(2, count + 1):
        part = path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf")
        if not part.is_file():
            raise ModelLoadError(f"{path} lacks its part {part.name}; download it again")
        for name, tensor in read_header(part).tensors.items():
            if name in first.tensors:
                raise ModelLoadError(f"tensor {name!r} is in {path.name} and in {part.name}")
            first.tensors[name] = tensor
    return first


def floats_of(header: GgufHeader, name: str) -> list[float]:
    """The numbers of a tensor of type F32. Raises ModelLoadError if it is not there, or of another type."""
    tensor = header.tensors.get(name)
    if tensor is None or tensor.kind.name != "F32":
        found = "is not there" if tensor is None else f"must be F32, not {tensor.kind.name}"
        raise ModelLoadError(f"{header.path}: tensor {name!r} {found}")
    with tensor.path.open("rb") as file:
        file.seek(tensor.begin)
        return list(struct.unpack(f"<{tensor.num_bytes // 4}f", file.read(tensor.num_bytes)))
