"""Tiny configs with odd values for short convolutions and gated delta nets beside attention.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import COMMON, Case


def lfm2(name: str, model_type: str, **values: Any) -> dict[str, Any]:
    names = {"architectures": [name], "model_type": model_type, "rope_theta": 600.0}
    sizes = {"norm_eps": 0.3, "layer_types": ["conv", "full_attention"], "rms_norm_eps": None}
    return COMMON | names | sizes | values


DELTA_CASES: dict[str, Case] = {
    "lfm2": Case(
        lfm2(
            "Lfm2ForCausalLM",
            "lfm2",
            conv_bias=True,
            conv_L_cache=4,
            block_multiple_of=24,
            block_ffn_dim_multiplier=1.3,
        )
    ),
    "lfm2_own_keys": Case(
        lfm2(
            "Lfm2ForCausalLM",
            "lfm2",
            layer_types=None,
            num_hidden_layers=3,
            full_attn_idxs=[1],
            block_ff_dim=72,
            block_auto_adjust_ff_dim=False,
            conv_L_cache=3,
            tie_embedding=False,
        )
    ),
    "lfm2_moe": Case(
        lfm2(
            "Lfm2MoeForCausalLM",
            "lfm2_moe",
            num_hidden_layers=3,
            layer_types=["conv", "full_attention", "conv"],
            num_dense_layers=1,
            num_experts=6,
            num_experts_per_tok=3,
            moe_intermediate_size=40,
            routed_scaling_factor=1.7,
        )
    ),
    "lfm2_moe_unbiased": Case(
        lfm2(
            "Lfm2MoeForCausalLM",
            "lfm2_moe",
            num_dense_layers=0,
            num_experts=5,
            num_experts_per_tok=2,
            moe_intermediate_size=40,
            conv_bias=True,
            norm_topk_prob=False,
            use_expert_bias=False,
            tie_word_embeddings=False,
        )
    ),
}
