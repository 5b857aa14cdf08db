"""Opened files of a checkpoint: the numbers of one tensor, as they lie in the file.

What stands where is told in `models.loading.headers` and `models.loading.gguf.header`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open

from quire.models.loading.gguf.header import BlockTensor
from quire.models.loading.headers import TensorHeader
from quire.protocol.errors import ModelLoadError


class OpenedFile(Protocol):
    """A file that is mapped into memory."""

    def read(
        self, name: str, place: TensorHeader | BlockTensor, index: int | slice | None
    ) -> torch.Tensor:
        """A tensor, or what stands at `index` along the first axis: one place, or some rows."""


class _Safetensors:
    def __init__(self, file: Any) -> None:
        self._file = file

    def read(
        self, name: str, place: TensorHeader | BlockTensor, index: int | slice | None
    ) -> torch.Tensor:
        """Numbers in their shape."""
        tensor: torch.Tensor = (
            self._file.get_tensor(name) if index is None else self._file.get_slice(name)[index]
        )
        return tensor


class _Gguf:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data

    def read(
        self, name: str, place: TensorHeader | BlockTensor, index: int | slice | None
    ) -> torch.Tensor:
        """Blocks as bytes [n] uint8."""
        assert isinstance(place, BlockTensor), f"{name} is in a GGUF file"
        assert not isinstance(index, slice), f"experts of {name} have an axis in a GGUF file"
        begin, num_bytes = place.begin, place.num_bytes
        if index is not None:
            num_bytes //= place.shape[0]
            begin += index * num_bytes
        return torch.frombuffer(self._data, dtype=torch.uint8, count=num_bytes, offset=begin)


@contextmanager
def opened(path: Path) -> Iterator[OpenedFile]:
    """A safetensors or GGUF file. Raises ModelLoadError if it cannot be opened."""
    if path.suffix == ".gguf":
        try:
            with path.open("rb") as raw:
                # Private pages: torch has no read-only tensors, and nothing is written to them.
                data = mmap.mmap(raw.fileno(), 0, flags=mmap.MAP_PRIVATE)
        except OSError as error:
            raise ModelLoadError(f"{path} cannot be opened: {error}") from error
        # Not closed: tensors may still be views of it, and the last of them lets it go.
        yield _Gguf(data)
        return
    try:
        file = safe_open(str(path), framework="pt")
    except Exception as error:
        raise ModelLoadError(f"{path} cannot be opened: {error}") from error
    with file as entered:
        yield _Safetensors(entered)
