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


def delta(name: str, model_type: str, **values: Any) -> dict[str, Any]:
    names = {"architectures": [name], "model_type": model_type, "layer_types": LAYERS}
    sizes = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 12,
        "linear_value_head_dim": 20,
        "linear_conv_kernel_dim": 3,
    }
    return COMMON | names | sizes | values


LAYERS = ["linear_attention", "full_attention"]
EXPERTS = {
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 48,
}


def kimi(deltas: list[int], wholes: list[int], **values: Any) -> dict[str, Any]:
    linear = {"head_dim": 12, "num_heads": 3, "short_conv_kernel_size": 3}
    linear |= {"kda_layers": deltas, "full_attn_layers": wholes}
    names = {"architectures": ["KimiLinearForCausalLM"], "model_type": "kimi_linear"}
    sizes = {
        "linear_attn_config": linear,
        "num_key_value_heads": 4,
        "model_max_length": 512,
        "rms_norm_eps": 0.3,
        "kv_lora_rank": 48,
        "qk_nope_head_dim": 24,
        "qk_rope_head_dim": 16,
        "v_head_dim": 20,
        "num_experts": 12,
        "num_experts_per_token": 3,
        "moe_intermediate_size": 40,
        "num_shared_experts": 2,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 1.7,
    }
    config = COMMON | names | sizes | values
    return {key: it for key, it in config.items() if key != "max_position_embeddings"}


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
    "qwen3_next": Case(
        delta(
            "Qwen3NextForCausalLM",
            "qwen3_next",
            **EXPERTS,
            head_dim=24,
            partial_rotary_factor=0.5,
            rope_theta=600.0,
        )
    ),
    "qwen3_next_dense_first": Case(
        delta(
            "Qwen3NextForCausalLM",
            "qwen3_next",
            **EXPERTS,
            head_dim=16,
            mlp_only_layers=[0],
            norm_topk_prob=False,
            linear_conv_kernel_dim=4,
            layer_types=None,
            full_attention_interval=2,
            tie_word_embeddings=True,
        )
    ),
    "qwen3_5": Case(
        delta(
            "Qwen3_5ForCausalLM",
            "qwen3_5_text",
            head_dim=24,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 600.0,
                "partial_rotary_factor": 0.5,
                "mrope_interleaved": True,
                "mrope_section": [2, 2, 2],
            },
        )
    ),
    "qwen3_5_moe": Case(
        delta(
            "Qwen3_5MoeForCausalLM",
            "qwen3_5_moe_text",
            **EXPERTS,
            head_dim=24,
            partial_rotary_factor=0.5,
            rope_theta=600.0,
            tie_word_embeddings=True,
        )
    ),
    "kimi_linear": Case(kimi([1], [2], num_expert_group=3, topk_group=2)),
    "kimi_linear_plain": Case(
        kimi([1, 3], [2], num_hidden_layers=3, moe_renormalize=False, q_lora_rank=40)
    ),
}

OLMO: dict[str, Any] = delta(
    "OlmoHybridForCausalLM",
    "olmo_hybrid",
    linear_num_key_heads=3,
    linear_num_value_heads=3,
    rope_parameters={"rope_type": "default", "rope_theta": 700.0},
)
DELTA_CASES |= {
    "olmo_hybrid": Case(OLMO),
    "olmo_hybrid_plain": Case(
        OLMO
        | {
            "rope_parameters": {"rope_type": "default", "rope_theta": None},
            "linear_allow_neg_eigval": False,
            "layer_types": LAYERS[::-1],
            "rms_norm_eps": 0.3,
        }
    ),
}

MINIMAX: dict[str, Any] = COMMON | {
    "architectures": ["MiniMaxForCausalLM"],
    "model_type": "minimax",
    "num_hidden_layers": 3,
    "layer_types": [LAYERS[0], LAYERS[1], LAYERS[0]],
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "sliding_window": 40,
    "rope_theta": 700.0,
    "rms_norm_eps": 0.3,
    "block_size": 16,
    "full_attn_alpha_factor": 1.7,
    "full_attn_beta_factor": 0.8,
    "linear_attn_alpha_factor": 0.6,
    "linear_attn_beta_factor": 1.4,
    "mlp_alpha_factor": 1.3,
    "mlp_beta_factor": 0.7,
}
DELTA_CASES |= {
    "minimax": Case(MINIMAX | {"hidden_act": "gelu"}),
    "minimax_plain": Case(
        MINIMAX
        | {
            "head_dim": 24,
            "layer_types": None,
            "sliding_window": None,
            "num_key_value_heads": 2,
            "mlp_beta_factor": 1.0,
            "tie_word_embeddings": True,
        }
    ),
}
