"""Names, types and shapes of the tensors in a folder's safetensors files, none of them read.

Reading the numbers is `models.loading.reader`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from quire.protocol.errors import ModelLoadError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
ELEMENT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Element types that can be weights here, and their size."""
STORED_BYTES = {
    **ELEMENT_BYTES,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "U32": 4,
    "U16": 2,
}
"""Those that parts of quantized weights can have."""
_COUNTING = "position_ids"  # numbers from 0 up, which old encoders kept beside their weights
_TABLES = "tid2eid"  # whole numbers: which experts a token has
_PART = "_weight_qdata"
_WHOLE_BYTES = {"I64": 8, "I32": 4}
_DTYPE_NAMES = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class TensorHeader:
    """One stored tensor: its file, element type as the format names it, shape, and bytes from `begin` on.

    meant  the shape of the weight that it is a part of, where the file's notes tell it, as torchao's do.
    """

    path: Path
    element: str
    shape: tuple[int, ...]
    begin: int = 0
    meant: tuple[int, ...] = ()

    def read(self) -> bytes:
        """All bytes, of a small one."""
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return file.read(prod(self.shape) * STORED_BYTES[self.element])


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint: those of the index, or `model.safetensors`, or all.

    Raises ModelLoadError if there are none, or the index names one that is not in the folder.
    """
    index = folder / _INDEX
    if index.is_file():
        return _indexed(folder, index)
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    found = sorted(folder.glob("*.safetensors"))
    for path in found:
        if not path.is_file():  # a pipe would never end
            raise ModelLoadError(f"{path} is no regular file")
    if found:
        return found
    pickled = sorted(
        path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)
    )
    hint = (
        f"; {pickled[0]} is a pickle: convert it to safetensors, or read its weights with --load-format pt"
        if pickled
        else ""
    )
    raise ModelLoadError(f"{folder} holds no safetensors files{hint}")


def read_headers(
    folder: Path, elements: Mapping[str, int] = ELEMENT_BYTES
) -> dict[str, TensorHeader]:
    """Every tensor of the checkpoint by name.

    elements  the element types that may be there, and their sizes.

    Raises ModelLoadError for a damaged or truncated file, a name that two files hold, or an
    element type that is not among these.
    """
    tensors: dict[str, TensorHeader] = {}
    for path in weight_files(folder):
        for name, header in _file_headers(path, elements).items():
            if name in tensors:
                raise ModelLoadError(
                    f"tensor {name!r} is in {tensors[name].path.name} and in {path.name}"
                )
            tensors[name] = header
    return tensors


def common_dtype(tensors: Mapping[str, TensorHeader]) -> str:
    """The type that most numbers have, by torch's name; float64 reads as float32."""
    counts: dict[str, int] = {}
    for header in tensors.values():
        if header.element in _DTYPE_NAMES:
            name = _DTYPE_NAMES[header.element]
            counts[name] = counts.get(name, 0) + prod(header.shape)
    return max(counts, key=lambda name: counts[name], default="float32")


def _indexed(folder: Path, index: Path) -> list[Path]:
    try:
        names: Iterable[Any] = set(
            json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"{index} cannot be read as an index of shards: {error!r}") from error
    paths = []
    for name in sorted(str(name) for name in names):
        if Path(name).name != name:
            raise ModelLoadError(f"{index} names {name!r}, which is not a file of this folder")
        if not (folder / name).is_file():
            raise ModelLoadError(
                f"{folder} lacks the shard {name} that {_INDEX} names; download it again"
            )
        paths.append(folder / name)
    return paths


def _file_headers(path: Path, elements: Mapping[str, int]) -> dict[str, TensorHeader]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
            raise ModelLoadError(f"{path} is not a whole safetensors file; download it again")
        text = file.read(length)
    try:
        entries = json.loads(text, object_pairs_hook=partial(_unique, path))
        notes = entries.pop("__metadata__", None) or {}
        _check_places(path, entries, size - 8 - length)
        return {
            name: _header(path, name, entry, 8 + length, elements, notes)
            for name, entry in entries.items()
            if not name.endswith(_COUNTING)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelLoadError):
            raise
        raise ModelLoadError(f"{path} has a damaged header: {error!r}") from error


def check_float(name: str, header: TensorHeader) -> None:
    """Raises ModelLoadError for a tensor that is stored as something else than floats."""
    if header.element not in _elements(name, ELEMENT_BYTES):
        raise _unknown_element(name, header.path, header.element, ELEMENT_BYTES)


def _elements(name: str, elements: Mapping[str, int]) -> Mapping[str, int]:
    """The types that a tensor may have: also whole numbers if it is a table of them."""
    return {**elements, **_WHOLE_BYTES} if name.endswith(_TABLES) else elements


def _unknown_element(
    name: str, path: Path, element: str, elements: Mapping[str, int]
) -> ModelLoadError:
    return ModelLoadError(
        f"{path.name}: tensor {name!r} is stored as {element}; known are {', '.join(elements)}"
    )


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises ModelLoadError for a name that it has twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelLoadError(f"{path} has {twice!r} twice in its header")
    return found


def _check_places(path: Path, entries: Mapping[str, Any], num_bytes: int) -> None:
    """Raises ModelLoadError unless the tensors lie one behind the other and fill the file."""
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        sizes = (start, stop, *entry["shape"])
        if any(type(one) is not int or one < 0 for one in sizes):
            raise ModelLoadError(
                f"{path}: tensor {name!r} has the shape {entry['shape']} and data_offsets "
                f"{[start, stop]}; all must be whole numbers from 0 up"
            )
        if stop > num_bytes:
            raise ModelLoadError(
                f"{path}: the numbers of {name!r} are cut short; download the file again"
            )
        if start != end or stop < start:
            raise ModelLoadError(
                f"{path}: tensor {name!r} has data_offsets {[start, stop]}, but the one before it ends at {end}"
            )
        end = stop
    if end != num_bytes:
        raise ModelLoadError(f"{path} has {num_bytes - end:,} bytes behind its last tensor")


def _header(
    path: Path,
    name: str,
    entry: Mapping[str, Any],
    start: int,
    elements: Mapping[str, int],
    notes: Mapping[str, Any],
) -> TensorHeader:
    element, shape = entry["dtype"], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    elements = _elements(name, elements)
    if element not in elements:
        raise _unknown_element(name, path, element, elements)
    if end - begin != prod(shape) * elements[element]:
        raise ModelLoadError(
            f"{path}: tensor {name!r} of shape {list(shape)} in {element} needs "
            f"{prod(shape) * elements[element]:,} bytes, but data_offsets are {[begin, end]}"
        )
    return TensorHeader(path, element, shape, start + begin, _meant(name, notes))


def _meant(name: str, notes: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape in the note about `x.weight` for its part `x._weight_qdata`; () if there is none."""
    note = notes.get(name.removesuffix(_PART) + "weight") if name.endswith(_PART) else None
    found = json.loads(note).get("_data", {}).get("shape") if isinstance(note, str) else None
    is_shape = isinstance(found, list) and all(type(size) is int for size in found)
    return tuple(found or ()) if is_shape else ()
