"""Makes the tables of positions that a description asks for.

The rest of a decoder is put together in `models.build`; the arithmetic is `layers.rope`.
"""

from __future__ import annotations

import torch

from quire.layers import rope as rope_tables
from quire.models.build_mixers import BACK, Tables
from quire.models.lengths import growths
from quire.models.positions import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rope,
    YarnScaling,
)
from quire.models.spec import Compressed, DecoderSpec


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
    elif isinstance(scaling, ProportionalScaling):
        inv_freq = rope_tables.first_frequencies(inv_freq / scaling.factor, scaling.turning)
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


def position_tables(spec: DecoderSpec, max_model_len: int, device: torch.device) -> Tables:
    """Those of positions that the layers ask for."""
    ropes = {mixer.positions for mixer in spec.attentions if mixer.positions is not None}
    tables: Tables = {
        rope: rope_table(rope, max_model_len=max_model_len, device=device) for rope in ropes
    }
    for rope in {mixer.rope for mixer in spec.attentions if isinstance(mixer, Compressed)}:
        tables[rope, BACK] = rope_tables.back(tables[rope])
    for growth, head_size in growths(spec):
        tables[growth, head_size] = rope_tables.growth_table(
            head_size,
            scale=growth.scale,
            interval=growth.interval,
            shift=growth.shift,
            power=growth.power,
            max_len=max_model_len,
            device=device,
        )
    return tables
