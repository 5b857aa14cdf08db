"""Kolibri: positions where a window is, norms around each part, experts in every layer, chosen by their logits.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, experts
from quire.models.hf_parts import demand, sliding_layers
from quire.models.name_parts import LAYER, choice_rule, ours
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import DecoderSpec, LayerSpec


def kolibri1(hf: HfConfig) -> DecoderSpec:
    """`Kolibri1ForCausalLM`; defaults as in Kolibri1Config."""
    hf.skip("head_dtype")  # that in which the reference makes logits
    demand(hf, "this architecture is described so", use_sliding_window=True, attention_bias=False)
    one = attention(hf, bias=None, heads=48, kv_heads=4, head_dim=128, normed=1e-6)
    part = experts(
        hf,
        hf.optional_int("num_local_experts") or 384,
        6,
        width=hf.int_("moe_intermediate_size", 512),
        shared_width=hf.int_("shared_expert_intermediate_size", 512),
        scoring="logit",
        normalize=hf.bool_("norm_topk_prob", False),
        choice_bias=True,
        router_float32=True,
    )
    mixers = (replace(one, rope=None), replace(one, window=hf.int_("sliding_window", 513)))
    layers = [
        LayerSpec(
            mixer=mixers[slides], feed_forward=part, placement="sandwich", norm_eps=one.norm_eps
        )
        for slides in sliding_layers(hf, lambda index: (index + 1) % 5 != 0)
    ]
    return decoder(hf, layers, max_len=262_144)


NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES,
    *ours(
        LAYER,
        ("post_attn_norm", "norm_after_mixer"),
        ("post_ffn_norm", "norm_after_feed_forward"),
    ),
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    *shared_rules("mlp.shared_experts"),
    choice_rule("moe.router.expert_bias"),
)

ARCHITECTURES = {"Kolibri1ForCausalLM": Architecture(kolibri1, NAMES)}
