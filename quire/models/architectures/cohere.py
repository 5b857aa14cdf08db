"""Cohere (Command R and A, Aya): both parts of a layer read one LayerNorm, neighbours turn in pairs.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, experts, with_attention
from quire.models.hf_parts import demand, own_ropes, windows
from quire.models.hf_text import beside_visual, text_alone
from quire.models.name_parts import DEEPSEEK_RULES
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES, Rule
from quire.models.spec import Attention, DecoderSpec, LayerSpec


def cohere(hf: HfConfig) -> DecoderSpec:
    """`CohereForCausalLM`; defaults as in CohereConfig."""
    eps = hf.positive("layer_norm_eps", 1e-5)
    has_qk_norm = hf.bool_("use_qk_norm", False)
    mixer = attention(
        hf,
        theta=("rope_theta", 500_000.0),
        interleaved=True,
        qk_norm="layer_per_head" if has_qk_norm else "none",
        norm_eps=eps if has_qk_norm else Attention.norm_eps,
    )
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=dense(hf),
        placement="parallel_shared",
        norm="layer_unbiased",
        norm_eps=eps,
    )
    max_len = hf.int_("max_position_embeddings", 8192)
    return decoder(
        hf,
        layer,
        tie=True,
        # Command R states 8,192 positions and beside it the length that it was trained for.
        max_position_embeddings=hf.optional_int("model_max_length") or max_len,
        logit_scale=hf.positive("logit_scale", 0.0625),
    )


def cohere2(hf: HfConfig) -> DecoderSpec:
    """`Cohere2ForCausalLM`: windows with positions, and every fourth layer without either."""
    # How published files say the same once more.
    hf.skip("layer_switch", "order_of_interleaved_layers", "position_embedding_type", "rotary_pct")
    hf.skip("use_embedding_sharing", "use_gated_activation", "use_parallel_block")
    hf.skip("use_parallel_embedding")
    demand(hf, "this architecture has no norms of q and k", use_qk_norm=False)
    every = hf.int_("sliding_window_pattern", 4)
    found = windows(hf, lambda index: (index + 1) % every != 0)

    def changed(index: int, mixer: Attention) -> Attention:
        slides, window = found[index]
        return replace(mixer, window=window, rope=mixer.rope if slides else None)

    return with_attention(cohere(hf), changed)


def cohere2_moe(hf: HfConfig) -> DecoderSpec:
    """`Cohere2MoeForCausalLM`: experts, and positions in layers with a window and in the dense ones before them.

    Defaults as in Cohere2MoeConfig.
    """
    hf.skip("use_parallel_block", "use_gated_activation", "position_embedding_type")
    hf.skip("layer_norm_eps" if hf.has("rms_norm_eps") else "rms_norm_eps")
    demand(hf, "this architecture has no norms of q and k", use_qk_norm=False)
    first = hf.int_("first_k_dense_replace", 0, minimum=0)
    every = hf.int_("sliding_window_pattern", 4)
    every_dense = hf.int_("prefix_dense_sliding_window_pattern", 1)
    found = windows(
        hf,
        lambda index: (
            (index + 1) % every_dense != 0 if index < first else (index - first + 1) % every != 0
        ),
    )
    inner, common = hf.int_("intermediate_size"), hf.int_("num_shared_experts", 0, minimum=0)
    if hf.text("shared_expert_combination_strategy", "average") != "sum" and common:
        raise hf.refuse("shared_expert_combination_strategy", "only sum is computed")
    scoring = hf.choice(
        "expert_selection_fn", {"softmax": "softmax", "sigmoid": "sigmoid"}, "softmax"
    )
    normalize = hf.bool_("norm_topk_prob", True) or scoring == "softmax"
    part = experts(hf, 8, 2, scoring=scoring, normalize=normalize, shared_width=inner * common)
    plain = dense(hf, width=hf.optional_int("prefix_dense_intermediate_size") or inner)
    kinds = hf.strings("mlp_layer_types")
    sparse = (
        [kind == "sparse" for kind in kinds] if kinds else [at >= first for at in range(len(found))]
    )
    if len(sparse) != len(found) or not set(kinds or ()) <= {"dense", "sparse"}:
        raise hf.refuse("mlp_layer_types", "it must say dense or sparse for each layer")
    eps = hf.optional_positive("rms_norm_eps")
    one = attention(hf, head_dim=128, interleaved=True)
    layers = [
        LayerSpec(
            mixer=replace(
                one,
                window=window,
                rope=one.rope if slides or (every_dense == 1 and not routed) else None,
            ),
            feed_forward=part if routed else plain,
            placement="parallel_shared",
            norm="layer_unbiased" if eps is None else "rms",
            norm_eps=hf.positive("layer_norm_eps", 1e-5) if eps is None else eps,
        )
        for (slides, window), routed in zip(found, sparse, strict=True)
    ]
    scale = hf.positive("logit_scale", 0.0625)
    return decoder(hf, layers, max_len=8192, tie=True, logit_scale=scale)


def cohere_compass(hf: HfConfig) -> DecoderSpec:
    """`CohereCompassForCausalLM`: each kind of layer has positions of its own or none, halves turn in pairs.

    Defaults as in CohereCompassTextConfig.
    """
    hf.skip("pooling")
    one = attention(hf, rope=None)
    turns = own_ropes(hf, one.head_size)
    layers = [
        LayerSpec(
            mixer=replace(one, window=window, rope=turns[slides]),
            feed_forward=dense(hf),
            placement="parallel_shared",
            norm="layer_unbiased",
            norm_eps=hf.positive("layer_norm_eps", 1e-5),
        )
        for slides, window in windows(hf, lambda index: False)
    ]
    scale = hf.optional_positive("logit_scale") or 1.0
    return decoder(hf, layers, max_len=8192, tie=True, logit_scale=scale)


COHERE_NAMES = LLAMA_NAMES.with_rules(
    Rule("model.layers.{layer}.input_layernorm.weight", "layers.{layer}.norm_before_parts.weight"),
    *QK_NORM_RULES,
)

ARCHITECTURES = {
    "CohereForCausalLM": Architecture(cohere, COHERE_NAMES),
    "Cohere2ForCausalLM": Architecture(cohere2, COHERE_NAMES),
    "CohereCompassForCausalLM": Architecture(cohere_compass, COHERE_NAMES),
    "CohereCompassForConditionalGeneration": Architecture(
        text_alone(cohere_compass, outer_ties=True), beside_visual(COHERE_NAMES)
    ),
    "Cohere2MoeForCausalLM": Architecture(cohere2_moe, COHERE_NAMES.with_rules(*DEEPSEEK_RULES)),
}
