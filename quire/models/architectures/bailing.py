"""Bailing MoE (Ling, Ring), Sarvam and Param2: q, k and v in one tensor, experts beside ones that all tokens pass.

The routing of the second version, and its spelling, is in `models.hf_deepseek`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, layered, with_parts
from quire.models.hf_deepseek import dense_first, routed_experts, sigmoid_experts
from quire.models.hf_parts import demand
from quire.models.name_parts import DEEPSEEK_RULES, LAYER, OURS, choice_rule, joined_heads, ours
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import Attention, DecoderSpec, Moe

_COUNTS = ("num_experts", "num_shared_experts")


def bailing_moe(hf: HfConfig) -> DecoderSpec:
    """`BailingMoeForCausalLM`: experts weighed by their share of all. Source: arXiv 2503.05139."""
    part = routed_experts(hf, top_k=6, scale=1.0, counts=_COUNTS)
    part = replace(part, normalize=hf.bool_("norm_topk_prob", False))
    return layered(hf, _mixer(hf), dense_first(hf, part, 0), max_len=16_384)


def bailing_moe_v2(hf: HfConfig) -> DecoderSpec:
    """`BailingMoeV2ForCausalLM`: half of a head turns, experts are weighed by sigmoids."""
    part = sigmoid_experts(hf, top_k=8, scale=2.5, groups=8, top_groups=4, counts=_COUNTS)
    return _by_sigmoids(hf, part, turning=0.5, first_dense=0)


def sarvam_moe(hf: HfConfig) -> DecoderSpec:
    """`SarvamMoEForCausalLM` (Sarvam 30B): whole heads turn, the first layer is dense.

    Defaults as in SarvamMoEConfig of the published files.
    """
    hf.skip("attn_implementation", "sliding_window")
    hf.add_defaults({"num_experts": 128, "num_key_value_heads": 4, "moe_intermediate_size": 1024})
    part = sigmoid_experts(hf, top_k=6, scale=2.5, counts=_COUNTS)
    return _by_sigmoids(hf, part, turning=1.0, first_dense=1)


def param2moe(hf: HfConfig) -> DecoderSpec:
    """`Param2MoEForCausalLM` (Param2 17B): as Sarvam's; the width of what all tokens pass is stated in full."""
    part = sigmoid_experts(hf, top_k=6, scale=2.5, counts=_COUNTS)
    width = hf.optional_int("moe_shared_expert_intermediate_size", part.shared_width)
    spec = _by_sigmoids(hf, part, turning=1.0, first_dense=1)
    whole = replace(part, shared_width=width or part.shared_width)
    parts = [
        whole if isinstance(one.feed_forward, Moe) else one.feed_forward for one in spec.layers
    ]
    return with_parts(spec, *parts)


def _by_sigmoids(hf: HfConfig, part: Moe, *, turning: float, first_dense: int) -> DecoderSpec:
    """turning: the default share of a head that turns; first_dense: that of `first_k_dense_replace`."""
    hf.skip("rotary_dim", "router_dtype", "mtp_loss_scaling_factor", "rope_interleave")
    hf.choice("score_function", {"sigmoid": None}, "sigmoid")
    always = ("use_qk_norm", "moe_router_enable_expert_bias", "use_rmsnorm")
    demand(hf, "this architecture has it", **dict.fromkeys(always, True))
    width = hf.optional_int("moe_shared_expert_intermediate_size", part.width) or part.width
    part = replace(part, shared_width=part.shared_width // part.width * width)
    one = _mixer(hf, part=("partial_rotary_factor", turning), normed=1e-6)
    return layered(hf, one, dense_first(hf, part, first_dense), max_len=32_768)


def _mixer(hf: HfConfig, **fields: Any) -> Attention:
    hf.skip("embedding_dropout", "output_dropout", "max_window_layers")
    never = ("norm_head", "norm_softmax", "multi_gate", "use_sliding_window")
    demand(hf, "it is not described for this architecture", **dict.fromkeys(never, False))
    bias = hf.bool_("use_bias", False)
    qkv_bias = hf.bool_("use_qkv_bias", False)
    return attention(hf, bias=None, qkv_bias=qkv_bias, out_bias=bias, **fields)


_NAMES = replace(
    LLAMA_NAMES.without(f"{OURS}.mixer.qkv", f"{OURS}.mixer.out", "embedding")
    .with_rules(
        Rule("model.word_embeddings.weight", "embedding.weight"),
        *joined_heads(f"{LAYER}.attention.query_key_value"),
        *ours(
            LAYER,
            ("attention.dense", "mixer.out"),
            ("attention.query_layernorm", "mixer.q_norm"),
            ("attention.key_layernorm", "mixer.k_norm"),
        ),
        *DEEPSEEK_RULES,
        choice_rule("mlp.gate.expert_bias"),
    )
    .without_source(f"{LAYER}.mlp.gate.e_score_correction_bias"),
    drafts=("model.layers.{layer}.",),
)

ARCHITECTURES = {
    "BailingMoeForCausalLM": Architecture(bailing_moe, _NAMES),
    "BailingMoeV2ForCausalLM": Architecture(bailing_moe_v2, _NAMES),
    "SarvamMoEForCausalLM": Architecture(sarvam_moe, _NAMES),
    "Param2MoEForCausalLM": Architecture(param2moe, _NAMES),
}
