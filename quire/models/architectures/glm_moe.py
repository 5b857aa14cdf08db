"""GLM 4.5, dots.llm1, Solar Open, MiniMax M2, Hy3, DeepSeek MoE: ordinary attention before routed experts.

That routing, and its spelling, is in `models.hf_deepseek`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, experts, layered, with_attention
from quire.models.hf_deepseek import (
    check_whole_heads,
    dense_first,
    named_parts,
    routed_experts,
    sigmoid_experts,
)
from quire.models.hf_parts import demand, demand_each, windows
from quire.models.name_parts import DEEPSEEK_RULES, choice_rule
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import DecoderSpec


def glm4_moe(hf: HfConfig) -> DecoderSpec:
    """`Glm4MoeForCausalLM` (GLM 4.5 to 4.7): half of a head turns; the output has no bias."""
    normed = 1e-5 if hf.bool_("use_qk_norm", False) else None
    share = ("partial_rotary_factor", 0.5)
    mixer = attention(hf, kv_heads=8, part=share, normed=normed, out_bias=False)
    parts = dense_first(hf, sigmoid_experts(hf, top_k=8, scale=1.0), 1)
    return layered(hf, mixer, parts, eps=1e-5, max_len=131_072)


def dots1(hf: HfConfig) -> DecoderSpec:
    """`Dots1ForCausalLM`: an RMS norm over each head of q and k; windows from `max_window_layers` on."""
    mixer = attention(hf, normed=1e-6)
    part = sigmoid_experts(hf, top_k=6, scale=1.0, normalize=False)
    hf.skip("use_sliding_window")  # Transformers looks at the window only
    first = hf.optional_int("max_window_layers", 62, minimum=0) or 0
    found = windows(hf, lambda index: index >= first)
    spec = layered(hf, mixer, dense_first(hf, part, 0), max_len=2048)
    return with_attention(spec, lambda index, one: replace(one, window=found[index][1]))


def solar_open(hf: HfConfig) -> DecoderSpec:
    """`SolarOpenForCausalLM`: experts in every layer; the output has no bias."""
    hf.skip("intermediate_size", "first_k_dense_replace", "use_qk_norm")
    check_whole_heads(hf)
    theta = ("rope_theta", 1_000_000.0)
    mixer = attention(hf, kv_heads=8, head_dim=128, theta=theta, out_bias=False)
    part = sigmoid_experts(hf, top_k=8, scale=1.0)
    parts = [part] * hf.int_("num_hidden_layers")
    return layered(hf, mixer, parts, eps=1e-5, max_len=131_072)


def hy_v3(hf: HfConfig) -> DecoderSpec:
    """`HYV3ForCausalLM` (Hy3): an RMS norm over each head of q and k before RoPE."""
    hf.skip("enable_moe_fp32_combine")
    demand(hf, "no checkpoint of this architecture has it", mlp_bias=False)
    mixer = attention(hf, kv_heads=8, head_dim=128, normed=1e-5)
    part = sigmoid_experts(hf, top_k=8, scale=1.0, counts=("num_experts", "num_shared_experts"))
    part = replace(part, scale=hf.positive("router_scaling_factor", 2.826))
    return layered(hf, mixer, named_parts(hf, part, 1), eps=1e-5, max_len=131_072)


def deepseek_moe(hf: HfConfig) -> DecoderSpec:
    """`DeepseekForCausalLM` (DeepSeek MoE): experts weighed by their share of all. Source: arXiv 2401.06066."""
    hf.choice("scoring_func", {"softmax": None}, "softmax")
    part = routed_experts(hf, top_k=6, scale=1.0)
    part = replace(part, normalize=hf.bool_("norm_topk_prob", False))
    return layered(hf, attention(hf), dense_first(hf, part, 0))


def minimax_m2(hf: HfConfig) -> DecoderSpec:
    """`MiniMaxM2ForCausalLM`: one RMS norm over all heads of q, one of k; `rotary_dim` of a head turn."""
    head_size = hf.int_("head_dim", 128)
    turning = hf.int_("rotary_dim", head_size) / head_size
    mixer = attention(
        hf,
        bias=None,
        kv_heads=8,
        head_dim=head_size,
        theta=("rope_theta", 5_000_000.0),
        part=("partial_rotary_factor", turning),
        normed=1e-6,
        qk_norm="full",
    )
    _check_minimax(hf)
    part = experts(
        hf,
        256,
        8,
        key="num_local_experts",
        width=hf.int_("intermediate_size", 1536),
        scoring="sigmoid",
        choice_bias=True,
        router_float32=True,
    )
    return layered(hf, mixer, [part] * hf.int_("num_hidden_layers"), max_len=196_608)


def _check_minimax(hf: HfConfig) -> None:
    """Keys that published files have beside those of the config class, and what they must say."""
    hf.skip("mtp_transformer_layers", "num_mtp_modules", "use_mtp")  # modules that draft tokens
    hf.choice("scoring_func", {"sigmoid": None}, "sigmoid")
    hf.choice("qk_norm_type", {"per_layer": None}, "per_layer")
    demand_each(hf, attn_type_list=1, shared_intermediate_size=0)
    demand(hf, "this architecture has it", use_qk_norm=True, use_routing_bias=True)


_NAMES = replace(LLAMA_NAMES.with_rules(*DEEPSEEK_RULES), drafts=("model.layers.{layer}.",))
_MINIMAX = "block_sparse_moe"

ARCHITECTURES = {
    "Glm4MoeForCausalLM": Architecture(glm4_moe, _NAMES.with_rules(*QK_NORM_RULES)),
    "Dots1ForCausalLM": Architecture(dots1, _NAMES.with_rules(*QK_NORM_RULES)),
    "SolarOpenForCausalLM": Architecture(solar_open, _NAMES),
    "DeepseekForCausalLM": Architecture(deepseek_moe, _NAMES),
    "HYV3ForCausalLM": Architecture(
        hy_v3,
        LLAMA_NAMES.with_rules(
            *QK_NORM_RULES,
            *expert_rules("mlp"),
            *router_rules("mlp.router.gate"),
            *shared_rules("mlp.shared_mlp"),
            choice_rule("mlp.expert_bias"),
        ),
    ),
    "MiniMaxM2ForCausalLM": Architecture(
        minimax_m2,
        replace(LLAMA_NAMES, drafts=("model.layers.{layer}.",)).with_rules(
            *QK_NORM_RULES,
            *expert_rules(_MINIMAX, ("w1", "w3", "w2")),
            *router_rules(f"{_MINIMAX}.gate"),
            choice_rule(f"{_MINIMAX}.e_score_correction_bias"),
        ),
    ),
}
