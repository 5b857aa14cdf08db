"""Weights by parameter name: read from a checkpoint piece by piece, or random for dry runs.

Which tensors make up a parameter is decided in `models.names`; packing is the layers' business.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from quire.models.loading.ahead import Ahead
from quire.models.loading.checkpoint import Checkpoint, read_checkpoint
from quire.models.loading.files import OpenedFile, opened
from quire.models.loading.kept import Keeping, ReadAhead
from quire.models.loading.packed import KeptWeights
from quire.models.names import Piece, WeightMap, match
from quire.models.parameters import Parameter, parameters
from quire.models.spec import DecoderSpec
from quire.ops.quantized import QuantizedWeight
from quire.protocol.errors import ModelLoadError
from quire.quant.decoders.pieces import as_format, empty, map_rows, put_rows
from quire.quant.decoders.table import decode
from quire.quant.formats import PLAIN, Format, Formats
from quire.quant.rounding import quantize
from quire.quant.stored import StoredTensor

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
    config: Mapping[str, Any] = MappingProxyType({}),
    formats: Formats = PLAIN,
    keeping: Keeping | None = None,
    ahead: Ahead | ReadAhead | None = None,
) -> Iterator[WeightSource]:
    """A source that reads the folder's files; at most one parameter is held at a time.

    Matrices and biases come in `dtype`, norm weights in float32 (exact, and 1 + w is not rounded); those
    that `formats` names come in their format.
    config  the folder's config.json, for what it says of quantized weights.
    keeping  where packed weights are kept from one start to the next; the source then has them as `kept`.
    ahead    what is being packed, or read of what is kept, already; of the same folder and dtype.
    Raises ModelLoadError as `models.names.match` does, and if a file cannot be read.
    """
    checkpoint = read_checkpoint(folder, config)
    plan = match(checkpoint.mapped(weight_map), spec, checkpoint.shapes)
    table = parameters(spec)
    num_tensors = sum(len(pieces) for pieces in plan.values())
    with ExitStack() as stack:
        bar = stack.enter_context(
            tqdm(total=num_tensors, desc="Loading weights", unit="tensor", disable=not progress)
        )
        files: dict[Path, OpenedFile] = {}
        for path in sorted({header.path for header in checkpoint.files.values()}):
            files[path] = stack.enter_context(opened(path))

        source = _Checkpoint(plan, table, checkpoint, files, bar, dtype, device, formats)
        if keeping is None:
            source.kept = ahead if isinstance(ahead, Ahead) else None
            yield source
            bar.update(num_tensors - bar.n)  # what was packed before is not counted one by one
            return
        kept = source.kept = KeptWeights(
            keeping.path(files),
            keeping.limit,
            ahead if isinstance(ahead, ReadAhead) else None,
        )
        is_whole = False
        try:
            yield source
            is_whole = True
        finally:
            kept.close(is_whole=is_whole)


class _Checkpoint:
    """Opened files and where each parameter's pieces are."""

    def __init__(
        self,
        plan: Mapping[str, Sequence[Piece]],
        table: Mapping[str, Parameter],
        checkpoint: Checkpoint,
        files: Mapping[Path, OpenedFile],
        bar: Any,
        dtype: torch.dtype,
        device: torch.device,
        formats: Formats,
    ) -> None:
        self._plan = plan
        self._table = table
        self._checkpoint = checkpoint
        self._formats = formats
        self._files = files
        self._bar = bar
        self._dtype = dtype
        self._device = device
        self._staging = Staging()
        self.kept: KeptWeights | Ahead | None = None

    def __call__(self, name: str) -> torch.Tensor:
        """The parameter in memory of its own; as a QuantizedWeight if it has a format."""
        format = self._formats.of(name)
        if format.bits is not None:
            return self._quantized(name, format)  # type: ignore[return-value]
        parameter = self._table[name]
        kind = torch.float32 if parameter.is_float32 else self._dtype
        return self._fill(name, torch.empty(parameter.shape, dtype=kind, device=self._device))

    def borrow(self, name: str) -> torch.Tensor:
        """A matrix or bias as it lies in the file, where one tensor is all of it; else in the buffer."""
        pieces, parameter = self._plan[name], self._table[name]
        if self._device.type != "cpu" or parameter.is_float32 or self._formats.of(name) != PLAIN:
            return self(name)
        if len(pieces) == 1:
            tensor = self._floats(pieces[0], self._dtype)
            if tensor.dtype == self._dtype and tuple(tensor.shape) == parameter.shape:
                self._bar.update()
                return tensor
            return self._put(name, tensor, pieces[0])
        return self._fill(name, self._staging.take(parameter.shape, self._dtype))

    def tied(self, embedding: torch.Tensor) -> torch.Tensor | QuantizedWeight:
        """The weight of a head that shares the embedding: that, or in the head's format what it was read of."""
        format = self._formats.of("head.weight")
        return embedding if format.bits is None else self._quantized("embedding.weight", format)

    def _fill(self, name: str, result: torch.Tensor) -> torch.Tensor:
        if not self._plan[name]:  # a norm without weights, or a bias that is not there
            return result.fill_(0.0 if name.endswith(".bias") else 1.0)
        for piece in self._plan[name]:
            _rows(result, self._table[name], piece).copy_(self._floats(piece, result.dtype))
            self._bar.update()
        return result

    def _put(self, name: str, tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
        """A piece that is all of a parameter, in the buffer."""
        result = self._staging.take(self._table[name].shape, self._dtype)
        _rows(result, self._table[name], piece).copy_(tensor)
        self._bar.update()
        return result

    def _quantized(self, name: str, format: Format) -> QuantizedWeight:
        """A matrix in a format, in memory of its own."""
        parameter, room = self._table[name], None
        for piece in self._plan[name]:
            stored = self._checkpoint.tensors[piece.source]
            found = self._decoded(piece, stored, self._dtype)
            self._bar.update()
            if stored.options.get("is_turned"):  # codes are [out, in] whatever the name says
                piece = replace(piece, transpose=False)
            if isinstance(found, QuantizedWeight):
                weight = as_format(map_rows(found, partial(folded, piece=piece)), format)
            else:
                weight = replace(quantize(folded(found, piece), format), dtype=self._dtype)
            if len(self._plan[name]) == 1:
                return weight
            if room is None:
                room = empty(format, (parameter.shape[0], parameter.shape[1]), self._dtype)
                room = replace(room, step=weight.step, shift=weight.shift, order=weight.order)
            put_rows(room, sum(part[0] for part in parameter.parts[: piece.parts[0]]), weight)
        assert room is not None, f"{name} is made of nothing"
        return room

    def _floats(self, piece: Piece, dtype: torch.dtype) -> torch.Tensor:
        """A piece as floats, of `dtype` or wider."""
        stored = self._checkpoint.tensors[piece.source]
        if stored.decoder:
            stored = replace(stored, format=PLAIN)
        found = self._decoded(piece, stored, dtype)
        return folded(found.dequantized() if isinstance(found, QuantizedWeight) else found, piece)

    def _decoded(
        self, piece: Piece, stored: StoredTensor, dtype: torch.dtype
    ) -> torch.Tensor | QuantizedWeight:
        """A tensor of the checkpoint, or the slice of it that is an expert's."""
        files = self._checkpoint.files
        expert = piece.expert if piece.expert is not None else stored.options.get("expert")
        if piece.expert is not None and piece.flat:
            expert = slice(piece.expert * piece.flat, (piece.expert + 1) * piece.flat)
        members = {
            role: self._files[files[member].path].read(member, files[member], expert)
            for role, member in stored.members.items()
        }
        if piece.expert is not None:
            one = (piece.flat,) if piece.flat else ()
            stored = replace(stored, shape=(*one, *stored.shape[1:]))
        try:
            return decode(members, stored, dtype)
        except (ValueError, RuntimeError, IndexError) as error:
            raise ModelLoadError(f"{piece.source!r} cannot be read: {error}") from error


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
        if parameter.is_float32 and parameter.group != "router_float32":
            fill = 0.0 if name.endswith(".bias") else -1.0 if name.endswith(".decay") else 1.0
            return torch.full(parameter.shape, fill, dtype=torch.float32, device=self._device)
        dtype = torch.float32 if parameter.is_float32 else self._dtype
        result = torch.empty(parameter.shape, dtype=dtype, device=self._device)
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


_ADDED = {"add_one": 1.0, "add_fifth": 1 / 5, "add_eleventh": 5**-1.5}


def folded(tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
    """A checkpoint tensor as the decoder wants it: cut, turned, constants folded in (in float32)."""
    if not piece.shape:
        return tensor
    tensor = (tensor.squeeze() if piece.squeeze else tensor)[piece.skip :]
    if piece.transpose:
        tensor = tensor.t()
    if piece.fold == "gather_heads":
        heads = tensor.reshape(piece.groups, -1, *tensor.shape[1:])  # [K, rows that share a k, ...]
        parts = torch.split(heads, [rows // piece.groups for rows in piece.sizes], dim=1)
        tensor = torch.cat([part.flatten(0, 1) for part in parts])
    if piece.fold in ("first_halves", "second_halves"):
        halves = tensor.reshape(piece.groups, 2, -1, *tensor.shape[1:])
        tensor = halves[:, int(piece.fold == "second_halves")].flatten(0, 1)
    if piece.fold == "paired_rows":
        pairs = tensor.reshape(2, piece.groups // 2, -1, *tensor.shape[1:]).transpose(0, 1)
        tensor = torch.cat((pairs.flatten(0, 2), pairs.flatten(0, 2)))
    if piece.fold == "gather_quarters":
        quarters = tensor.reshape(4, 3, -1, *tensor.shape[1:])
        tensor = quarters[:, [0, 2, 1]].transpose(0, 1).flatten(0, 2)
    if piece.fold == "set_rows":
        tensor = tensor.reshape(len(tensor), piece.groups, -1, tensor.shape[2])
        tensor = tensor.transpose(0, 1).flatten(0, 2)
    if piece.fold == "set_columns":
        tensor = tensor.reshape(*tensor.shape[:2], piece.groups, -1).permute(1, 2, 0, 3).flatten(1)
    if piece.fold == "unit_rows":
        tensor = torch.nn.functional.normalize(tensor.float())
    if piece.fold == "split_turns":
        tensor = torch.cat((tensor[0::2], tensor[1::2]))
    if piece.fold == "swap_halves":
        tensor = torch.cat(tensor.chunk(2)[::-1])
    if piece.fold == "turn_back":
        halves = tensor.reshape(-1, 2, piece.groups, *tensor.shape[1:])
        tensor = halves.flip(1).flatten(0, 2)
    if piece.fold in _ADDED:
        tensor = tensor.float() + _ADDED[piece.fold]
    if piece.fold == "exp":
        tensor = tensor.float().exp()
    if piece.fold == "minus_exp":
        tensor = -torch.exp(tensor.float())
    if piece.fold == "minus":
        tensor = -tensor.float()
    if piece.fold in ("over_width", "over_root"):
        tensor = tensor.float() / tensor.shape[-1] ** (1.0 if piece.fold == "over_width" else 0.5)
    return tensor


def _rows(result: torch.Tensor, parameter: Parameter, piece: Piece) -> torch.Tensor:
    """The rows of `result` that a piece fills; its parts are neighbours."""
    if not piece.shape:
        return result
    begin = sum(part[0] for part in parameter.parts[: piece.parts[0]])
    num_rows = sum(parameter.parts[part][0] for part in piece.parts)
    return result[begin : begin + num_rows]
