"""HunYuan: a norm over each head of q and k after RoPE, whose base grows by a fixed exponent.

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
from quire.models.hf_parts import default_head_size, demand, rope
from quire.models.name_parts import LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule, expert_rules, router_rules, shared_rules
from quire.models.spec import Attention, DecoderSpec, Rope


def hunyuan_dense(hf: HfConfig) -> DecoderSpec:
    """`HunYuanDenseV1ForCausalLM`; defaults as in HunYuanDenseV1Config."""
    return plain(hf, hunyuan_attention(hf), dense(hf), eps=1e-5)


def hunyuan_attention(hf: HfConfig) -> Attention:
    """The mixer of every layer."""
    # Names of special tokens, and switches that published files carry for other code of theirs.
    hf.skip("eod_token_id", "sep_token_id", "text_start_id", "text_end_id", "im_start_id")
    hf.skip("im_end_id", "im_newline_id", "org_vocab_size", "mask_init_id", "attention_head_dim")
    hf.skip("add_classification_head", "cla_share_factor", "class_num", "dense_list", "norm_type")
    hf.skip("pad_id", "pool_type", "mlp_bias")
    demand(hf, use_cla=False, use_rotary_pos_emb=True)
    demand(hf, "this architecture has norms of q and k", use_qk_norm=True)
    return attention(
        hf,
        rope=_rope(hf),
        normed=1e-5,
        norm_after_rope=True,
    )


def hunyuan_moe(hf: HfConfig) -> DecoderSpec:
    """`HunYuanMoEV1ForCausalLM` (A13B): one shared expert as wide as the routed ones."""
    hf.skip(
        "moe_drop_tokens", "moe_random_routing_dropped_token", "moe_intermediate_size", "pad_id"
    )
    hf.skip("norm_topk_prob", "use_mixed_mlp_moe", "mlp_bias", "norm_type")
    for key, only in (
        ("use_cla", False),
        ("moe_layer_num_skipped", 0),
        ("routed_scaling_factor", 1),
    ):
        if hf.each_layer(key, only) != only:
            raise hf.refuse(key, f"this architecture is described for {only} only")
    if hf.each_layer("num_shared_expert", 1) != 1:
        raise hf.refuse("num_shared_expert", "this architecture has one")
    plain = hunyuan_dense(hf)
    part = experts(
        hf,
        num_experts=hf.each_layer("num_experts", 1),
        top_k=hf.each_layer("moe_topk", 1),
        width=hf.int_("intermediate_size", 11_008),
        shared_width=hf.int_("intermediate_size", 11_008),
    )
    return replace(plain, layers=tuple(replace(layer, feed_forward=part) for layer in plain.layers))


def _rope(hf: HfConfig) -> Rope:
    """Scaling of the type "dynamic" with `alpha` is a larger base for every length."""
    head_size = hf.optional_int("head_dim") or default_head_size(hf)
    section = hf.section("rope_scaling" if hf.has("rope_scaling") else "rope_parameters")
    if section is None or not section.has("alpha"):
        return rope(hf, head_size=head_size)
    section.skip("type", "rope_type", "factor", "beta_fast", "beta_slow", "mscale")
    section.skip("mscale_all_dim")
    base = section.positive("rope_theta", hf.positive("rope_theta", 10_000.0))
    if head_size <= 2:
        raise hf.refuse("head_dim", "RoPE with alpha needs heads of more than two numbers")
    growth: float = section.positive("alpha") ** (head_size / (head_size - 2))
    return Rope(dim=head_size, theta=base * growth)


HUNYUAN_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{LAYER}.self_attn.query_layernorm.weight", f"{OURS}.mixer.q_norm.weight"),
    Rule(f"{LAYER}.self_attn.key_layernorm.weight", f"{OURS}.mixer.k_norm.weight"),
)

ARCHITECTURES = {
    "HunYuanDenseV1ForCausalLM": Architecture(hunyuan_dense, HUNYUAN_NAMES),
    "HunYuanMoEV1ForCausalLM": Architecture(
        hunyuan_moe,
        HUNYUAN_NAMES.with_rules(
            *expert_rules("mlp"),
            *router_rules("mlp.gate.wg"),
            *shared_rules("mlp.shared_mlp"),
        ),
    ),
}
