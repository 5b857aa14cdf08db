"""tokenizer.model as the sentencepiece library writes it: pieces with scores, and how text is made ready.

The file is one message of protocol buffers; only the fields that are needed are read. Source: the field
numbers of sentencepiece_model.proto, https://github.com/google/sentencepiece.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quire.protocol.errors import ModelLoadError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
"""Kinds of pieces."""
UNIGRAM, BPE = 1, 2
"""Kinds of models; words and single characters are two more, which no language model has."""
_MAX_BYTES = 256 << 20
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5

Value = int | bytes


@dataclass
class Pieces:
    """What a file says.

    pieces   text, score and kind of each id.
    charsmap  the library's compiled table of replacements; empty for none.
    """

    path: Path
    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = UNIGRAM
    unknown_id: int = 0
    charsmap: bytes = b""
    adds_prefix: bool = True
    joins_blanks: bool = True

    @property
    def vocabulary(self) -> dict[str, int]:
        """Piece -> id."""
        return {text: number for number, (text, _, _) in enumerate(self.pieces)}


def read_pieces(path: Path) -> Pieces:
    """A file. Raises ModelLoadError for one that is damaged, or of another library."""
    if path.stat().st_size > _MAX_BYTES:
        raise ModelLoadError(f"{path} has more than {_MAX_BYTES >> 20} MiB; it is no tokenizer")
    try:
        found = _read(path)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise ModelLoadError(
            f"{path} is no sentencepiece model that can be read: {error}; put the model's "
            "tokenizer.json beside it"
        ) from error
    if found.kind not in (UNIGRAM, BPE) or not found.pieces:
        raise ModelLoadError(
            f"{path} holds {len(found.pieces)} pieces of a model of kind {found.kind}; read are "
            f"unigrams ({UNIGRAM}) and byte pairs ({BPE})"
        )
    if len(found.vocabulary) != len(found.pieces):
        raise ModelLoadError(f"{path} holds a piece twice")
    return found


def _read(path: Path) -> Pieces:
    found = Pieces(path)
    for number, value in _fields(path.read_bytes()):
        if number == 1:
            found.pieces.append(_piece(_as_bytes(value)))
        elif number == 2:
            trainer = dict(_fields(_as_bytes(value)))
            found.kind = _as_int(trainer.get(3, UNIGRAM))
            found.unknown_id = _as_int(trainer.get(40, 0))
        elif number == 3:
            rules = dict(_fields(_as_bytes(value)))
            found.charsmap = _as_bytes(rules.get(2, b""))
            found.adds_prefix = bool(rules.get(3, 1))
            found.joins_blanks = bool(rules.get(4, 1))
    return found


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    (score,) = struct.unpack("<f", _as_bytes(fields.get(2, bytes(4))))
    return _as_bytes(fields[1]).decode(), score, _as_int(fields.get(3, NORMAL))


def _as_bytes(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number stands where text is expected")
    return value


def _as_int(value: Value) -> int:
    if not isinstance(value, int):
        raise ValueError("text stands where a number is expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of a message; numbers of fixed size as their bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        if wire == _VARINT:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if wire == _BYTES:
            size, place = _varint(data, place)
        elif wire in (_FOUR_BYTES, _EIGHT_BYTES):
            size = 4 if wire == _FOUR_BYTES else 8
        else:
            raise ValueError(f"a field of the unknown type {wire} at byte {place}")
        if place + size > len(data):
            raise ValueError(f"a field at byte {place} goes beyond the end")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError(f"a number at byte {place} has no end")
