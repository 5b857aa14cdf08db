"""Gemma 2: scaled embeddings, norms around each part, soft caps, every other layer with a window.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, head_counts, rope, sliding_layers
from quire.models.names import LLAMA_NAMES, SANDWICH_RULES
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec


def gemma2(hf: HfConfig) -> DecoderSpec:
    """`Gemma2ForCausalLM`; defaults as in Gemma2Config. Source: arXiv 2408.00118."""
    heads, kv_heads = head_counts(hf, default_kv_heads=4)
    head_size = hf.int_("head_dim", 256)
    eps = hf.positive("rms_norm_eps", 1e-6)
    bias = hf.bool_("attention_bias", False)
    scale = hf.positive("query_pre_attn_scalar", 256.0) ** -0.5
    softcap = hf.optional_positive("attn_logit_softcapping", 50.0) or 0.0
    window = hf.optional_int("sliding_window", 4096)
    dense = Dense(
        width=hf.int_("intermediate_size"),
        activation=hf.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
    )
    hf.skip(
        "hidden_act"
    )  # written beside hidden_activation by older tools; Transformers reads the latter
    layers = tuple(
        LayerSpec(
            mixer=Attention(
                num_heads=heads,
                num_kv_heads=kv_heads,
                head_size=head_size,
                rope=rope(hf, head_size=head_size, sliding=slides),
                scale=scale,
                qkv_bias=bias,
                out_bias=bias,
                window=window if slides else None,
                softcap=softcap,
            ),
            feed_forward=dense,
            placement="sandwich",
            norm_eps=eps,
        )
        for slides in sliding_layers(hf, lambda index: index % 2 == 0)
    )
    width = hf.int_("hidden_size")
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=width,
        max_position_embeddings=hf.int_("max_position_embeddings", 8192),
        layers=layers,
        norm_eps=eps,
        embedding_scale=width**0.5,
        logit_softcap=hf.optional_positive("final_logit_softcapping", 30.0) or 0.0,
        tie_head=hf.bool_("tie_word_embeddings", True),
    )


_LAYER = "model.layers.{layer}"
GEMMA2_NAMES = LLAMA_NAMES.with_rules(*SANDWICH_RULES).folded(
    "add_one",
    f"{_LAYER}.input_layernorm.weight",
    f"{_LAYER}.post_attention_layernorm.weight",
    f"{_LAYER}.pre_feedforward_layernorm.weight",
    f"{_LAYER}.post_feedforward_layernorm.weight",
    "model.norm.weight",
)
"""Gemma's norms multiply by 1 + w."""

ARCHITECTURES = {"Gemma2ForCausalLM": Architecture(gemma2, GEMMA2_NAMES)}
