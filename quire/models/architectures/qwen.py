"""Qwen 2 and Qwen 3: biases on q, k and v, or a norm over each head of q and k; with or without experts.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, dense, plain, with_parts
from quire.models.hf_parts import moe_layers, sliding_layers
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import Attention, DecoderSpec, Moe


def qwen2(hf: HfConfig, *, qkv_bias: bool = True) -> DecoderSpec:
    """`Qwen2ForCausalLM` (Qwen 2 and 2.5): q, k and v have biases, the output has none."""
    return _decoder(hf, attention(hf, bias=None, qkv_bias=qkv_bias))


def qwen3(hf: HfConfig) -> DecoderSpec:
    """`Qwen3ForCausalLM`: an RMS norm over each head of q and k before RoPE."""
    eps = hf.positive("rms_norm_eps", 1e-6)
    return _decoder(hf, attention(hf, head_dim=128, qk_norm="per_head", norm_eps=eps))


def qwen2_moe(hf: HfConfig) -> DecoderSpec:
    """`Qwen2MoeForCausalLM`: beside the experts a part that all tokens pass, weighed by a gate."""
    return _with_experts(
        hf,
        qwen2(hf, qkv_bias=hf.bool_("qkv_bias", True)),
        shared_width=hf.int_("shared_expert_intermediate_size", 5632),
        shared_gate=True,
        num_experts=_num_experts(hf, 60),
        top_k=hf.int_("num_experts_per_tok", 4),
        width=hf.int_("moe_intermediate_size", 1408),
    )


def qwen3_moe(hf: HfConfig) -> DecoderSpec:
    """`Qwen3MoeForCausalLM`."""
    return _with_experts(
        hf,
        qwen3(hf),
        num_experts=_num_experts(hf, 128),
        top_k=hf.int_("num_experts_per_tok", 8),
        width=hf.int_("moe_intermediate_size", 768),
    )


def _num_experts(hf: HfConfig, default: int) -> int:
    """In the older spelling or the newer one."""
    return hf.int_("num_experts", hf.optional_int("num_local_experts") or default)


def _with_experts(hf: HfConfig, spec: DecoderSpec, **sizes: Any) -> DecoderSpec:
    part = Moe(activation=activation(hf), normalize=hf.bool_("norm_topk_prob", False), **sizes)
    return with_parts(spec, *moe_layers(hf, part, spec.layers[0].feed_forward))


def _decoder(hf: HfConfig, mixer: Attention) -> DecoderSpec:
    first_window = hf.int_("max_window_layers", 28, minimum=0)
    window = None
    if hf.bool_("use_sliding_window", False):
        window = hf.optional_int("sliding_window", 4096)
    hf.skip("sliding_window")
    sliding = sliding_layers(hf, lambda index: window is not None and index >= first_window)
    if any(sliding) and window is None:
        raise hf.refuse("layer_types", "sliding layers need sliding_window and use_sliding_window")
    mixers = [replace(mixer, window=window if slides else None) for slides in sliding]
    return plain(hf, mixers, dense(hf), max_len=32_768)


MOE_RULES = (*expert_rules("mlp"), *router_rules("mlp.gate"))

ARCHITECTURES = {
    "Qwen2ForCausalLM": Architecture(qwen2, LLAMA_NAMES),
    "Qwen3ForCausalLM": Architecture(qwen3, LLAMA_NAMES.with_rules(*QK_NORM_RULES)),
    "Qwen2MoeForCausalLM": Architecture(
        qwen2_moe,
        LLAMA_NAMES.with_rules(
            *MOE_RULES,
            *shared_rules("mlp.shared_expert"),
            Rule(
                "model.layers.{layer}.mlp.shared_expert_gate.weight",
                "layers.{layer}.feed_forward.shared_gate.weight",
            ),
        ),
    ),
    "Qwen3MoeForCausalLM": Architecture(
        qwen3_moe, LLAMA_NAMES.with_rules(*QK_NORM_RULES, *MOE_RULES)
    ),
}
