"""Qwen 2 and Qwen 3: biases on q, k and v, or a norm over each head of q and k.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, default_head_size, head_counts, rope, sliding_layers
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec


def qwen2(hf: HfConfig) -> DecoderSpec:
    """`Qwen2ForCausalLM` (Qwen 2 and 2.5): q, k and v have biases, the output has none."""
    head_size = hf.optional_int("head_dim") or default_head_size(hf)
    heads, kv_heads = head_counts(hf)
    return _decoder(
        hf,
        Attention(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            rope=rope(hf, head_size=head_size),
            qkv_bias=True,
        ),
    )


def qwen3(hf: HfConfig) -> DecoderSpec:
    """`Qwen3ForCausalLM`: an RMS norm over each head of q and k before RoPE."""
    head_size = hf.int_("head_dim", 128)
    heads, kv_heads = head_counts(hf)
    bias = hf.bool_("attention_bias", False)
    return _decoder(
        hf,
        Attention(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            rope=rope(hf, head_size=head_size),
            qkv_bias=bias,
            out_bias=bias,
            qk_norm="per_head",
            norm_eps=hf.positive("rms_norm_eps", 1e-6),
        ),
    )


def _decoder(hf: HfConfig, attention: Attention) -> DecoderSpec:
    eps = hf.positive("rms_norm_eps", 1e-6)
    dense = Dense(
        width=hf.int_("intermediate_size"), activation=hf.choice("hidden_act", ACTIVATIONS, "silu")
    )
    window = hf.optional_int("sliding_window", 4096)
    first_window = hf.int_("max_window_layers", 28, minimum=0)
    if not hf.bool_("use_sliding_window", False):
        window = None
    sliding = sliding_layers(hf, lambda index: window is not None and index >= first_window)
    if any(sliding) and window is None:
        raise hf.refuse("layer_types", "sliding layers need sliding_window and use_sliding_window")
    layers = tuple(
        LayerSpec(
            mixer=replace(attention, window=window if slides else None),
            feed_forward=dense,
            norm_eps=eps,
        )
        for slides in sliding
    )
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=hf.int_("hidden_size"),
        max_position_embeddings=hf.int_("max_position_embeddings", 32_768),
        layers=layers,
        norm_eps=eps,
        tie_head=hf.bool_("tie_word_embeddings", False),
    )


ARCHITECTURES = {
    "Qwen2ForCausalLM": Architecture(qwen2, LLAMA_NAMES),
    "Qwen3ForCausalLM": Architecture(qwen3, LLAMA_NAMES.with_rules(*QK_NORM_RULES)),
}
