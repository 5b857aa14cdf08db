"""Makes the mixer of a layer from its description: attention, latent attention, recurrent ones.

The rest of a layer is put together in `models.build`; what mixers compute is in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any

import torch

from quire.layers.attention import AttentionLayer, AttentionSizes
from quire.layers.compressed_attention import CompressedAttention, CompressedSizes
from quire.layers.cross_attention import CrossAttention
from quire.layers.delta_net import DeltaNetLayer, DeltaNetSizes
from quire.layers.distances import Buckets
from quire.layers.indexer import EarlierPicks, Indexer, IndexerSizes, Picker
from quire.layers.linear_attention import LinearAttentionLayer
from quire.layers.mamba import Mamba1Layer, Mamba1Sizes, Mamba2Layer, Mamba2Sizes
from quire.layers.mla import MlaLayer, MlaSizes
from quire.layers.shared_attention import SharedAttention
from quire.layers.shared_block import BlockParts, MixerAfterBlock, SharedBlock
from quire.layers.short_conv import ShortConvLayer
from quire.layers.side_by_side import MixersSideBySide
from quire.models.cross_layers import MixerAndCross
from quire.models.decoder_layers import MixerLayer
from quire.models.parameters import named_mixers
from quire.models.recurrent import GatedDeltaNet, LinearAttention, Mamba1, Mamba2, ShortConv
from quire.models.spec import (
    AfterBlock,
    Attention,
    Compressed,
    LayerSpec,
    Mla,
    Rope,
    SideBySide,
    Temperature,
)
from quire.ops.registry import Table
from quire.quant.formats import CacheStorage, Formats

BACK = -1
Tables = dict[Rope | tuple[Temperature | Rope, int], torch.Tensor]
"""Of positions, by what asks for them: a turn, a growth of queries and the size of heads, a turn and BACK."""


@dataclass(frozen=True)
class MixerParts:
    """What all mixers of a decoder are made with.

    size    of the residual stream. tables: [max_len, dim].
    format  of the weights; cache: how keys and values are kept.
    blocks  by the layer that they are known by: what several layers share.
    """

    table: Table
    size: int
    tables: Tables
    dtype: torch.dtype
    format: Formats
    cache: CacheStorage
    blocks: dict[int, SharedBlock] = field(default_factory=dict)


def make_mixer(parts: MixerParts, name: str, number: int, spec: LayerSpec) -> MixerLayer | None:
    """The mixer of a layer whose parameters begin with `name`; None for a layer without one.

    number  of the first thing that its mixers keep, among those of all layers.
    """
    if isinstance(spec.mixer, AfterBlock):
        return _after_block(parts, name, number, spec.mixer)
    made = [
        _MAKERS[type(mixer)](parts, f"{name}.{own}", number + place, mixer)
        for place, (own, mixer) in enumerate(named_mixers(spec))
        if type(mixer) in _MAKERS
    ]
    if isinstance(spec.mixer, SideBySide):
        return MixersSideBySide(
            parts.table, made, spec.mixer.scales, size=parts.size, dtype=parts.dtype
        )
    if spec.cross is not None:
        return MixerAndCross(*made)
    return made[0] if made else None


def _after_block(parts: MixerParts, name: str, number: int, spec: AfterBlock) -> MixerLayer:
    of_block = BlockParts(
        table=parts.table,
        sizes=_attention_sizes(parts, spec.attention),
        width=spec.feed_forward.width,
        act=spec.feed_forward.activation,
        bias=spec.feed_forward.bias,
        ranks=(spec.heads_rank, spec.rank),
        eps=spec.norm_eps,
        dtype=parts.dtype,
        format=parts.format,
        cache_format=parts.cache.format,
    )
    owns = spec.home not in parts.blocks
    if owns:
        parts.blocks[spec.home] = SharedBlock(f"layers.{spec.home}.block", of_block)
    rope = spec.attention.rope
    return MixerAfterBlock(
        name,
        number,
        of_block,
        parts.blocks[spec.home],
        _MAKERS[type(spec.mixer)](parts, f"{name}.mixers.1", number + 1, spec.mixer),
        rope=None if rope is None else parts.tables[rope],
        owns_block=owns,
        cache_scales=parts.cache.scales.get(int(name.split(".")[1])),
    )


def _attention_sizes(parts: MixerParts, spec: Attention) -> AttentionSizes:
    distances = spec.distances
    return AttentionSizes(
        size=parts.size,
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_size=spec.head_size,
        scale=spec.query_scale,
        window=spec.window,
        softcap=spec.softcap,
        sinks=spec.sinks,
        alibi=spec.alibi,
        distances=None if distances is None else Buckets(*astuple(distances)),
        clip=spec.clip,
        bidirectional=spec.bidirectional,
        chunked=spec.chunked,
        values=spec.values,
        value_size=spec.value_size,
        value_scale=spec.value_scale,
    )


def _attention(parts: MixerParts, name: str, index: int, spec: Attention) -> MixerLayer:
    sizes = _attention_sizes(parts, spec)
    if spec.cross:
        return CrossAttention(
            parts.table,
            name,
            index,
            sizes,
            qkv_bias=spec.qkv_bias,
            out_bias=spec.out_bias,
            dtype=parts.dtype,
            format=parts.format,
            cache_format=parts.cache.format,
        )
    rope = None if spec.rope is None else parts.tables[spec.rope]
    if spec.shares is not None:
        return SharedAttention(
            parts.table,
            name,
            spec.shares,
            sizes,
            rope=rope,
            interleaved=spec.rope is not None and spec.rope.interleaved,
            normed=spec.qk_norm != "none",
            qk_eps=spec.norm_eps,
            bias=spec.qkv_bias,
            out_bias=spec.out_bias,
            dtype=parts.dtype,
            format=parts.format,
            cache_format=parts.cache.format,
            cache_scales=parts.cache.scales.get(spec.shares),
        )
    return AttentionLayer(
        parts.table,
        name,
        index,
        sizes,
        rope=rope,
        growth=parts.tables[spec.temperature, spec.head_size] if spec.temperature else None,
        interleaved=spec.rope is not None and spec.rope.interleaved,
        qk_norm=spec.qk_norm,
        qk_eps=spec.norm_eps,
        norm_after_rope=spec.norm_after_rope,
        qkv_bias=spec.qkv_bias,
        out_bias=spec.out_bias,
        gate=("heads" if spec.gate_heads else "numbers") if spec.gate else None,
        dtype=parts.dtype,
        format=parts.format,
        cache_format=parts.cache.format,
        cache_scales=parts.cache.scales.get(int(name.split("layers.")[1].split(".")[0])),
    )


def _mla(parts: MixerParts, name: str, index: int, spec: Mla) -> MixerLayer:
    sizes = MlaSizes(
        size=parts.size,
        num_heads=spec.num_heads,
        q_rank=spec.q_rank,
        kv_rank=spec.kv_rank,
        nope_size=spec.nope_size,
        rope_size=spec.rope.dim,
        out_size=spec.out_size,
        scale=spec.query_scale,
        kv_factor=spec.kv_factor,
    )
    return MlaLayer(
        parts.table,
        name,
        index,
        sizes,
        rope=None if spec.positions is None else parts.tables[spec.positions],
        growth=parts.tables[spec.temperature, spec.head_size] if spec.temperature else None,
        interleaved=spec.rope.interleaved,
        bias=spec.bias,
        eps=spec.norm_eps,
        dtype=parts.dtype,
        format=parts.format,
        cache_format=parts.cache.format,
        picker=_picker(parts, f"{name}.indexer", index + 1, spec),
    )


def _picker(parts: MixerParts, name: str, index: int, attention: Mla) -> Picker | None:
    """What picks tokens for an attention; `index` is its number if there is something."""
    if attention.picks is None:
        return None
    spec = attention.picks.indexer
    if spec is None:
        return EarlierPicks()
    sizes = IndexerSizes(
        size=parts.size,
        q_rank=spec.q_rank,
        num_heads=spec.num_heads,
        head_size=spec.head_size,
        rope_size=attention.rope.dim,
    )
    return Indexer(
        parts.table,
        name,
        index,
        sizes,
        rope=parts.tables[attention.rope],
        interleaved=spec.interleaved,
        eps=spec.norm_eps,
        dtype=parts.dtype,
        format=parts.format,
        cache_format=parts.cache.format,
    )


def _compressed(parts: MixerParts, name: str, index: int, spec: Compressed) -> MixerLayer:
    sizes = CompressedSizes(
        size=parts.size,
        num_heads=spec.num_heads,
        head_size=spec.head_size,
        q_rank=spec.q_rank,
        scale=spec.query_scale,
        window=spec.window,
        rate=spec.rate,
        series=spec.series,
        index_heads=spec.index_heads,
        index_size=spec.index_size,
        top_k=spec.index_top_k,
        out_groups=spec.out_groups,
        out_rank=spec.out_rank,
        eps=spec.norm_eps,
    )
    return CompressedAttention(
        parts.table,
        name,
        index,
        sizes,
        tables=(parts.tables[spec.rope], parts.tables[spec.rope, BACK]),
        interleaved=spec.rope.interleaved,
        dtype=parts.dtype,
        format=parts.format,
        cache_format=parts.cache.format,
    )


def _short_conv(parts: MixerParts, name: str, index: int, spec: ShortConv) -> MixerLayer:
    return ShortConvLayer(
        parts.table,
        name,
        index,
        size=parts.size,
        width=spec.width,
        kernel=spec.kernel,
        bias=spec.bias,
        dtype=parts.dtype,
        format=parts.format,
    )


def _delta_net(parts: MixerParts, name: str, index: int, spec: GatedDeltaNet) -> MixerLayer:
    sizes = DeltaNetSizes(
        size=parts.size,
        key_heads=spec.key_heads,
        heads=spec.num_heads,
        key_size=spec.key_size,
        value_size=spec.value_size,
        kernel=spec.kernel,
        rank=spec.rank,
        strength=spec.strength,
        gate=spec.gate,
        eps=spec.norm_eps,
    )
    return DeltaNetLayer(parts.table, name, index, sizes, dtype=parts.dtype, format=parts.format)


def _linear_attention(
    parts: MixerParts, name: str, index: int, spec: LinearAttention
) -> MixerLayer:
    return LinearAttentionLayer(
        parts.table,
        name,
        index,
        size=parts.size,
        num_heads=spec.num_heads,
        head_size=spec.head_size,
        decays=spec.decays,
        act=spec.activation,
        eps=spec.norm_eps,
        dtype=parts.dtype,
        format=parts.format,
    )


def _mamba1(parts: MixerParts, name: str, index: int, spec: Mamba1) -> MixerLayer:
    sizes = Mamba1Sizes(
        size=parts.size,
        inner=spec.inner,
        state_size=spec.state_size,
        step_rank=spec.step_rank,
        kernel=spec.kernel,
        conv_bias=spec.conv_bias,
        bias=spec.bias,
        norms=spec.norms,
        norm_eps=spec.norm_eps,
    )
    return Mamba1Layer(parts.table, name, index, sizes, dtype=parts.dtype, format=parts.format)


def _mamba2(parts: MixerParts, name: str, index: int, spec: Mamba2) -> MixerLayer:
    sizes = Mamba2Sizes(
        size=parts.size,
        num_heads=spec.num_heads,
        head_size=spec.head_size,
        state_size=spec.state_size,
        groups=spec.num_groups,
        kernel=spec.kernel,
        conv_bias=spec.conv_bias,
        bias=spec.bias,
        gate_norm=spec.gate_norm,
        norm_groups=spec.norm_groups,
        norm_eps=spec.norm_eps,
        limits=spec.step_limit,
        scales=spec.scales,
    )
    return Mamba2Layer(parts.table, name, index, sizes, dtype=parts.dtype, format=parts.format)


_MAKERS: dict[type, Callable[[MixerParts, str, int, Any], MixerLayer]] = {
    Attention: _attention,
    Mla: _mla,
    Compressed: _compressed,
    ShortConv: _short_conv,
    GatedDeltaNet: _delta_net,
    LinearAttention: _linear_attention,
    Mamba1: _mamba1,
    Mamba2: _mamba2,
}
"""What makes each kind of mixer: (parts, name, its number, its description); an indexer is its attention's."""
