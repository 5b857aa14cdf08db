"""Makes the mixer of a layer from its description: attention, latent attention, several of them.

Those that keep states are made in `models.build_recurrent`, the rest of a layer in `models.build`; what mixers
compute is in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from typing import Any

from quire.layers.attention import AttentionLayer, AttentionSizes
from quire.layers.block_attention import BlockAttention, BlockSizes
from quire.layers.chosen_heads import ChosenHeads
from quire.layers.compressed_attention import CompressedAttention, CompressedSizes
from quire.layers.cross_attention import CrossAttention
from quire.layers.distances import Buckets
from quire.layers.indexer import EarlierPicks, Indexer, IndexerSizes, Picker
from quire.layers.low_rank_attention import LowRankAttention
from quire.layers.mla import MlaLayer, MlaSizes
from quire.layers.output_gate import KINDS
from quire.layers.paired_attention import PairedAttention
from quire.layers.shared_attention import SharedAttention
from quire.layers.shared_block import BlockParts, MixerAfterBlock, SharedBlock
from quire.layers.side_by_side import MixersSideBySide
from quire.layers.weighed_keys import WeighedKeys
from quire.models.build_recurrent import RECURRENT_MAKERS
from quire.models.cross_layers import MixerAndCross
from quire.models.decoder_layers import MixerLayer
from quire.models.mixer_parts import BACK as BACK
from quire.models.mixer_parts import MixerParts as MixerParts
from quire.models.mixer_parts import Tables as Tables
from quire.models.parameters import named_mixers
from quire.models.spec import (
    AfterBlock,
    Attention,
    Compressed,
    LayerSpec,
    Mla,
    SideBySide,
)


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
        head_size=spec.made_size,
        scale=spec.query_scale,
        window=spec.window,
        softcap=spec.softcap,
        sinks=spec.sinks,
        alibi=spec.alibi,
        root_alibi=spec.root_alibi,
        distances=None if distances is None else Buckets(*astuple(distances)),
        clip=spec.clip,
        bidirectional=spec.bidirectional,
        chunked=spec.chunked,
        values=spec.values,
        value_size=spec.value_size,
        value_scale=spec.value_scale,
        told=spec.told,
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
    return _kind(spec)(
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
        gate=_gate(spec),
        mixed_eps=spec.norm_eps if spec.mixed_norm else None,
        dtype=parts.dtype,
        format=parts.format,
        cache_format=parts.cache.format,
        cache_scales=parts.cache.scales.get(int(name.split("layers.")[1].split(".")[0])),
    )


def _gate(spec: Attention) -> str | None:
    """The kind of gate of what heads mixed; None for none."""
    if not spec.gate:
        return None
    return "numbers_biased" if spec.gate_bias else KINDS[spec.gate_heads, spec.gate_curve]


def _kind(spec: Attention) -> Callable[..., AttentionLayer]:
    """The class of attention that a description wants, with what is its own."""
    if spec.indexer is not None:
        picks = spec.indexer
        blocks = BlockSizes(
            num_heads=picks.num_heads,
            head_size=picks.head_size,
            count=picks.count,
            size=picks.size,
            local=picks.local,
            eps=picks.norm_eps,
        )
        return partial(BlockAttention, blocks=blocks)
    if spec.rank:
        return partial(LowRankAttention, rank=spec.rank)
    if spec.pairs:
        return partial(PairedAttention, first=spec.pairs)
    if spec.chosen:
        return partial(ChosenHeads, top_k=spec.chosen)
    return WeighedKeys if spec.told else AttentionLayer


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
        sinks=spec.sinks,
        gate=None if spec.gate == "none" else spec.gate,
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
        turned_last=spec.turned_last,
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


_MAKERS: dict[type, Callable[[MixerParts, str, int, Any], MixerLayer]] = {
    Attention: _attention,
    Mla: _mla,
    Compressed: _compressed,
    **RECURRENT_MAKERS,
}
"""What makes each kind of mixer: (parts, name, its number, its description); an indexer is its attention's."""
