"""EXAONE: from 4 on norms after each part and over each head of q and k, positions where a window is.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder, dense
from quire.models.hf_deepseek import named_parts, sigmoid_experts
from quire.models.hf_parts import sliding_layers
from quire.models.name_parts import (
    GPT_LAYER,
    GPT_PARTS,
    choice_rule,
    gate_and_up,
    ours,
    separate_heads,
    transformer_map,
)
from quire.models.names import (
    LLAMA_NAMES,
    POST_NORM_RULES,
    QK_NORM_RULES,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import DecoderSpec, LayerSpec, Placement


def exaone4(hf: HfConfig, *, placement: Placement = "post") -> DecoderSpec:
    """`Exaone4ForCausalLM`: without `sliding_window` all layers have positions. Source: arXiv 2507.11407."""
    window = hf.optional_int("sliding_window", 4096)
    plain = attention(hf, bias=None, normed=1e-5)
    if window is None or hf.has("layer_types"):
        hf.skip("sliding_window_pattern")  # also a string such as "LLLG", which layer_types repeats
        every = 0
    else:
        every = hf.int_("sliding_window_pattern", 4)
    layers = [
        LayerSpec(
            mixer=replace(
                plain,
                window=window if slides else None,
                rope=plain.rope if slides or window is None else None,
            ),
            feed_forward=dense(hf),
            placement=placement,
            norm_eps=plain.norm_eps,
        )
        for slides in sliding_layers(hf, lambda index: every > 0 and (index + 1) % every != 0)
    ]
    return decoder(hf, layers)


def exaone_moe(hf: HfConfig) -> DecoderSpec:
    """`ExaoneMoeForCausalLM` (K-EXAONE): norms before each part, experts as in DeepSeek V3."""
    plain = exaone4(hf, placement="pre")
    part = sigmoid_experts(hf, top_k=8, scale=2.5, counts=("num_experts", "num_shared_experts"))
    parts = zip(plain.layers, named_parts(hf, part, 1), strict=True)
    return replace(plain, layers=tuple(replace(one, feed_forward=part) for one, part in parts))


def exaone(hf: HfConfig) -> DecoderSpec:
    """`ExaoneForCausalLM` (3.0 and 3.5): Llama under other names. Source: arXiv 2412.04862."""
    hf.skip("embed_dropout", "num_hidden_layers")
    layer = LayerSpec(
        mixer=attention(hf, bias=None),
        feed_forward=dense(hf, activation=activation(hf, key="activation_function")),
        norm_eps=hf.positive("layer_norm_epsilon", 1e-5),
    )
    return decoder(hf, [layer] * hf.int_("num_layers", 32))


EXAONE_NAMES = transformer_map(
    *separate_heads(GPT_LAYER, *(f"attn.attention.{name}_proj" for name in "qkv")),
    *ours(
        GPT_LAYER,
        *GPT_PARTS,
        ("attn.attention.out_proj", "mixer.out"),
    ),
    *gate_and_up(f"{GPT_LAYER}.mlp", "c_fc_0", "c_fc_1"),
    ignored=(f"{GPT_LAYER}.attn.attention.rotary.inv_freq",),
)

_EXAONE_MOE = Architecture(
    exaone_moe,
    replace(
        LLAMA_NAMES.with_rules(
            *QK_NORM_RULES,
            *expert_rules("mlp"),
            *router_rules("mlp.gate"),
            *shared_rules("mlp.shared_experts"),
            choice_rule("mlp.e_score_correction_bias"),
        ),
        drafts=("mtp.",),
    ),
)

ARCHITECTURES = {
    "ExaoneMoeForCausalLM": _EXAONE_MOE,
    "ExaoneMoEForCausalLM": _EXAONE_MOE,
    "ExaoneForCausalLM": Architecture(exaone, EXAONE_NAMES),
    "Exaone4ForCausalLM": Architecture(
        exaone4, LLAMA_NAMES.with_rules(*POST_NORM_RULES, *QK_NORM_RULES)
    ),
}
