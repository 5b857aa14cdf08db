"""Granite, HyperCLOVA X, MiniCPM: the plain layer with factors of embedding, scores, residuals and logits.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    activation,
    attention,
    decoder,
    dense,
    with_parts,
    with_placement,
)
from quire.models.names import LLAMA_NAMES, Rule, router_rules
from quire.models.spec import DecoderSpec, LayerSpec, Moe, Placement


def granite(hf: HfConfig, *, default_scale: float | None = 1.0) -> DecoderSpec:
    """`GraniteForCausalLM`; defaults as in GraniteConfig. Source: arXiv 2408.13359."""
    layer = LayerSpec(
        mixer=attention(hf, scale=hf.optional_positive("attention_multiplier", default_scale)),
        feed_forward=dense(hf, bias=hf.bool_("mlp_bias", False)),
        norm_eps=hf.positive("rms_norm_eps", 1e-6),
        residual_scale=hf.positive("residual_multiplier", 1.0),
    )
    return decoder(
        hf,
        layer,
        embedding_scale=hf.positive("embedding_multiplier", 1.0),
        logit_scale=1.0 / hf.positive("logits_scaling", 1.0),
    )


def hyperclovax(hf: HfConfig) -> DecoderSpec:
    """`HyperCLOVAXForCausalLM`: Granite with norms on both sides of each part, logits multiplied."""
    hf.skip("end_token_id")
    spec = granite(hf, default_scale=None)
    placement: Placement = "sandwich" if hf.bool_("use_post_norm", True) else "pre"
    return replace(with_placement(spec, placement), logit_scale=hf.positive("logits_scaling", 1.0))


def minicpm(hf: HfConfig) -> DecoderSpec:
    """`MiniCPMForCausalLM`: the same factors, told by width and depth. Source: arXiv 2404.06395."""
    if hf.int_("num_experts", 0, minimum=0):
        raise hf.refuse("num_experts", "experts are not described for this architecture")
    width, depth = hf.int_("hidden_size"), hf.int_("num_hidden_layers")
    layer = LayerSpec(
        mixer=attention(hf),
        feed_forward=dense(hf),
        norm_eps=hf.positive("rms_norm_eps", 1e-6),
        residual_scale=hf.positive("scale_depth", 1.0) / depth**0.5,
    )
    return decoder(
        hf,
        layer,
        tie=True,
        embedding_scale=hf.positive("scale_emb", 1.0),
        logit_scale=hf.positive("dim_model_base", 1.0) / width,
    )


def granite_moe(hf: HfConfig) -> DecoderSpec:
    """`GraniteMoeForCausalLM`, and `GraniteMoeSharedForCausalLM` with a part that all tokens pass.

    The weights of the chosen experts are their shares of each other.
    """
    part = Moe(
        num_experts=hf.int_("num_local_experts", 8),
        top_k=hf.int_("num_experts_per_tok", 2),
        width=hf.int_("intermediate_size"),
        activation=activation(hf),
        shared_width=hf.int_("shared_intermediate_size", 0, minimum=0),
    )
    return with_parts(granite(hf), part)


_LAYER, _OURS = "model.layers.{layer}", "layers.{layer}.feed_forward"
_MOE = f"{_LAYER}.block_sparse_moe"

MOE_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{_MOE}.input_linear.weight", f"{_OURS}.experts.{{expert}}.gate_up.weight", parts=(0, 1)),
    Rule(f"{_MOE}.output_linear.weight", f"{_OURS}.experts.{{expert}}.down.weight"),
    *router_rules("block_sparse_moe.router.layer"),
    Rule(
        f"{_LAYER}.shared_mlp.input_linear.weight", f"{_OURS}.shared.gate_up.weight", parts=(0, 1)
    ),
    Rule(f"{_LAYER}.shared_mlp.output_linear.weight", f"{_OURS}.shared.down.weight"),
)

HYPERCLOVAX_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{_LAYER}.post_norm1.weight", "layers.{layer}.norm_after_mixer.weight"),
    Rule(f"{_LAYER}.post_norm2.weight", "layers.{layer}.norm_after_feed_forward.weight"),
)

ARCHITECTURES = {
    "GraniteForCausalLM": Architecture(granite, LLAMA_NAMES),
    "MiniCPMForCausalLM": Architecture(minicpm, LLAMA_NAMES),
    "HyperCLOVAXForCausalLM": Architecture(hyperclovax, HYPERCLOVAX_NAMES),
    "GraniteMoeForCausalLM": Architecture(granite_moe, MOE_NAMES),
    "GraniteMoeSharedForCausalLM": Architecture(granite_moe, MOE_NAMES),
}
