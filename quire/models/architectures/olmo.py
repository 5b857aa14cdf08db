"""OLMo: from 2 on norms over all heads of q and of k together; after each part, or before it with experts.

Spellings shared with other families are in `models.hf_decoder` and `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    attention,
    decoder,
    dense,
    experts,
    plain,
    with_attention,
)
from quire.models.hf_parts import default_head_size, rope, sliding_layers
from quire.models.names import (
    LLAMA_NAMES,
    POST_NORM_RULES,
    QK_NORM_RULES,
    expert_rules,
    router_rules,
)
from quire.models.spec import DecoderSpec, LayerSpec, Placement, Rope


def olmo2(hf: HfConfig, *, theta: float = 10_000.0) -> DecoderSpec:
    """`Olmo2ForCausalLM`; defaults as in Olmo2Config. Source: arXiv 2501.00656."""
    mixer = attention(hf, theta=("rope_theta", theta), normed=1e-5, qk_norm="full")
    return plain(hf, mixer, dense(hf), placement="post", eps=1e-5)


def olmoe(hf: HfConfig) -> DecoderSpec:
    """`OlmoeForCausalLM`; defaults as in OlmoeConfig. Source: arXiv 2409.02060."""
    if hf.optional_positive("clip_qkv") is not None:
        raise hf.refuse("clip_qkv", "q and k that are clipped behind their norms are not computed")
    return _with_experts(hf, olmo2(hf), "pre", num_experts=64, top_k=8)


def flex_olmo(hf: HfConfig) -> DecoderSpec:
    """`FlexOlmoForCausalLM`: OLMo 2 with experts. Source: arXiv 2507.07024."""
    return _with_experts(hf, olmo2(hf, theta=500_000.0), "post", num_experts=7, top_k=5)


def _with_experts(
    hf: HfConfig, spec: DecoderSpec, placement: Placement, *, num_experts: int, top_k: int
) -> DecoderSpec:
    """`spec` with experts in every layer; the numbers are defaults of their keys."""
    part = experts(
        hf,
        num_experts,
        top_k,
        normalize=hf.bool_("norm_topk_prob", False),
    )
    layer = replace(spec.layers[0], feed_forward=part, placement=placement)
    return replace(
        spec,
        max_position_embeddings=hf.int_("max_position_embeddings", 4096),
        layers=(layer,) * len(spec.layers),
    )


def olmo(hf: HfConfig) -> DecoderSpec:
    """`OlmoForCausalLM`: LayerNorms without weights. Source: arXiv 2402.00838."""
    layer = LayerSpec(
        mixer=attention(hf, clip=hf.optional_positive("clip_qkv") or 0.0),
        feed_forward=dense(hf),
        norm="layer_unbiased",
        norm_eps=1e-5,
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
    "FlexOlmoForCausalLM": Architecture(
        flex_olmo,
        OLMO2_NAMES.with_rules(*expert_rules("mlp"), *router_rules("mlp.gate")),
    ),
}
