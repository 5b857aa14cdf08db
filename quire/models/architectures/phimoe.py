"""Phi-3.5-MoE and its smaller kin: LayerNorms, biases, and two experts weighed one after the other.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    attention,
    decoder,
    experts,
)
from quire.models.name_parts import NORM_BIAS_RULES
from quire.models.names import LLAMA_NAMES, Rule, expert_rules, router_rules
from quire.models.spec import Attention, DecoderSpec, LayerSpec, LongRopeScaling


def phimoe(hf: HfConfig) -> DecoderSpec:
    """`PhimoeForCausalLM`, in its own files `PhiMoEForCausalLM`. Source: arXiv 2404.14219, 2409.12136."""
    hf.skip("input_jitter_noise", "hidden_dropout", "original_max_position_embeddings")
    part = experts(
        hf,
        16,
        2,
        key="num_local_experts",
        width=hf.int_("intermediate_size", 6400),
        scoring="sparse",
        jitter=hf.positive("router_jitter_noise", 0.01),
    )
    if part.top_k != 2:
        raise hf.refuse("num_experts_per_tok", "this routing is made for two")
    layer = LayerSpec(
        mixer=_mixer(hf),
        feed_forward=part,
        norm="layer",
        norm_eps=hf.positive("rms_norm_eps", 1e-5),
    )
    return decoder(hf, layer, max_len=131_072, head_bias=hf.bool_("lm_head_bias", False))


def _mixer(hf: HfConfig) -> Attention:
    """The factor of cosines and sines stands in the file, one for short contexts and one for long."""
    window = hf.optional_int("sliding_window")
    mixer = attention(hf, kv_heads=8, theta=("rope_theta", 1_000_000.0), window=window)
    section = hf.section("rope_scaling" if hf.has("rope_scaling") else "rope_parameters")
    scaling = None if mixer.rope is None else mixer.rope.scaling
    if section is None or mixer.rope is None or not isinstance(scaling, LongRopeScaling):
        return mixer
    factor = section.positive("short_mscale")
    if section.positive("long_mscale") != factor:
        raise section.refuse("long_mscale", "only one factor for short and long is computed")
    scaling = replace(scaling, attention_factor=factor)
    return replace(mixer, rope=replace(mixer.rope, scaling=scaling))


_PHIMOE = Architecture(
    phimoe,
    LLAMA_NAMES.with_rules(
        *NORM_BIAS_RULES,
        *expert_rules("block_sparse_moe", ("w1", "w3", "w2")),
        *router_rules("block_sparse_moe.gate"),
        Rule("lm_head.bias", "head.bias"),
    ),
)

ARCHITECTURES = {"PhimoeForCausalLM": _PHIMOE, "PhiMoEForCausalLM": _PHIMOE}
