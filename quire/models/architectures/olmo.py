"""OLMo: from 2 on norms over all heads of q and of k together; after each part, or before it with experts.

Spellings shared with other families are in `models.hf_decoder` and `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, with_attention
from quire.models.hf_parts import ACTIVATIONS, default_head_size, head_counts, rope, sliding_layers
from quire.models.names import (
    LLAMA_NAMES,
    POST_NORM_RULES,
    QK_NORM_RULES,
    expert_rules,
    router_rules,
)
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Moe, Rope


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


def olmo(hf: HfConfig) -> DecoderSpec:
    """`OlmoForCausalLM`: LayerNorms without weights. Source: arXiv 2402.00838."""
    if hf.optional_positive("clip_qkv") is not None:
        raise hf.refuse("clip_qkv", "clipped q, k and v are not computed here")
    layer = LayerSpec(
        mixer=attention(hf), feed_forward=dense(hf), norm="layer_unbiased", norm_eps=1e-5
    )
    return decoder(hf, layer)


def olmo3(hf: HfConfig) -> DecoderSpec:
    """`Olmo3ForCausalLM`: OLMo 2 with windows in three of four layers; scaled positions in the fourth.

    Source: arXiv 2512.13961.
    """
    window, base = hf.optional_int("sliding_window", 4096), ("rope_theta", 500_000.0)
    size = hf.optional_int("head_dim") or default_head_size(hf)
    everywhere = rope(hf, head_size=size, theta=base)
    if hf.has("rope_scaling"):
        near = Rope(dim=size, theta=hf.positive(*base))  # the old spelling scales full layers only
    else:
        near = rope(hf, head_size=size, theta=base, sliding=True)
    slides = sliding_layers(hf, lambda index: (index + 1) % 4 != 0)
    return with_attention(
        olmo2(hf),
        lambda index, mixer: (
            replace(mixer, window=window, rope=near)
            if slides[index]
            else replace(mixer, rope=everywhere)
        ),
    )


OLMO2_NAMES = LLAMA_NAMES.with_rules(*POST_NORM_RULES, *QK_NORM_RULES)

OLMOE_NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES, *expert_rules("mlp"), *router_rules("mlp.gate")
)

ARCHITECTURES = {
    "OlmoForCausalLM": Architecture(
        olmo,
        replace(
            LLAMA_NAMES.without(
                "layers.{layer}.norm_before_mixer",
                "layers.{layer}.norm_before_feed_forward",
                "final_norm",
            ),
            ones=(
                "layers.{layer}.norm_before_mixer.weight",
                "layers.{layer}.norm_before_feed_forward.weight",
                "final_norm.weight",
            ),
        ),
    ),
    "Olmo3ForCausalLM": Architecture(olmo3, OLMO2_NAMES),
    "Olmo2ForCausalLM": Architecture(olmo2, OLMO2_NAMES),
    "OlmoeForCausalLM": Architecture(olmoe, OLMOE_NAMES),
}
