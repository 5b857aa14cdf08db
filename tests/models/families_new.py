"""Tiny configs with odd values for decoders whose mixtures or states are of a newer kind.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import COMMON, Case

KOLIBRI = COMMON | {
    "architectures": ["Kolibri1ForCausalLM"],
    "model_type": "kolibri1",
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "head_dim": 24,
    "sliding_window": 40,
    "rope_theta": 700.0,
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 56,
}
del KOLIBRI["intermediate_size"]

HY_V4 = COMMON | {
    "architectures": ["HYV4ForCausalLM"],
    "model_type": "hy_v4",
    "rms_norm_eps": 0.1,
    "num_hidden_layers": 3,
    "q_lora_rank": 40,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "attention_bias": True,
    "rope_theta": 700.0,
    "index_topk": 40,
    "index_head_dim": 28,
    "index_n_heads": 12,
    "indexer_types": ["full", "shared", "full"],
    "mlp_layer_types": ["sparse", "dense", "sparse"],
    "n_routed_experts": 12,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "routed_scaling_factor": 1.7,
    "swiglu_limit": 0.8,
    "hc_mult": 3,
    "hc_magnitude": 1.3,
    "hc_eps": 0.04,
}

LING = COMMON | {
    "architectures": ["BailingHybridForCausalLM"],
    "model_type": "bailing_hybrid",
    "num_key_value_heads": 4,
    "rms_norm_eps": 0.1,
    "num_hidden_layers": 3,
    "head_dim": 12,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "rope_theta": 700.0,
    "short_conv_kernel_size": 3,
    "layer_group_size": 2,
    "kda_lower_bound": -1.5,
    "first_k_dense_replace": 1,
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "num_shared_experts": 2,
    "moe_intermediate_size": 40,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 1.7,
}

LING_KEYS: dict[str, Any] = {
    "embedding_dropout": 0.0,
    "expert_swiglu_limit_list": None,
    "gated_attention_proj_granularity_type": "head_wise",
    "group_norm_size": 1,
    "kda_safe_gate": True,
    "linear_silu": True,
    "max_window_layers": 20,
    "moe_router_enable_expert_bias": True,
    "moe_shared_expert_intermediate_size": 40,
    "mtp_loss_scaling_factor": 0,
    "mtp_use_kda": False,
    "no_kda_lora": True,
    "num_kv_heads_for_linear_attn": 0,
    "num_nextn_predict_layers": 0,
    "output_dropout": 0.0,
    "partial_rotary_factor": 0.5,
    "q_lora_rank": None,
    "qk_head_dim": 40,
    "rope_interleave": True,
    "rope_parameters": {
        "partial_rotary_factor": 0.5,
        "rope_theta": 700.0,
        "rope_type": "default",
    },
    "rotary_dim": 16,
    "router_dtype": "fp32",
    "scale_router_input": False,
    "score_function": "sigmoid",
    "scoring_func": "sigmoid",
    "seq_aux": True,
    "share_expert_swiglu_limit_list": None,
    "topk_method": "noaux_tc",
    "up_proj_norm": False,
    "use_bias": False,
    "use_kda_lora": False,
    "use_mla_nope": False,
    "use_nGPT": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "value_norm": False,
}
"""What published files say beside the config class's own."""

M3 = COMMON | {
    "model_type": "minimax_m3_vl_text",
    "num_hidden_layers": 3,
    "head_dim": 24,
    "rotary_dim": 12,
    "rope_parameters": {"rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.5},
    "layer_types": ["minimax_m3_sparse", "full_attention", "minimax_m3_sparse"],
    "mlp_layer_types": ["sparse", "dense", "sparse"],
    "index_n_heads": 2,
    "index_head_dim": 20,
    "index_block_size": 16,
    "index_topk_blocks": 5,
    "index_local_blocks": 2,
    "num_local_experts": 12,
    "num_experts_per_tok": 3,
    "intermediate_size": 40,
    "dense_intermediate_size": 80,
    "shared_intermediate_size": 56,
    "routed_scaling_factor": 1.7,
    "swiglu_limit": 0.8,
    "rms_norm_eps": 0.1,
}


def m3(**values: Any) -> dict[str, Any]:
    """The file around that decoder."""
    return {
        "architectures": ["MiniMaxM3SparseForConditionalGeneration"],
        "model_type": "minimax_m3_vl",
        "torch_dtype": "float32",
        "image_token_index": 88,
        "projector_hidden_size": 64,
        "vision_config": {"hidden_size": 32},
        "text_config": M3 | values,
    }


NEW_CASES: dict[str, Case] = {
    "kolibri1": Case(KOLIBRI | {"hidden_act": "gelu"}),
    "kolibri1_whole": Case(
        KOLIBRI
        | {
            "layer_types": ["full_attention"] * 3,
            "attention_bias": False,
            "use_sliding_window": True,
            "head_dtype": "float32",
            "norm_topk_prob": True,
            "tie_word_embeddings": True,
        }
    ),
    "ling3": Case(LING),
    "ling3_own_keys": Case(LING | LING_KEYS | {"architectures": ["BailingMoeV3ForCausalLM"]}),
    "ling3_plain": Case(
        LING
        | {
            "kda_safe_gate": False,
            "norm_topk_prob": False,
            "attention_bias": True,
            "n_group": 1,
            "topk_group": 1,
            "layer_types": ["full_attention", "linear_attention", "full_attention"],
        }
    ),
    "hy_v4": Case(HY_V4),
    "minimax_m3": Case(m3()),
    "minimax_m3_own_keys": Case(
        m3(
            layer_types=None,
            mlp_layer_types=None,
            moe_layer_freq=[0, 1, 1],
            hidden_act="swigluoai",
            use_gemma_norm=True,
            qk_norm_type="per_head",
            sparse_attention_config={
                "use_sparse_attention": True,
                "sparse_index_dim": 20,
                "sparse_num_index_heads": 2,
                "sparse_topk_blocks": 4,
                "sparse_block_size": 20,
                "sparse_score_type": "max",
                "sparse_init_block": 0,
                "sparse_local_block": 1,
                "sparse_disable_index_value": [0, 1, 1],
                "sparse_attention_freq": [0, 1, 1],
            },
        )
    ),
    "hy_v4_grouped": Case(
        HY_V4
        | {
            "hc_mult": 2,
            "n_group": 3,
            "topk_group": 2,
            "norm_topk_prob": False,
            "attention_bias": False,
            "hidden_act": "silu",
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "mscale_all_dim": 0.7,
                "mscale": 0.9,
            },
        }
    ),
}
