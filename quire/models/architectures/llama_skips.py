"""Solar Pro and Llama as fairseq2 writes it: the plain layer, with streams blended in, or under other names.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.name_parts import gate_and_up, ours, separate_heads, with_head
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import DecoderSpec


def solar(hf: HfConfig) -> DecoderSpec:
    """`SolarForCausalLM` (Solar Pro): some layers blend what came into an earlier layer into the stream.

    `bskcn_1` and `bskcn_2` name the layers whose input is kept, `bskcn_3` and `bskcn_4` those that blend the last
    one of either in, with the second share of `bskcn_tv`. Defaults as in SolarConfig.
    """
    hf.skip("sliding_window")  # which its code does not read
    spec = plain(hf, attention(hf), dense(hf, bias=hf.bool_("mlp_bias", False)))
    defaults = ([12, 20, 32, 44], [20, 32], [16, 24, 36, 48], [28, 40])
    kept_1, kept_2, blending_1, blending_2 = (
        hf.integers(f"bskcn_{number}") if hf.has(f"bskcn_{number}") else default
        for number, default in enumerate(defaults, start=1)
    )
    shares = hf.numbers("bskcn_tv") if hf.has("bskcn_tv") else (0.9, 0.8)
    if len(shares) != 2 or max(shares) > 1:
        raise hf.refuse("bskcn_tv", "it must be two shares of at most 1: of training and of use")
    layers = []
    for index, layer in enumerate(spec.layers):
        blends = []
        for key, kept, blending in (("3", kept_1, blending_1), ("4", kept_2, blending_2)):
            earlier = [number for number in kept if number < index]
            if index in blending and not earlier:
                raise hf.refuse(f"bskcn_{key}", f"no layer before {index} is kept for it")
            if index in blending and index not in kept:  # else it would blend with itself
                blends.append((max(earlier), shares[1]))
        layers.append(replace(layer, blends=tuple(blends)))
    return replace(spec, layers=tuple(layers))


def fairseq2(hf: HfConfig) -> DecoderSpec:
    """`Fairseq2LlamaForCausalLM`: neighbours turn in pairs, for its files keep rows of q and k in that order."""
    one = attention(hf, interleaved=True)
    return plain(hf, one, dense(hf, bias=hf.bool_("mlp_bias", False)))


_LAYER = "decoder.layers.{layer}"
FAIRSEQ2_NAMES = with_head(
    Rule("decoder_frontend.embed.weight", "embedding.weight"),
    *separate_heads(_LAYER, *(f"self_attn.{name}_proj" for name in "qkv")),
    *gate_and_up(f"{_LAYER}.ffn", "gate_proj", "inner_proj"),
    *ours(
        _LAYER,
        ("self_attn_layer_norm", "norm_before_mixer"),
        ("self_attn.output_proj", "mixer.out"),
        ("ffn_layer_norm", "norm_before_feed_forward"),
        ("ffn.output_proj", "feed_forward.down"),
    ),
    Rule("decoder.layer_norm.weight", "final_norm.weight"),
)
FAIRSEQ2_NAMES = replace(
    FAIRSEQ2_NAMES,
    rules=tuple(
        replace(rule, source="final_proj.weight") if rule.target == "head.weight" else rule
        for rule in FAIRSEQ2_NAMES.rules
    ),
    ignored_if_tied=("final_proj.weight",),
)

ARCHITECTURES = {
    "SolarForCausalLM": Architecture(solar, LLAMA_NAMES),
    "Fairseq2LlamaForCausalLM": Architecture(fairseq2, FAIRSEQ2_NAMES),
}
