"""What a checkpoint folder holds: every tensor under the name that it has among plain floats.

Here GGUF files and the schemes of quantized checkpoints meet; reading numbers is `models.loading.reader`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quire.models.fused_names import for_fused_names
from quire.models.loading import headers, mistral
from quire.models.loading.gguf.checkpoint import adapted, float_dtype, read_gguf
from quire.models.loading.gguf.header import BlockTensor, GgufHeader
from quire.models.names import Piece, WeightMap
from quire.models.parameters import Parameter, parameters
from quire.models.spec import DecoderSpec
from quire.protocol.errors import ModelLoadError
from quire.quant.formats import PLAIN, Format, FormatTable, LayerScales, expert_formats
from quire.quant.schemes.cache import cache_scales
from quire.quant.schemes.checkpoint import find_scheme
from quire.quant.stored import (
    StoredTensor,
    TensorInfo,
    experts_format,
    plain,
    stacked_format,
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a folder.

    tensors  by their names among plain floats. files  where the members of those are, by name.
    method   how the weights are quantized, as the checkpoint calls it; None if they are plain.
    dtype    torch's name of the type of the floats.
    cache_scales  of keys and values by layer, for an fp8 cache.
    """

    tensors: Mapping[str, StoredTensor]
    files: Mapping[str, headers.TensorHeader | BlockTensor]
    method: str | None
    dtype: str
    gguf: GgufHeader | None = None
    cache_scales: LayerScales = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def mapped(self, weight_map: WeightMap) -> WeightMap:
        """An architecture's weight map as it is for this folder."""
        if self.gguf is not None:
            return adapted(weight_map, self.gguf)
        return for_fused_names(weight_map, self.shapes)


NOTHING = Checkpoint({}, {}, None, "float32")
"""Of a folder that is not looked into."""


def method_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """How the folder's weights are quantized, as it calls it; None if they are plain.

    Raises ModelLoadError for a method that is not read.
    """
    settings = config.get("quantization_config")
    if not settings:
        return None
    if not isinstance(settings, dict) or not isinstance(settings.get("quant_method"), str):
        raise ModelLoadError(f"{folder}/config.json: quantization_config names no quant_method")
    method: str = settings["quant_method"]
    try:
        if method != "gguf":
            find_scheme(method)
    except ValueError as error:
        raise ModelLoadError(f"{folder}/config.json: {error}") from None
    return method


def read_checkpoint(folder: Path, config: Mapping[str, Any]) -> Checkpoint:
    """The tensors of a folder with this config.json.

    Raises ModelLoadError for damaged files, and settings of quantization that are not known.
    """
    method = method_of(folder, config)
    if method is None:
        found = headers.read_headers(folder)
        if mistral.is_consolidated(found):
            tensors = mistral.stored_tensors(
                {name: one.shape for name, one in found.items()}, config
            )
        else:
            tensors = {name: plain(name, header.shape) for name, header in found.items()}
        return Checkpoint(tensors, found, None, headers.common_dtype(found))
    if method == "gguf":
        header, tensors = read_gguf(folder, config)
        kept = any(tensor.format.bits for tensor in tensors.values())
        return Checkpoint(
            tensors, header.tensors, "gguf" if kept else None, float_dtype(header), header
        )
    try:
        found = headers.read_headers(folder, headers.STORED_BYTES)
        own = (
            mistral.own_names(found)
            if mistral.is_consolidated(found)
            else {one: one for one in found}
        )
        infos = {
            name: TensorInfo(found[one].element, found[one].shape, found[one].meant)
            for name, one in own.items()
        }
        settings = config["quantization_config"]
        tensors = find_scheme(method)(settings, infos, lambda name: found[own[name]].read())
        scales = cache_scales(settings, infos, lambda name: found[own[name]].read())
        if mistral.is_consolidated(found):
            tensors = mistral.with_own_names(tensors, own, config)
    except ValueError as error:
        raise ModelLoadError(f"{folder}: {error}") from error
    left = {
        member: found[member]
        for tensor in tensors.values()
        if not tensor.decoder
        for member in tensor.members.values()
    }
    for name, one in left.items():
        headers.check_float(name, one)
    return Checkpoint(tensors, found, method, headers.common_dtype(left), cache_scales=scales)


def kept_formats(
    plan: Mapping[str, tuple[Piece, ...]],
    spec: DecoderSpec,
    tensors: Mapping[str, StoredTensor],
) -> FormatTable:
    """The format of every parameter that is not kept as floats, and of the experts of each layer.

    A parameter made of several tensors has a format that holds them all, or is floats.
    """
    found: dict[str, Format] = {}
    experts: dict[str, dict[str, set[Format]]] = {}
    for name, parameter in parameters(spec).items():
        if parameter.group not in ("attention", "feed_forward", "head"):
            continue
        if len(parameter.shape) != 2:
            continue
        format = _joined(plan[name], parameter, tensors)
        if ".experts." in name:
            layer, _, part = name.partition(".experts.")
            of_layer = experts.setdefault(layer, {"wide": set(), "down": set()})
            of_layer[_of_expert(part)].add(PLAIN if format.has_order else format)
        elif format != PLAIN:
            found[name] = format
    for name, formats in experts.items():
        both = experts_format(formats["wide"], formats["down"])
        if both is None:
            continue
        found[f"{name}.experts"] = both
        parts = dict(zip(("wide", "down"), expert_formats(both), strict=True))
        for parameter_name in plan:
            if parameter_name.startswith(f"{name}.experts.") and parameter_name.endswith(".weight"):
                found[parameter_name] = parts[_of_expert(parameter_name)]
    if spec.tie_head:
        embedding = "embedding.weight"
        format = _joined(plan[embedding], parameters(spec)[embedding], tensors)
        if format != PLAIN:
            found["head.weight"] = format
    return FormatTable(found)


def _of_expert(name: str) -> str:
    """Which of an expert's two products a weight is of: "down", or the one to its width."""
    return "down" if name.endswith(".down.weight") else "wide"


def _joined(
    pieces: tuple[Piece, ...], parameter: Parameter, tensors: Mapping[str, StoredTensor]
) -> Format:
    if not all(_is_kept(piece, tensors[piece.source]) for piece in pieces):
        return PLAIN
    formats = (
        (tensors[piece.source].format, sum(parameter.parts[part][0] for part in piece.parts))
        for piece in sorted(pieces, key=lambda piece: piece.parts)
    )
    format = stacked_format(formats) or PLAIN
    if len({tensors[piece.source].options.get("order", "") for piece in pieces}) > 1:
        return PLAIN
    scales = {tensors[piece.source].options.get("inputs") for piece in pieces}
    return replace(format, inputs="") if len(scales) > 1 else format


def _is_kept(piece: Piece, stored: StoredTensor) -> bool:
    """Whether a piece takes rows of what is stored, and no more."""
    is_turned = bool(stored.options.get("is_turned"))
    if piece.expert is not None and not is_turned:
        return False
    return piece.fold != "add_one" and piece.transpose == is_turned
