"""Makes a decoder of a description: builds its parts, binds operations, loads and packs weights.

What the parts compute is in `layers`; what is read from where is in `models.loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from quire.hardware.allocator import give_back
from quire.layers.altup import Streams as AltUpEnds
from quire.layers.dtypes import dtype_name
from quire.layers.embedding import Embedding, Head
from quire.layers.hashed_moe import HashedMoe
from quire.layers.layer_inputs import LayerInputs
from quire.layers.mlp import FEED_FORWARDS, CurvedMlp, FeedForward
from quire.layers.moe import MoeMlp, NormedParts
from quire.layers.norm import NORMS, Norms
from quire.layers.shortcut_moe import ShortcutMoe
from quire.models.build_encoder import before_head, beginning, make_encoder
from quire.models.build_mixers import MixerParts, make_mixer
from quire.models.build_positions import position_tables
from quire.models.cross_layers import CROSS_PLACEMENTS
from quire.models.decoder import AnyDecoder, Decoder, StreamEnds
from quire.models.decoder_layers import PLACEMENTS, DecoderLayer
from quire.models.encoder import EncoderStack
from quire.models.foreign.decoder import ForeignDecoder
from quire.models.hyper_layers import HyperLayer, hyper_ends
from quire.models.last_layer import with_last
from quire.models.loading.ahead import Ahead
from quire.models.loading.kept import Keeping, ReadAhead, about_packed
from quire.models.loading.reader import DummySource, checkpoint_source
from quire.models.names import WeightMap
from quire.models.registry import ModelDescription, weight_map_of
from quire.models.shortcut_layers import SHORTCUTS
from quire.models.spec import DecoderSpec, Dense, HyperStreams, LayerSpec, Mla, Moe
from quire.models.spec import Streams as SpecStreams
from quire.models.stream_layers import (
    AltUpLayer,
    BlendingLayer,
    EndedLayer,
    EndParts,
    KeepingLayer,
)
from quire.models.twice_layers import AfterSumsTwiceLayer
from quire.models.weighed_layers import WEIGHED
from quire.ops.cpu.library import library, native
from quire.ops.moe import ExpertSizes, RouteRule
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, CacheStorage, Formats, LayerScales
from quire.quant.schemes.checkpoint import CheckpointScheme, Scheme
from quire.quant.schemes.online import UNQUANTIZED

_SKELETONS: dict[str, Callable[..., Any]] = {**PLACEMENTS, **SHORTCUTS, **CROSS_PLACEMENTS}
_SKELETONS |= {"after_sums_twice": AfterSumsTwiceLayer, **WEIGHED}


def build_decoder(
    description: ModelDescription,
    table: Table,
    *,
    dtype: torch.dtype,
    device: torch.device,
    load_format: str = "auto",
    progress: bool = False,
    max_model_len: int,
    scheme: Scheme = UNQUANTIZED,
    cache_format: str = "plain",
    packed_weights: tuple[Path, int] | None = None,
    ahead: Ahead | ReadAhead | None = None,
) -> AnyDecoder:
    """The model of a description with its weights.

    load_format    "dummy" makes random weights; all others read the folder, as its files are.
    progress       a bar on the terminal while reading.
    max_model_len  longest sequence in tokens; position tables and dynamic scaling follow it.
    scheme         what is made of the weights as they are read, one at a time.
    cache_format   how keys and values are kept, a key of `ops.formats.CACHE_FORMATS`.
    packed_weights  the folder that keeps packed weights from one start to the next, and its bytes; CPU only.
    ahead          what is being packed already of this description's weights.
    Raises ModelLoadError if the weights are not those that the description implies.
    """
    return build_from_spec(
        description.spec,
        weight_map_of(description),
        Path(description.path),
        table,
        dtype=dtype,
        device=device,
        load_format=load_format,
        progress=progress,
        max_model_len=max_model_len,
        scheme=scheme,
        cache_format=cache_format,
        config=description.hf_config,
        cache_scales=description.cache_scales if cache_format == "fp8" else {},
        packed_weights=packed_weights,
        ahead=ahead,
    )


def build_from_spec(
    spec: DecoderSpec,
    weight_map: WeightMap,
    folder: Path,
    table: Table,
    *,
    dtype: torch.dtype,
    device: torch.device,
    load_format: str,
    progress: bool,
    max_model_len: int,
    scheme: Scheme = UNQUANTIZED,
    cache_format: str = "plain",
    config: Mapping[str, Any] = MappingProxyType({}),
    cache_scales: LayerScales = MappingProxyType({}),
    packed_weights: tuple[Path, int] | None = None,
    ahead: Ahead | ReadAhead | None = None,
) -> AnyDecoder:
    """`build_decoder` for a description and a weight map that need not be in the registry."""
    spec = spec.for_length(max_model_len)
    decoder: AnyDecoder
    if spec.program is not None:
        decoder = ForeignDecoder(
            table,
            spec,
            dtype=dtype,
            max_model_len=max_model_len,
            format=scheme.layers,
            head_format=scheme.head,
            cache=CacheStorage(cache_format, cache_scales),
        )
    else:
        cache = CacheStorage(cache_format, cache_scales)
        decoder = _decoder(spec, table, dtype, device, max_model_len, scheme, cache)
    if load_format == "dummy":
        decoder.load(DummySource(spec, dtype=dtype, device=device))
    else:
        keeping = None
        if packed_weights is not None and device.type == "cpu":
            isa = native().isa if library() is not None else ""
            keeping = Keeping(
                *packed_weights, about_packed(config, spec, dtype_name(dtype), scheme), isa
            )
        with checkpoint_source(
            folder,
            weight_map,
            spec,
            dtype=dtype,
            device=device,
            progress=progress,
            config=config,
            formats=scheme.layers if isinstance(scheme, CheckpointScheme) else PLAIN,
            keeping=keeping,
            ahead=ahead,
        ) as weights:
            decoder.load(weights)
    give_back()
    return decoder


def _decoder(
    spec: DecoderSpec,
    table: Table,
    dtype: torch.dtype,
    device: torch.device,
    max_model_len: int,
    scheme: Scheme,
    cache: CacheStorage,
) -> Decoder:
    tables = position_tables(spec, max_model_len, device)
    size = spec.hidden_size
    embedding = Embedding(
        table,
        "embedding",
        vocab_size=spec.vocab_size,
        size=size,
        scale=spec.embedding_scale,
        dtype=dtype,
    )
    parts = MixerParts(table, size, tables, dtype, scheme.layers, cache)
    embedding_norm, added = beginning(parts, "", spec, spec.token_types)
    return Decoder(
        table,
        spec,
        embedding=embedding,
        embedding_norm=embedding_norm,
        added=added,
        layer_inputs=_layer_inputs(parts, spec),
        streams=_streams(parts, spec),
        encoder=_encoder(parts, spec, embedding),
        layers=_layers(parts, spec),
        final_norm=NORMS[spec.norm](table, "final_norm", size=size, eps=spec.norm_eps, dtype=dtype),
        before_head=before_head(parts, spec),
        head=Head(
            table,
            "head",
            size=size,
            vocab_size=spec.vocab_size,
            bias=spec.head_bias,
            scale=spec.logit_scale,
            softcap=spec.logit_softcap,
            dtype=dtype,
            format=scheme.head,
        ),
        dtype=dtype,
    )


def _encoder(parts: MixerParts, spec: DecoderSpec, embedding: Embedding) -> EncoderStack | None:
    """Its attentions are numbered behind the decoder's; they keep numbers as they are computed."""
    if spec.encoder is None:
        return None
    parts = replace(parts, cache=CacheStorage("plain", {}))
    layers = [
        _layer(parts, index, len(spec.mixers) + index, layer, spec, prefix="encoder.")
        for index, layer in enumerate(spec.encoder.layers)
    ]
    return make_encoder(parts, spec.encoder, embedding, layers)


def _layer_inputs(parts: MixerParts, spec: DecoderSpec) -> LayerInputs | None:
    inputs = spec.layer_inputs
    if inputs is None:
        return None
    return LayerInputs(
        parts.table,
        "layer_inputs",
        vocab_size=inputs.vocab_size,
        num_layers=len(spec.layers),
        input_size=inputs.size,
        size=parts.size,
        eps=spec.norm_eps,
        dtype=parts.dtype,
    )


def _streams(parts: MixerParts, spec: DecoderSpec) -> StreamEnds | None:
    streams = spec.streams
    if streams is None:
        return None
    if isinstance(streams, HyperStreams):
        return hyper_ends(parts, streams, spec.norm_eps)
    sizes = {"count": streams.count, "active": streams.active, "size": parts.size}
    return AltUpEnds(parts.table, "streams", **sizes, dtype=parts.dtype)


def _layers(parts: MixerParts, spec: DecoderSpec) -> list[DecoderLayer]:
    picking = [one for one in spec.attentions if isinstance(one, Mla) and one.picks is not None]
    if picking and picking[0].indexer is None:
        raise ValueError("the first layer that sees picked tokens has nothing that picks them")
    layers: list[DecoderLayer] = []
    number = 0
    for index, layer in enumerate(spec.layers):
        layers.append(_layer(parts, index, number, layer, spec))
        number += len(layer.cached)
    return with_last(layers, spec, parts.table, parts.dtype)


_PLACEMENT_OF = {type(None): None, SpecStreams: "altup", HyperStreams: "hyper"}
"""Where layers stand among streams of each kind."""


def _layer(
    parts: MixerParts,
    index: int,
    number: int,
    spec: LayerSpec,
    decoder: DecoderSpec,
    *,
    prefix: str = "",
) -> DecoderLayer:
    """Layer `index`, whose first mixer has that number."""
    name = f"{prefix}layers.{index}"
    part, feed_forward = spec.feed_forward, None
    if part is not None:
        make: Callable[..., Any] = _moe if isinstance(part, Moe) else _dense
        make = _shortcut_moe if spec.placement == "shortcut_open" else make
        kinds: tuple[Any, ...] = (part, parts.size, parts.dtype, parts.format)
        feed_forward = make(parts.table, f"{name}.feed_forward", *kinds)
    norms = Norms(
        table=parts.table,
        kind=spec.norm,
        size=parts.size,
        eps=spec.norm_eps,
        dtype=parts.dtype,
        residual_scale=spec.residual_scale,
        stream_scales=spec.stream_scales,
    )
    made: dict[str, Any] = {
        "mixer": make_mixer(parts, name, number, spec),
        "feed_forward": feed_forward,
    }
    end = EndParts(parts, decoder, name, index, norms)
    wanted = _PLACEMENT_OF[type(decoder.streams)]
    if wanted != spec.placement if wanted else spec.placement in _PLACEMENT_OF.values():
        raise ValueError(
            f"layers stand as {wanted} among the decoder's streams, not {spec.placement}"
        )
    if isinstance(decoder.streams, HyperStreams):
        eps = spec.norm_eps
        return HyperLayer(parts, name, decoder.streams, norms, norm_eps=eps, **made)
    if decoder.streams is not None:
        return AltUpLayer(spec, decoder.streams, end, **made)
    layer: DecoderLayer = _SKELETONS[spec.placement](name, **made, norms=norms)
    if spec.scaled or spec.input_act is not None:
        layer = EndedLayer(layer, spec, end)
    if spec.blends:
        layer = BlendingLayer(layer, spec.blends, end)
    return KeepingLayer(layer, end) if index in decoder.kept and not prefix else layer


def _dense(
    table: Table, name: str, spec: Dense, size: int, dtype: torch.dtype, format: Formats
) -> FeedForward:
    of_gates: dict[str, Any] = {}
    if spec.gated:
        of_gates = {"scales": (spec.gate_scale, spec.up_scale), "sparsity": spec.sparsity}
        of_gates |= {"down_bias": spec.down_bias, "inner_eps": spec.inner_eps, "limit": spec.limit}
    make = CurvedMlp if spec.activation == "xielu" else FEED_FORWARDS[spec.gated]
    return make(
        table,
        name,
        size=size,
        width=spec.width,
        act=spec.activation,
        bias=spec.bias,
        dtype=dtype,
        format=format,
        **of_gates,
    )


def _shortcut_moe(
    table: Table, name: str, spec: Moe, size: int, dtype: torch.dtype, format: Formats
) -> ShortcutMoe:
    return ShortcutMoe(
        table,
        name,
        ExpertSizes(spec.num_experts, size, spec.width, spec.activation),
        RouteRule(spec.top_k, normalize=spec.normalize, scale=spec.scale),
        num_identity=spec.num_identity,
        choice_bias=spec.choice_bias,
        shared_width=spec.shared_width,
        dtype=dtype,
        format=format,
    )


def _moe(
    table: Table, name: str, spec: Moe, size: int, dtype: torch.dtype, format: Formats
) -> FeedForward | HashedMoe:
    sizes = ExpertSizes(
        spec.num_experts,
        spec.latent or size,
        spec.width,
        spec.activation,
        spec.limit,
        spec.weigh_inputs,
        spec.gated,
        spec.gate_limit(spec.limit),
    )
    other = spec.shared_limit
    rule = RouteRule(
        spec.top_k,
        scoring=spec.scoring,
        normalize=spec.normalize,
        scale=spec.scale,
        groups=spec.groups,
        top_groups=spec.top_groups,
        group_best=spec.group_best,
        jitter=spec.jitter,
    )
    kinds: dict[str, Any] = {"dtype": dtype, "format": format, "shared_width": spec.shared_width}
    if spec.hashed:
        return HashedMoe(table, name, sizes, rule, **kinds)
    if spec.norm_eps is not None:
        return NormedParts(table, name, sizes, rule, eps=spec.norm_eps, **kinds)
    return MoeMlp(
        table,
        name,
        sizes,
        rule,
        size=size,
        bias=spec.bias,
        sum_bias=spec.sum_bias,
        router_bias=spec.router_bias,
        router_dtype=torch.float32 if spec.router_float32 else dtype,
        choice_bias=spec.choice_bias,
        shared_gate=spec.shared_gate,
        shared_limits=None if other is None else (other, spec.gate_limit(other)),
        **kinds,
    )
