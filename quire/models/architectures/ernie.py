"""ERNIE 4.5: neighbours turn in pairs, one key for all biases; dense, or with experts.

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
)
from quire.models.names import LLAMA_NAMES, Rule, expert_rules, router_rules, shared_rules
from quire.models.spec import DecoderSpec


def ernie4_5(hf: HfConfig, *, head_dim: int | None = 128) -> DecoderSpec:
    """`Ernie4_5ForCausalLM`; defaults as in Ernie4_5Config."""
    bias = hf.bool_("use_bias", False)
    mixer = attention(
        hf,
        bias=None,
        head_dim=head_dim,
        theta=("rope_theta", 500_000.0),
        interleaved=True,
        qkv_bias=bias,
        out_bias=bias,
    )
    return plain(hf, mixer, dense(hf, bias=bias), eps=1e-5, max_len=131_072, tie=True)


def ernie4_5_moe(hf: HfConfig) -> DecoderSpec:
    """`Ernie4_5_MoeForCausalLM`: experts in every `moe_layer_interval`-th layer from one to another."""
    # How training fills experts; the least sum of weights, which no sum of the best comes near.
    hf.skip("moe_capacity", "moe_norm_min", "num_nextn_predict_layers")
    hf.choice("moe_gate", {"topk": None}, "topk")
    if hf.bool_("use_bias", False):
        raise hf.refuse("use_bias", "experts with biases are not described for this architecture")
    plain = ernie4_5(hf, head_dim=None)
    width = hf.int_("moe_intermediate_size", 1536)
    part = experts(
        hf,
        num_experts=hf.int_("moe_num_experts", 64),
        top_k=hf.int_("moe_k", 6),
        width=width,
        choice_bias=hf.bool_("moe_use_aux_free", True),
        router_float32=True,
        shared_width=hf.int_("moe_num_shared_experts", 2, minimum=0) * width,
    )
    first, step = hf.int_("moe_layer_start_index", 1, minimum=0), hf.int_("moe_layer_interval", 1)
    last = hf.int_("moe_layer_end_index", -1, minimum=-1)
    if last == -1:
        last = len(plain.layers) - 1
    layers = [
        replace(layer, feed_forward=part)
        if first <= index <= last and (index + 1) % step == 0
        else layer
        for index, layer in enumerate(plain.layers)
    ]
    return replace(plain, layers=tuple(layers))


MOE_NAMES = LLAMA_NAMES.with_rules(
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    *shared_rules("mlp.shared_experts"),
    Rule(
        "model.layers.{layer}.mlp.moe_statics.e_score_correction_bias",
        "layers.{layer}.feed_forward.choice.bias",
        squeeze=True,
    ),
)

ARCHITECTURES = {
    "Ernie4_5ForCausalLM": Architecture(ernie4_5, LLAMA_NAMES),
    "Ernie4_5_MoeForCausalLM": Architecture(
        ernie4_5_moe, replace(MOE_NAMES, drafts=("model.mtp_",))
    ),
}
