"""AFMoE (Trinity): gated attention with positions in the layers with a window only, experts behind dense layers.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder, dense
from quire.models.hf_parts import sliding_layers
from quire.models.name_parts import LAYER, OURS, choice_rule
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import DecoderSpec, LayerSpec, Moe


def afmoe(hf: HfConfig) -> DecoderSpec:
    """`AfmoeForCausalLM`; defaults as in AfmoeConfig."""
    hf.skip("load_balance_coeff", "num_expert_groups", "num_limited_groups", "use_grouped_mm")
    hf.choice("score_func", {"sigmoid": None}, "sigmoid")
    if not hf.bool_("route_norm", True) or hf.int_("n_group", 1) * hf.int_("topk_group", 1) != 1:
        raise hf.refuse("route_norm", "experts are weighed among the chosen, in one group")
    every, window = hf.int_("global_attn_every_n_layers", 4), hf.int_("sliding_window", 1024)
    slides = sliding_layers(hf, lambda index: (index + 1) % every != 0)
    local = attention(hf, head_dim=128, normed=1e-5, window=window, gate=True)
    whole = attention(hf, head_dim=128, normed=1e-5, rope=None, gate=True)
    width = hf.int_("moe_intermediate_size", 1408)
    part = Moe(
        num_experts=hf.int_("num_experts", 64),
        top_k=hf.int_("num_experts_per_tok", 6),
        width=width,
        activation=activation(hf),
        scoring="sigmoid",
        scale=hf.positive("route_scale", 1.0),
        choice_bias=True,
        shared_width=width * hf.int_("num_shared_experts", 2, minimum=0),
    )
    first, eps = hf.int_("num_dense_layers", 1, minimum=0), hf.positive("rms_norm_eps", 1e-5)
    layers = [
        LayerSpec(
            mixer=local if slide else whole,
            feed_forward=dense(hf) if index < first else part,
            placement="sandwich",
            norm_eps=eps,
        )
        for index, slide in enumerate(slides)
    ]
    scale = hf.int_("hidden_size") ** 0.5 if hf.bool_("mup_enabled", False) else 1.0
    return decoder(hf, layers, max_len=16_384, embedding_scale=scale)


NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES,
    *(
        Rule(f"{LAYER}.{theirs}_layernorm.weight", f"{OURS}.norm_{place}.weight")
        for theirs, place in (
            ("post_attention", "after_mixer"),
            ("pre_mlp", "before_feed_forward"),
            ("post_mlp", "after_feed_forward"),
        )
    ),
    Rule(f"{LAYER}.self_attn.gate_proj.weight", f"{OURS}.mixer.gate.weight"),
    *expert_rules("mlp"),
    *router_rules("mlp.router.gate"),
    *shared_rules("mlp.shared_experts"),
    choice_rule("mlp.expert_bias"),
)

ARCHITECTURES = {"AfmoeForCausalLM": Architecture(afmoe, NAMES)}
