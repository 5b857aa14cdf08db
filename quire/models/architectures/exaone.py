"""EXAONE: from 4 on norms after each part and over each head of q and k, positions where a window is.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder, dense
from quire.models.hf_parts import sliding_layers
from quire.models.name_parts import gate_and_up, ours, pair, separate_heads
from quire.models.names import LLAMA_NAMES, POST_NORM_RULES, QK_NORM_RULES, Rule, WeightMap
from quire.models.spec import DecoderSpec, LayerSpec


def exaone4(hf: HfConfig) -> DecoderSpec:
    """`Exaone4ForCausalLM`: without `sliding_window` all layers have positions. Source: arXiv 2507.11407."""
    eps = hf.positive("rms_norm_eps", 1e-5)
    window = hf.optional_int("sliding_window", 4096)
    plain = attention(hf, bias=None, qk_norm="per_head", norm_eps=eps)
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
            placement="post",
            norm_eps=eps,
        )
        for slides in sliding_layers(hf, lambda index: every > 0 and (index + 1) % every != 0)
    ]
    return decoder(hf, layers)


def exaone(hf: HfConfig) -> DecoderSpec:
    """`ExaoneForCausalLM` (3.0 and 3.5): Llama under other names. Source: arXiv 2412.04862."""
    hf.skip("embed_dropout", "num_hidden_layers")
    layer = LayerSpec(
        mixer=attention(hf, bias=None),
        feed_forward=dense(hf, activation=activation(hf, key="activation_function")),
        norm_eps=hf.positive("layer_norm_epsilon", 1e-5),
    )
    return decoder(hf, [layer] * hf.int_("num_layers", 32))


_H = "transformer.h.{layer}"

EXAONE_NAMES = WeightMap(
    rules=(
        Rule("transformer.wte.weight", "embedding.weight"),
        *separate_heads(_H, *(f"attn.attention.{name}_proj" for name in "qkv")),
        *ours(
            _H,
            ("ln_1", "norm_before_mixer"),
            ("attn.attention.out_proj", "mixer.out"),
            ("ln_2", "norm_before_feed_forward"),
            ("mlp.c_proj", "feed_forward.down"),
        ),
        *gate_and_up(f"{_H}.mlp", "c_fc_0", "c_fc_1"),
        *pair("transformer.ln_f", "final_norm"),
        Rule("lm_head.weight", "head.weight"),
    ),
    ignored=(f"{_H}.attn.attention.rotary.inv_freq",),
    ignored_if_tied=("lm_head.weight",),
)

ARCHITECTURES = {
    "ExaoneForCausalLM": Architecture(exaone, EXAONE_NAMES),
    "Exaone4ForCausalLM": Architecture(
        exaone4, LLAMA_NAMES.with_rules(*POST_NORM_RULES, *QK_NORM_RULES)
    ),
}
