"""Weights by parameter name: read from safetensors piece by piece, or random for dry runs.

Which tensors make up a parameter is decided in `models.names`; packing is the layers' business.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tqdm import tqdm  # type: ignore[import-untyped]

from quire.models.loading import headers
from quire.models.names import Piece, WeightMap, match
from quire.models.parameters import Parameter, parameters
from quire.models.spec import DecoderSpec
from quire.protocol.errors import ModelLoadError

WeightSource = Callable[[str], torch.Tensor]
"""A parameter's numbers by its name, in the order of `parameters(spec)`; each is asked for once.

A source may have a method `borrow` too: the same numbers for a reader that copies them at once. They may
lie in the checkpoint's file, and are good until the next are asked for.
"""


class Staging:
    """One buffer for numbers that are soon copied elsewhere; freeing many would leave holes in the heap."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor in the buffer, in place of the last one."""
        num_bytes = prod(shape) * dtype.itemsize
        if num_bytes > self._buffer.numel():
            self._buffer = torch.empty(0, dtype=torch.uint8)
            self._buffer = torch.empty(num_bytes, dtype=torch.uint8)
        return self._buffer[:num_bytes].view(dtype).view(shape)


_DUMMY_SPREAD = 0.05  # half-width of random matrices; keeps activations of any depth finite


@contextmanager
def checkpoint_source(
    folder: Path,
    weight_map: WeightMap,
    spec: DecoderSpec,
    *,
    dtype: torch.dtype,
    device: torch.device,
    progress: bool,
) -> Iterator[WeightSource]:
    """A source that reads the folder's safetensors files; at most one parameter is held at a time.

    Matrices and biases come in `dtype`, norm weights in float32 (exact, and 1 + w is not rounded).
    Raises ModelLoadError as `models.names.match` does, and if a file cannot be read.
    """
    stored = headers.read_headers(folder)
    plan = match(weight_map, spec, {name: header.shape for name, header in stored.items()})
    table = parameters(spec)
    num_tensors = sum(len(pieces) for pieces in plan.values())
    with ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=num_tensors, desc="Loading weights", unit="tensor", disable=not progress)
        )
        files: dict[Path, Any] = {}
        for path in sorted({header.path for header in stored.values()}):
            files[path] = stack.enter_context(_opened(path))

        yield _Checkpoint(plan, table, stored, files, bar, dtype, device)


class _Checkpoint:
    """Opened files and where each parameter's pieces are."""

    def __init__(
        self,
        plan: Mapping[str, Sequence[Piece]],
        table: Mapping[str, Parameter],
        stored: Mapping[str, headers.TensorHeader],
        files: Mapping[Path, Any],
        bar: Any,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._plan = plan
        self._table = table
        self._stored = stored
        self._files = files
        self._bar = bar
        self._dtype = dtype
        self._device = device
        self._staging = Staging()

    def __call__(self, name: str) -> torch.Tensor:
        """The parameter in memory of its own."""
        parameter = self._table[name]
        kind = torch.float32 if parameter.is_float32 else self._dtype
        return self._fill(name, torch.empty(parameter.shape, dtype=kind, device=self._device))

    def _fill(self, name: str, result: torch.Tensor) -> torch.Tensor:
        if not self._plan[name]:
            return result.fill_(1.0)
        for piece in self._plan[name]:
            _rows(result, self._table[name], piece).copy_(folded(self._tensor(piece), piece))
            self._bar.update()
        return result

    def borrow(self, name: str) -> torch.Tensor:
        """A matrix or bias as it lies in the file, where one tensor is all of it; else in the buffer."""
        pieces, parameter = self._plan[name], self._table[name]
        if self._device.type != "cpu" or parameter.is_float32:
            return self(name)
        if len(pieces) == 1:
            tensor = folded(self._tensor(pieces[0]), pieces[0])
            if tensor.dtype == self._dtype and tuple(tensor.shape) == parameter.shape:
                self._bar.update()
                return tensor
        return self._fill(name, self._staging.take(parameter.shape, self._dtype))

    def _tensor(self, piece: Piece) -> torch.Tensor:
        file = self._files[self._stored[piece.source].path]
        tensor: torch.Tensor = (
            file.get_tensor(piece.source)
            if piece.expert is None
            else file.get_slice(piece.source)[piece.expert]
        )
        return tensor


class DummySource:
    """Random weights that depend on the parameter's name only; norms do nothing."""

    def __init__(self, spec: DecoderSpec, *, dtype: torch.dtype, device: torch.device) -> None:
        self._table = parameters(spec)
        self._dtype = dtype
        self._device = device
        self._staging = Staging()

    def __call__(self, name: str) -> torch.Tensor:
        """The parameter in memory of its own."""
        parameter = self._table[name]
        if parameter.is_float32:
            fill = torch.zeros if name.endswith(".bias") else torch.ones
            return fill(parameter.shape, dtype=torch.float32, device=self._device)
        result = torch.empty(parameter.shape, dtype=self._dtype, device=self._device)
        return self._draw(name, result)

    def borrow(self, name: str) -> torch.Tensor:
        """A matrix or bias in the buffer."""
        parameter = self._table[name]
        if self._device.type != "cpu" or parameter.is_float32:
            return self(name)
        return self._draw(name, self._staging.take(parameter.shape, self._dtype))

    def _draw(self, name: str, result: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator(device=self._device).manual_seed(zlib.crc32(name.encode()))
        return result.uniform_(-_DUMMY_SPREAD, _DUMMY_SPREAD, generator=generator)


def folded(tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
    """A checkpoint tensor as the decoder wants it: cut, turned, constants folded in (in float32)."""
    tensor = tensor[piece.skip :]
    if piece.transpose:
        tensor = tensor.t()
    if piece.fold == "gather_heads":
        heads = tensor.reshape(piece.groups, -1, piece.head_size, *tensor.shape[1:])
        sides = (heads[:, :-2], heads[:, -2:-1], heads[:, -1:])  # [K, heads, D, ...] each
        tensor = torch.cat([side.flatten(0, 2) for side in sides])
    if piece.fold == "gather_quarters":
        quarters = tensor.reshape(4, 3, -1, *tensor.shape[1:])
        tensor = quarters[:, [0, 2, 1]].transpose(0, 1).flatten(0, 2)
    if piece.fold == "split_turns":
        tensor = torch.cat((tensor[0::2], tensor[1::2]))
    if piece.fold == "add_one":
        tensor = tensor.float() + 1.0
    return tensor


def _rows(result: torch.Tensor, parameter: Parameter, piece: Piece) -> torch.Tensor:
    """The rows of `result` that a piece fills; its parts are neighbours."""
    begin = sum(part[0] for part in parameter.parts[: piece.parts[0]])
    num_rows = sum(parameter.parts[part][0] for part in piece.parts)
    return result[begin : begin + num_rows]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        file = safe_open(str(path), framework="pt")
    except Exception as error:
        raise ModelLoadError(f"{path} cannot be opened: {error}") from error
    with file as opened:
        yield opened
