"""Granite: the plain layer with factors for the embedding, attention scores, residuals and logits.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, default_head_size, head_counts, rope
from quire.models.names import LLAMA_NAMES, Rule, router_rules
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Moe


def granite(hf: HfConfig) -> DecoderSpec:
    """`GraniteForCausalLM`; defaults as in GraniteConfig. Source: arXiv 2408.13359."""
    heads, kv_heads = head_counts(hf)
    head_size = hf.optional_int("head_dim") or default_head_size(hf)
    eps = hf.positive("rms_norm_eps", 1e-6)
    bias = hf.bool_("attention_bias", False)
    layer = LayerSpec(
        mixer=Attention(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            rope=rope(hf, head_size=head_size),
            scale=hf.positive("attention_multiplier", 1.0),
            qkv_bias=bias,
            out_bias=bias,
        ),
        feed_forward=Dense(
            width=hf.int_("intermediate_size"),
            activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
            bias=hf.bool_("mlp_bias", False),
        ),
        norm_eps=eps,
        residual_scale=hf.positive("residual_multiplier", 1.0),
    )
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=hf.int_("hidden_size"),
        max_position_embeddings=hf.int_("max_position_embeddings", 2048),
        layers=(layer,) * hf.int_("num_hidden_layers"),
        norm_eps=eps,
        embedding_scale=hf.positive("embedding_multiplier", 1.0),
        logit_scale=1.0 / hf.positive("logits_scaling", 1.0),
        tie_head=hf.bool_("tie_word_embeddings", False),
    )


def granite_moe(hf: HfConfig) -> DecoderSpec:
    """`GraniteMoeForCausalLM`: the weights of the chosen experts are their shares of each other."""
    spec = granite(hf)
    part = Moe(
        num_experts=hf.int_("num_local_experts", 8),
        top_k=hf.int_("num_experts_per_tok", 2),
        width=hf.int_("intermediate_size"),
        activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
    )
    layers = tuple(replace(layer, feed_forward=part) for layer in spec.layers)
    return replace(spec, layers=layers)


_LAYER, _OURS = "model.layers.{layer}", "layers.{layer}.feed_forward"
_MOE = f"{_LAYER}.block_sparse_moe"

MOE_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{_MOE}.input_linear.weight", f"{_OURS}.experts.{{expert}}.gate_up.weight", parts=(0, 1)),
    Rule(f"{_MOE}.output_linear.weight", f"{_OURS}.experts.{{expert}}.down.weight"),
    *router_rules("block_sparse_moe.router.layer"),
)

ARCHITECTURES = {
    "GraniteForCausalLM": Architecture(granite, LLAMA_NAMES),
    "GraniteMoeForCausalLM": Architecture(granite_moe, MOE_NAMES),
}
