"""OLMo 2 and OLMoE: norms over all heads of q and of k together; after each part, or before it with experts.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, default_head_size, head_counts, rope
from quire.models.names import (
    LLAMA_NAMES,
    POST_NORM_RULES,
    QK_NORM_RULES,
    expert_rules,
    router_rules,
)
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Moe


def olmo2(hf: HfConfig) -> DecoderSpec:
    """`Olmo2ForCausalLM`; defaults as in Olmo2Config. Source: arXiv 2501.00656."""
    heads, kv_heads = head_counts(hf)
    head_size = hf.optional_int("head_dim") or default_head_size(hf)
    eps = hf.positive("rms_norm_eps", 1e-5)
    bias = hf.bool_("attention_bias", False)
    layer = LayerSpec(
        mixer=Attention(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            rope=rope(hf, head_size=head_size),
            qkv_bias=bias,
            out_bias=bias,
            qk_norm="full",
            norm_eps=eps,
        ),
        feed_forward=Dense(
            width=hf.int_("intermediate_size"),
            activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
        ),
        placement="post",
        norm_eps=eps,
    )
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=hf.int_("hidden_size"),
        max_position_embeddings=hf.int_("max_position_embeddings", 2048),
        layers=(layer,) * hf.int_("num_hidden_layers"),
        norm_eps=eps,
        tie_head=hf.bool_("tie_word_embeddings", False),
    )


def olmoe(hf: HfConfig) -> DecoderSpec:
    """`OlmoeForCausalLM`; defaults as in OlmoeConfig. Source: arXiv 2409.02060."""
    if hf.optional_positive("clip_qkv") is not None:
        raise hf.refuse("clip_qkv", "clipped q, k and v are not computed here")
    spec = olmo2(hf)
    part = Moe(
        num_experts=hf.int_("num_experts", 64),
        top_k=hf.int_("num_experts_per_tok", 8),
        width=hf.int_("intermediate_size"),
        activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
        normalize=hf.bool_("norm_topk_prob", False),
    )
    layer = replace(spec.layers[0], feed_forward=part, placement="pre")
    return replace(
        spec,
        max_position_embeddings=hf.int_("max_position_embeddings", 4096),
        layers=(layer,) * len(spec.layers),
    )


OLMO2_NAMES = LLAMA_NAMES.with_rules(*POST_NORM_RULES, *QK_NORM_RULES)

OLMOE_NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES, *expert_rules("mlp"), *router_rules("mlp.gate")
)

ARCHITECTURES = {
    "Olmo2ForCausalLM": Architecture(olmo2, OLMO2_NAMES),
    "OlmoeForCausalLM": Architecture(olmoe, OLMOE_NAMES),
}
