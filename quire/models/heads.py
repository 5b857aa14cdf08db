"""The head of a pooling model with its weights: products, norms and activations in float32.

Which layers it has is told in `models.head_layers`; who asks it for what is `worker.pooling`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from quire.layers.linear import Linear
from quire.layers.norm import LayerNorm
from quire.models.head_layers import HeadLayer
from quire.models.loading.headers import read_headers
from quire.models.loading.pickled import Unreadable, weights_of
from quire.ops.registry import Table
from quire.protocol.errors import ModelLoadError

_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "sigmoid": torch.sigmoid,
}


class PoolingHead:
    """Rows [B, C] to rows [B, N], both float32; the rows do not know each other."""

    def __init__(self, table: Table, layers: tuple[HeadLayer, ...]) -> None:
        self._layers = layers
        self._steps: list[Linear | LayerNorm] = [
            LayerNorm(
                table,
                f"head.{place}",
                size=layer.out_size,
                eps=layer.eps,
                dtype=torch.float32,
                bias=layer.bias is not None,
            )
            if layer.kind == "norm"
            else Linear(
                table,
                f"head.{place}",
                in_size=layer.in_size,
                out_size=layer.out_size,
                bias=layer.bias is not None,
                dtype=torch.float32,
            )
            for place, layer in enumerate(layers)
        ]

    def load(self, folder: Path, *, dummy: bool, device: torch.device) -> None:
        """Reads the weights of a checkpoint, or makes random ones. Raises ModelLoadError."""
        for place, (layer, step) in enumerate(zip(self._layers, self._steps, strict=True)):
            source = _dummy(place, layer) if dummy else _stored(folder, layer)
            step.load(lambda name, source=source: source[name.rpartition(".")[2]].to(device))  # type: ignore[misc]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Takes [B, C], returns [B, N] in memory of its own."""
        for layer, step in zip(self._layers, self._steps, strict=True):
            out = torch.empty((x.shape[0], layer.out_size), dtype=torch.float32, device=x.device)
            step(x.contiguous(), out=out)
            x = out
            if layer.activation != "none":
                # Row by row: a vector's body and its tail are computed in different ways.
                act = _ACTIVATIONS[layer.activation]
                for row in out:
                    row.copy_(act(row))
        return x


def _stored(folder: Path, layer: HeadLayer) -> dict[str, torch.Tensor]:
    """The weight, and the bias if there is one, in float32."""
    if layer.file:
        return _pickled(folder / layer.file, layer)
    where = folder / layer.folder
    headers = read_headers(where)
    found: dict[str, torch.Tensor] = {}
    for kind, name in zip(("weight", "bias"), layer.tensors, strict=False):
        if name not in headers:
            raise ModelLoadError(f"{where} lacks the tensor {name!r} of the pooling head")
        with safe_open(str(headers[name].path), framework="pt") as file:
            if layer.rows and kind == "weight":
                rows = file.get_slice(name)
                tensor = torch.empty(len(layer.rows), rows.get_shape()[1])
                for place, row in enumerate(layer.rows):
                    tensor[place] = rows[row]
            else:
                tensor = file.get_tensor(name)
        found[kind] = tensor.to(torch.float32)
    if layer.residual is not None:
        if layer.residual not in headers:
            raise ModelLoadError(f"{where} lacks {layer.residual!r}, and use_residual asks for it")
        with safe_open(str(headers[layer.residual].path), framework="pt") as file:
            found["weight"] = found["weight"] + file.get_tensor(layer.residual).to(torch.float32)
    if layer.subtract:
        found["weight"] = found["weight"][1:] - found["weight"][:1]
    wanted = (layer.out_size,) if layer.kind == "norm" else (layer.out_size, layer.in_size)
    if tuple(found["weight"].shape) != wanted:
        raise ModelLoadError(
            f"tensor {layer.weight!r} has shape {list(found['weight'].shape)}; the head needs {list(wanted)}"
        )
    return found


def _pickled(path: Path, layer: HeadLayer) -> dict[str, torch.Tensor]:
    """The same from a pickle, of which tensors alone are read. Raises ModelLoadError."""
    if not path.is_file():
        raise ModelLoadError(
            f"{path.parent} lacks {path.name}, a head of BgeM3EmbeddingModel; its embeddings alone need "
            '--hf-overrides \'{"architectures": ["XLMRobertaModel"]}\''
        )
    try:
        found = weights_of(str(path))
    except Unreadable as error:
        raise ModelLoadError(f"{path}: {error}") from error
    wanted = {"weight": (layer.out_size, layer.in_size), "bias": (layer.out_size,)}
    shapes = {name: tuple(one.shape) for name, one in found.items()}
    if shapes != wanted:
        raise ModelLoadError(f"{path} holds {shapes}; the head needs {wanted}")
    return {name: one.to(torch.float32) for name, one in found.items()}


def _dummy(place: int, layer: HeadLayer) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(place)
    shape = (layer.out_size,) if layer.kind == "norm" else (layer.out_size, layer.in_size)
    return {
        "weight": torch.empty(shape).uniform_(-0.05, 0.05, generator=generator),
        "bias": torch.zeros(layer.out_size),
    }
