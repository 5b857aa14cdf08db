"""Llama, Mistral and Mixtral: the plain layer, with windows in some checkpoints, or with experts.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, default_head_size, head_counts, rope
from quire.models.names import LLAMA_NAMES, expert_rules, router_rules
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Moe


def llama(hf: HfConfig) -> DecoderSpec:
    """`LlamaForCausalLM`. Defaults are those of Transformers' LlamaConfig."""
    bias = hf.bool_("attention_bias", False)
    return _decoder(
        hf,
        kv_heads=None,
        attention_bias=bias,
        mlp_bias=hf.bool_("mlp_bias", False),
        max_len=hf.int_("max_position_embeddings", 2048),
        window=None,
    )


def mistral(hf: HfConfig) -> DecoderSpec:
    """`MistralForCausalLM`: every layer has the window `sliding_window` unless that is null."""
    return _decoder(
        hf,
        kv_heads=8,
        attention_bias=False,
        mlp_bias=False,
        max_len=hf.int_("max_position_embeddings", 131_072),
        window=hf.optional_int("sliding_window", 4096),
    )


def mixtral(hf: HfConfig) -> DecoderSpec:
    """`MixtralForCausalLM`: Mistral with experts of `intermediate_size`. Source: arXiv 2401.04088."""
    spec = _decoder(
        hf,
        kv_heads=8,
        attention_bias=False,
        mlp_bias=False,
        max_len=hf.int_("max_position_embeddings", 131_072),
        window=hf.optional_int("sliding_window", None),
    )
    part = Moe(
        num_experts=hf.int_("num_local_experts", 8),
        top_k=hf.int_("num_experts_per_tok", 2),
        width=hf.int_("intermediate_size"),
        activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
    )
    layers = tuple(replace(layer, feed_forward=part) for layer in spec.layers)
    return replace(spec, layers=layers)


def _decoder(
    hf: HfConfig,
    *,
    kv_heads: int | None,
    attention_bias: bool,
    mlp_bias: bool,
    max_len: int,
    window: int | None,
) -> DecoderSpec:
    heads, kv_heads = head_counts(hf, default_kv_heads=kv_heads)
    head_size = hf.optional_int("head_dim") or default_head_size(hf)
    eps = hf.positive("rms_norm_eps", 1e-6)
    attention = Attention(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=head_size,
        rope=rope(hf, head_size=head_size),
        qkv_bias=attention_bias,
        out_bias=attention_bias,
        window=window,
    )
    dense = Dense(
        width=hf.int_("intermediate_size"),
        activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
        bias=mlp_bias,
    )
    layer = LayerSpec(mixer=attention, feed_forward=dense, norm_eps=eps)
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=hf.int_("hidden_size"),
        max_position_embeddings=max_len,
        layers=(layer,) * hf.int_("num_hidden_layers"),
        norm_eps=eps,
        tie_head=hf.bool_("tie_word_embeddings", False),
    )


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(llama, LLAMA_NAMES),
    "MistralForCausalLM": Architecture(mistral, LLAMA_NAMES),
    "MixtralForCausalLM": Architecture(
        mixtral,
        LLAMA_NAMES.with_rules(
            *expert_rules("block_sparse_moe", ("w1", "w3", "w2")),
            *router_rules("block_sparse_moe.gate"),
        ),
    ),
}
