"""Llama 4, text: attention in stretches, layers without positions, experts that all tokens share one of.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    attention,
    dense,
    experts,
    plain,
    with_parts,
)
from quire.models.hf_parts import layer_kinds, turning_layers
from quire.models.hf_text import llava_names, text_alone
from quire.models.name_parts import LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import Attention, DecoderSpec, Temperature


def llama4(hf: HfConfig) -> DecoderSpec:
    """`Llama4ForCausalLM`; defaults are those of Llama4TextConfig."""
    hf.skip("for_llm_compressor")
    num_layers = hf.int_("num_hidden_layers", 48)
    turns = turning_layers(hf, num_layers)
    kinds = ("full_attention", "chunked_attention")
    named = layer_kinds(hf, kinds, lambda index: kinds[turns[index]])
    mixers = [_mixer(hf, turn, kind == kinds[1]) for turn, kind in zip(turns, named, strict=True)]
    part = dense(hf, width=hf.int_("intermediate_size_mlp", 16_384))
    spec = plain(hf, mixers, part, eps=1e-5, max_len=131_072)
    step = hf.int_("interleave_moe_layer_step", 1)
    chosen = (
        hf.integers("moe_layers") if hf.has("moe_layers") else range(step - 1, num_layers, step)
    )
    part_of_experts = experts(
        hf,
        16,
        1,
        key="num_local_experts",
        width=hf.int_("intermediate_size", 8192),
        scoring="sigmoid",
        normalize=False,
        shared_width=hf.int_("intermediate_size", 8192),
        weigh_inputs=True,
    )
    return with_parts(
        spec, *(part_of_experts if index in chosen else part for index in range(num_layers))
    )


def _mixer(hf: HfConfig, turns: bool, chunked: bool) -> Attention:
    """Heads turn and are normed, which without weights may come before the turn; or they grow with the position."""
    one = attention(
        hf, heads=40, kv_heads=8, head_dim=128, theta=("rope_theta", 500_000.0), interleaved=True
    )
    window = hf.optional_int("attention_chunk_size", 8192) if chunked else None
    one = replace(one, window=window, chunked=window is not None)
    growth = Temperature(
        scale=hf.positive("attn_scale", 0.1), interval=hf.int_("floor_scale", 8192), shift=1
    )
    grows, is_normed = hf.bool_("attn_temperature_tuning", True), hf.bool_("use_qk_norm", True)
    if not turns:
        return replace(one, rope=None, temperature=growth if grows else None)
    if not is_normed:
        return one
    return replace(one, qk_norm="per_head", norm_eps=hf.positive("rms_norm_eps", 1e-5))


_PART, _EXPERT = f"{LAYER}.feed_forward", f"{OURS}.feed_forward.experts.{{expert}}"

NAMES = replace(
    LLAMA_NAMES.without(f"{OURS}.feed_forward.gate_up", f"{OURS}.feed_forward.down").with_rules(
        *(
            Rule(
                f"{_PART}.{block}{name}_proj.weight",
                f"{OURS}.feed_forward.{target}.weight",
                (part,),
            )
            for block, inside in (("", ""), ("shared_expert.", "shared."))
            for name, target, part in (
                ("gate", f"{inside}gate_up", 0),
                ("up", f"{inside}gate_up", 1),
                ("down", f"{inside}down", 0),
            )
        ),
        Rule(f"{_PART}.router.weight", f"{OURS}.feed_forward.router.weight"),
        Rule(f"{_PART}.experts.gate_up_proj", f"{_EXPERT}.gate_up.weight", (0, 1), transpose=True),
        Rule(f"{_PART}.experts.down_proj", f"{_EXPERT}.down.weight", transpose=True),
    ),
    ones=(f"{OURS}.mixer.q_norm.weight", f"{OURS}.mixer.k_norm.weight"),
)

ARCHITECTURES = {
    "Llama4ForCausalLM": Architecture(llama4, NAMES),
    "Llama4ForConditionalGeneration": Architecture(
        text_alone(llama4), llava_names(NAMES, ("vision_model.", "multi_modal_projector."))
    ),
}
