"""Weights by parameter name: read from safetensors piece by piece, or random for dry runs.

Which tensors make up a parameter is decided in `models.names`; packing is the layers' business.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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

A source may have a method `borrow` too: the same numbers for a reader that copies them at once, which may
lie in the checkpoint's file and are good until the source closes.
"""

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

    def __call__(self, name: str) -> torch.Tensor:
        """The parameter in memory of its own."""
        parameter = self._table[name]
        kind = torch.float32 if parameter.group == "norm" else self._dtype
        result = torch.empty(parameter.shape, dtype=kind, device=self._device)
        for piece in self._plan[name]:
            _rows(result, parameter, piece).copy_(folded(self._tensor(piece), piece))
            self._bar.update()
        return result

    def borrow(self, name: str) -> torch.Tensor:
        """The parameter, as it lies in the file where one tensor is all of it."""
        pieces, parameter = self._plan[name], self._table[name]
        if len(pieces) == 1 and parameter.group != "norm" and self._device.type == "cpu":
            tensor = folded(self._tensor(pieces[0]), pieces[0])
            if tensor.dtype == self._dtype and tuple(tensor.shape) == parameter.shape:
                self._bar.update()
                return tensor
        return self(name)

    def _tensor(self, piece: Piece) -> torch.Tensor:
        tensor: torch.Tensor = self._files[self._stored[piece.source].path].get_tensor(piece.source)
        return tensor


def dummy_source(spec: DecoderSpec, *, dtype: torch.dtype, device: torch.device) -> WeightSource:
    """A source of random weights that depend on the parameter's name only; norms do nothing."""
    table = parameters(spec)

    def make(name: str) -> torch.Tensor:
        parameter = table[name]
        if parameter.group == "norm":
            fill = torch.zeros if name.endswith(".bias") else torch.ones
            return fill(parameter.shape, dtype=torch.float32, device=device)
        generator = torch.Generator(device=device).manual_seed(zlib.crc32(name.encode()))
        result = torch.empty(parameter.shape, dtype=dtype, device=device)
        return result.uniform_(-_DUMMY_SPREAD, _DUMMY_SPREAD, generator=generator)

    return make


def folded(tensor: torch.Tensor, piece: Piece) -> torch.Tensor:
    """A checkpoint tensor as the decoder wants it: cut, turned, constants folded in (in float32)."""
    tensor = tensor[piece.skip :]
    if piece.transpose:
        tensor = tensor.t()
    if piece.fold == "gather_heads":
        heads = tensor.reshape(-1, len(piece.parts), piece.head_size, *tensor.shape[1:])
        tensor = heads.transpose(0, 1).flatten(0, 2)
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
