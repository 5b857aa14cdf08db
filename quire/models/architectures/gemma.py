"""Gemma: scaled embeddings; from 2 on norms around each part, windows; 2 with soft caps, 3 without.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, head_counts, rope, sliding_layers
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES, SANDWICH_RULES
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Rope


def gemma(hf: HfConfig) -> DecoderSpec:
    """`GemmaForCausalLM`; defaults as in GemmaConfig. Source: arXiv 2403.08295."""
    heads, kv_heads = head_counts(hf, default_kv_heads=16)
    head_size = hf.int_("head_dim", 256)
    eps = hf.positive("rms_norm_eps", 1e-6)
    bias = hf.bool_("attention_bias", False)
    hf.skip("hidden_activation")  # Transformers reads hidden_act, whose "gelu" is a known slip here
    layer = LayerSpec(
        mixer=Attention(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            rope=rope(hf, head_size=head_size),
            qkv_bias=bias,
            out_bias=bias,
        ),
        feed_forward=Dense(
            width=hf.int_("intermediate_size"),
            activation=hf.choice(
                "hidden_act", {**ACTIVATIONS, "gelu": "gelu_tanh"}, "gelu_pytorch_tanh"
            ),
        ),
        norm_eps=eps,
    )
    width = hf.int_("hidden_size")
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=width,
        max_position_embeddings=hf.int_("max_position_embeddings", 8192),
        layers=(layer,) * hf.int_("num_hidden_layers"),
        norm_eps=eps,
        embedding_scale=width**0.5,
        tie_head=hf.bool_("tie_word_embeddings", True),
    )


def gemma2(hf: HfConfig) -> DecoderSpec:
    """`Gemma2ForCausalLM`; defaults as in Gemma2Config. Source: arXiv 2408.00118."""
    heads, kv_heads = head_counts(hf, default_kv_heads=4)
    head_size = hf.int_("head_dim", 256)
    eps = hf.positive("rms_norm_eps", 1e-6)
    bias = hf.bool_("attention_bias", False)
    scale = hf.positive("query_pre_attn_scalar", 256.0) ** -0.5
    softcap = hf.optional_positive("attn_logit_softcapping", 50.0) or 0.0
    window = hf.optional_int("sliding_window", 4096)
    hf.skip("sliding_window_size")  # published files repeat the window under this name
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


def gemma3(hf: HfConfig) -> DecoderSpec:
    """`Gemma3ForCausalLM`; defaults as in Gemma3TextConfig. Source: arXiv 2503.19786."""
    heads, kv_heads = head_counts(hf, default_heads=8, default_kv_heads=4)
    head_size = hf.int_("head_dim", 256)
    eps = hf.positive("rms_norm_eps", 1e-6)
    bias = hf.bool_("attention_bias", False)
    window = hf.optional_int("sliding_window", 4096)
    if hf.optional_positive("attn_logit_softcapping") is not None:
        raise hf.refuse("attn_logit_softcapping", "Gemma 3 does not cap scores")
    local, everywhere = _gemma3_ropes(hf, head_size)
    scale = hf.positive("query_pre_attn_scalar", 256.0) ** -0.5
    dense = Dense(
        width=hf.int_("intermediate_size", 9216),
        activation=hf.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
    )
    hf.skip("_sliding_window_pattern")  # a copy of the next that newer tools write
    pattern = hf.int_("sliding_window_pattern", 6)
    layers = tuple(
        LayerSpec(
            mixer=Attention(
                num_heads=heads,
                num_kv_heads=kv_heads,
                head_size=head_size,
                rope=local if slides else everywhere,
                scale=scale,
                qkv_bias=bias,
                out_bias=bias,
                qk_norm="per_head",
                norm_eps=eps,
                window=window if slides else None,
            ),
            feed_forward=dense,
            placement="sandwich",
            norm_eps=eps,
        )
        for slides in sliding_layers(hf, lambda index: (index + 1) % pattern != 0)
    )
    width = hf.int_("hidden_size", 2304)
    max_len = hf.int_("max_position_embeddings", 131_072)
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size", 262_208),
        hidden_size=width,
        max_position_embeddings=max_len,
        max_len=max_len,  # already what linear scaling makes of it
        layers=layers,
        norm_eps=eps,
        embedding_scale=width**0.5,
        logit_softcap=hf.optional_positive("final_logit_softcapping") or 0.0,
        tie_head=hf.bool_("tie_word_embeddings", True),
    )


def _gemma3_ropes(hf: HfConfig, head_size: int) -> tuple[Rope, Rope]:
    """Positions of layers with a window and of those without.

    The old spelling has a base for each and one `rope_scaling`, which is for the latter only.
    """
    base, local_base = ("rope_theta", 1_000_000.0), ("rope_local_base_freq", 10_000.0)
    if hf.has("rope_parameters") and not hf.has("rope_scaling"):
        local = rope(hf, head_size=head_size, sliding=True, theta=local_base)
    else:
        local = Rope(dim=head_size, theta=hf.positive(*local_base))
    return local, rope(hf, head_size=head_size, theta=base)


def vaultgemma(hf: HfConfig) -> DecoderSpec:
    """`VaultGemmaForCausalLM`: Gemma 2 without the norms after the parts. Source: arXiv 2510.15001."""
    spec = gemma2(hf)
    return replace(spec, layers=tuple(replace(layer, placement="pre") for layer in spec.layers))


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

GEMMA_NAMES = LLAMA_NAMES.folded(
    "add_one",
    f"{_LAYER}.input_layernorm.weight",
    f"{_LAYER}.post_attention_layernorm.weight",
    "model.norm.weight",
)

VAULT_NAMES = GEMMA2_NAMES.without(
    "layers.{layer}.norm_after_mixer", "layers.{layer}.norm_after_feed_forward"
)

GEMMA3_NAMES = GEMMA2_NAMES.with_rules(*QK_NORM_RULES).folded(
    "add_one", f"{_LAYER}.self_attn.q_norm.weight", f"{_LAYER}.self_attn.k_norm.weight"
)

ARCHITECTURES = {
    "GemmaForCausalLM": Architecture(gemma, GEMMA_NAMES),
    "Gemma2ForCausalLM": Architecture(gemma2, GEMMA2_NAMES),
    "VaultGemmaForCausalLM": Architecture(vaultgemma, VAULT_NAMES),
    "Gemma3ForCausalLM": Architecture(gemma3, GEMMA3_NAMES),
}
