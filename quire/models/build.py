"""Makes a decoder of a description: builds its parts, binds operations, loads and packs weights.

What the parts compute is in `layers`; what is read from where is in `models.loading`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from quire import __version__
from quire.hardware.allocator import give_back
from quire.layers import rope as rope_tables
from quire.layers.embedding import AddedRows, Embedding, Head
from quire.layers.mlp import FEED_FORWARDS, FeedForward
from quire.layers.moe import MoeMlp
from quire.layers.norm import NORMS, Norms
from quire.models.build_mixers import MixerParts, Tables, make_mixer
from quire.models.decoder import AnyDecoder, Decoder
from quire.models.decoder_layers import PLACEMENTS, DecoderLayer
from quire.models.foreign.decoder import ForeignDecoder
from quire.models.loading.ahead import Ahead
from quire.models.loading.packed import Keeping
from quire.models.loading.reader import DummySource, checkpoint_source
from quire.models.names import WeightMap
from quire.models.registry import ModelDescription, weight_map_of
from quire.models.spec import (
    DecoderSpec,
    Dense,
    DynamicScaling,
    LayerSpec,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Moe,
    Rope,
    YarnScaling,
    growths,
)
from quire.ops.moe import ExpertSizes, RouteRule
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, Formats
from quire.quant.schemes.checkpoint import CheckpointScheme, Scheme
from quire.quant.schemes.online import UNQUANTIZED


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
    ahead: Ahead | None = None,
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
    packed_weights: tuple[Path, int] | None = None,
    ahead: Ahead | None = None,
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
            cache_format=cache_format,
        )
    else:
        decoder = _decoder(spec, table, dtype, device, max_model_len, scheme, cache_format)
    if load_format == "dummy":
        decoder.load(DummySource(spec, dtype=dtype, device=device))
    else:
        keeping = None
        if packed_weights is not None and device.type == "cpu":
            about = repr((__version__, config.get("architectures"), spec, dtype, scheme))
            keeping = Keeping(*packed_weights, about)
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


def rope_table(rope: Rope, *, max_model_len: int, device: torch.device) -> torch.Tensor:
    """[max_model_len, rope.dim] float32: the cosines and sines that a description asks for."""
    scaling, theta, attention_factor = rope.scaling, rope.theta, 1.0
    if isinstance(scaling, DynamicScaling):
        theta = rope_tables.dynamic_theta(
            rope.dim,
            theta,
            factor=scaling.factor,
            original_len=scaling.original_len,
            max_model_len=max_model_len,
        )
    inv_freq = rope_tables.frequencies(rope.dim, theta)
    if isinstance(scaling, LinearScaling):
        inv_freq = inv_freq / scaling.factor
    elif isinstance(scaling, Llama3Scaling):
        inv_freq = rope_tables.llama3_frequencies(
            inv_freq,
            factor=scaling.factor,
            low_freq_factor=scaling.low_freq_factor,
            high_freq_factor=scaling.high_freq_factor,
            original_len=scaling.original_len,
        )
    elif isinstance(scaling, YarnScaling):
        attention_factor = scaling.attention_factor
        inv_freq = rope_tables.yarn_frequencies(
            rope.dim,
            theta,
            factor=scaling.factor,
            original_len=scaling.original_len,
            beta_fast=scaling.beta_fast,
            beta_slow=scaling.beta_slow,
            truncate=scaling.truncate,
        )
    elif isinstance(scaling, LongRopeScaling):
        attention_factor = scaling.attention_factor
        is_long = max_model_len > scaling.original_len
        inv_freq = rope_tables.longrope_frequencies(
            rope.dim, theta, scaling.long_factor if is_long else scaling.short_factor
        )
    return rope_tables.angle_table(
        inv_freq, max_len=max_model_len, attention_factor=attention_factor, device=device
    )


def _tables(spec: DecoderSpec, max_model_len: int, device: torch.device) -> Tables:
    """Those of positions that the layers ask for."""
    ropes = {mixer.positions for mixer in spec.attentions if mixer.positions is not None}
    tables: Tables = {
        rope: rope_table(rope, max_model_len=max_model_len, device=device) for rope in ropes
    }
    for growth, head_size in growths(spec):
        tables[growth, head_size] = rope_tables.growth_table(
            head_size,
            scale=growth.scale,
            interval=growth.interval,
            shift=growth.shift,
            max_len=max_model_len,
            device=device,
        )
    return tables


def _decoder(
    spec: DecoderSpec,
    table: Table,
    dtype: torch.dtype,
    device: torch.device,
    max_model_len: int,
    scheme: Scheme,
    cache_format: str,
) -> Decoder:
    tables = _tables(spec, max_model_len, device)
    size = spec.hidden_size
    embedding = Embedding(
        table,
        "embedding",
        vocab_size=spec.vocab_size,
        size=size,
        scale=spec.embedding_scale,
        dtype=dtype,
    )
    kind = spec.embedding_norm
    embedding_norm = [
        NORMS[kind](table, "embedding_norm", size=size, eps=spec.norm_eps, dtype=dtype)
        for kind in (kind,)
        if kind is not None
    ]
    added = [
        AddedRows(table, name, rows=rows, size=size, dtype=dtype, by_type=name == "token_types")
        for name, rows in (
            ("token_types", spec.token_types),
            ("positions", spec.learned_positions),
        )
        if rows
    ]
    parts = MixerParts(table, size, tables, dtype, scheme.layers, cache_format)
    return Decoder(
        table,
        spec,
        embedding=embedding,
        embedding_norm=embedding_norm,
        added=added,
        layers=_layers(parts, spec),
        final_norm=NORMS[spec.norm](table, "final_norm", size=size, eps=spec.norm_eps, dtype=dtype),
        head=Head(
            table,
            "head",
            size=size,
            vocab_size=spec.vocab_size,
            bias=spec.head_bias and not spec.tie_head,
            scale=spec.logit_scale,
            softcap=spec.logit_softcap,
            dtype=dtype,
            format=scheme.head,
        ),
        dtype=dtype,
    )


def _layers(parts: MixerParts, spec: DecoderSpec) -> list[DecoderLayer]:
    layers: list[DecoderLayer] = []
    number = 0
    for index, layer in enumerate(spec.layers):
        layers.append(_layer(parts, index, number, layer))
        number += len(layer.mixers)
    return layers


def _layer(parts: MixerParts, index: int, number: int, spec: LayerSpec) -> DecoderLayer:
    """Layer `index`, whose first mixer has that number."""
    name = f"layers.{index}"
    part, feed_forward = spec.feed_forward, None
    if part is not None:
        make = _moe if isinstance(part, Moe) else _dense
        feed_forward = make(
            parts.table,
            f"{name}.feed_forward",
            part,  # type: ignore[arg-type]
            parts.size,
            parts.dtype,
            parts.format,
        )
    norms = Norms(
        table=parts.table,
        kind=spec.norm,
        size=parts.size,
        eps=spec.norm_eps,
        dtype=parts.dtype,
        residual_scale=spec.residual_scale,
    )
    return PLACEMENTS[spec.placement](
        name,
        mixer=make_mixer(parts, name, number, spec),
        feed_forward=feed_forward,
        norms=norms,
    )


def _dense(
    table: Table, name: str, spec: Dense, size: int, dtype: torch.dtype, format: Formats
) -> FeedForward:
    scales = {"scales": (spec.gate_scale, spec.up_scale)} if spec.gated else {}
    return FEED_FORWARDS[spec.gated](
        table,
        name,
        size=size,
        width=spec.width,
        act=spec.activation,
        bias=spec.bias,
        dtype=dtype,
        format=format,
        **scales,
    )


def _moe(
    table: Table, name: str, spec: Moe, size: int, dtype: torch.dtype, format: Formats
) -> FeedForward:
    return MoeMlp(
        table,
        name,
        ExpertSizes(
            spec.num_experts, size, spec.width, spec.activation, spec.limit, spec.weigh_inputs
        ),
        RouteRule(
            spec.top_k,
            scoring=spec.scoring,
            normalize=spec.normalize,
            scale=spec.scale,
            groups=spec.groups,
            top_groups=spec.top_groups,
            group_best=spec.group_best,
            jitter=spec.jitter,
        ),
        bias=spec.bias,
        router_bias=spec.router_bias,
        router_dtype=torch.float32 if spec.router_float32 else dtype,
        choice_bias=spec.choice_bias,
        shared_width=spec.shared_width,
        shared_gate=spec.shared_gate,
        dtype=dtype,
        format=format,
    )
