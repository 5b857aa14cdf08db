"""Makes the mixers that keep states from their descriptions.

Those that look at cached tokens are made in `models.build_mixers`; what mixers compute is in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.layers.delta_net import DeltaNetLayer, DeltaNetSizes
from quire.layers.gated_lru import GatedLruLayer, GatedLruSizes
from quire.layers.head_mamba import HeadMambaLayer, HeadMambaSizes
from quire.layers.linear_attention import LinearAttentionLayer
from quire.layers.mamba import Mamba1Layer, Mamba1Sizes, Mamba2Layer, Mamba2Sizes
from quire.layers.matrix_memory import MatrixMemoryLayer, MatrixMemorySizes
from quire.layers.short_conv import ShortConvLayer
from quire.layers.time_mix import ChannelMixLayer, TimeMixLayer
from quire.models.decoder_layers import MixerLayer
from quire.models.mixer_parts import MixerParts
from quire.models.recurrent import (
    ChannelMix,
    GatedDeltaNet,
    GatedLru,
    HeadMamba,
    LinearAttention,
    Mamba1,
    Mamba2,
    MatrixMemory,
    ShortConv,
    TimeMix,
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
        in_turns=spec.in_turns,
        decays=spec.decays,
        bound=spec.bound,
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


def _head_mamba(parts: MixerParts, name: str, index: int, spec: HeadMamba) -> MixerLayer:
    sizes = HeadMambaSizes(size=parts.size, **vars(spec))
    return HeadMambaLayer(parts.table, name, index, sizes, dtype=parts.dtype, format=parts.format)


def _time_mix(parts: MixerParts, name: str, index: int, spec: TimeMix) -> MixerLayer:
    sizes = {"size": parts.size, "inner": spec.inner}
    return TimeMixLayer(parts.table, name, index, **sizes, dtype=parts.dtype, format=parts.format)


def _channel_mix(parts: MixerParts, name: str, index: int, spec: ChannelMix) -> MixerLayer:
    sizes = {"size": parts.size, "inner": spec.inner}
    return ChannelMixLayer(
        parts.table, name, index, **sizes, dtype=parts.dtype, format=parts.format
    )


def _gated_lru(parts: MixerParts, name: str, index: int, spec: GatedLru) -> MixerLayer:
    sizes = GatedLruSizes(
        size=parts.size,
        inner=spec.inner,
        heads=spec.num_heads,
        kernel=spec.kernel,
        act=spec.activation,
    )
    return GatedLruLayer(parts.table, name, index, sizes, dtype=parts.dtype, format=parts.format)


def _matrix_memory(parts: MixerParts, name: str, index: int, spec: MatrixMemory) -> MixerLayer:
    sizes = MatrixMemorySizes(size=parts.size, **vars(spec))
    return MatrixMemoryLayer(
        parts.table, name, index, sizes, dtype=parts.dtype, format=parts.format
    )


RECURRENT_MAKERS: dict[type, Callable[[MixerParts, str, int, Any], MixerLayer]] = {
    ShortConv: _short_conv,
    GatedDeltaNet: _delta_net,
    LinearAttention: _linear_attention,
    Mamba1: _mamba1,
    Mamba2: _mamba2,
    HeadMamba: _head_mamba,
    TimeMix: _time_mix,
    ChannelMix: _channel_mix,
    GatedLru: _gated_lru,
    MatrixMemory: _matrix_memory,
}
"""What makes each kind of them: (parts, name, its number, its description)."""
