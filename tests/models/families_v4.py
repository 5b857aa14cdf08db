"""Tiny configs with odd values for DeepSeek V4.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import COMMON, Case

_WINDOW, _SPARSE, _HEAVY = (
    "sliding_attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
)
V4: dict[str, Any] = {
    key: value
    for key, value in COMMON.items()
    if key not in ("intermediate_size", "num_key_value_heads")
} | {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "num_hidden_layers": 4,
    "head_dim": 24,
    "qk_rope_head_dim": 8,
    "q_lora_rank": 40,
    "o_groups": 2,
    "o_lora_rank": 20,
    "layer_types": [_WINDOW, _SPARSE, _HEAVY, _SPARSE],
    "compress_rates": {_SPARSE: 3, _HEAVY: 20},
    "sliding_window": 40,
    "index_n_heads": 8,
    "index_head_dim": 16,
    "index_topk": 7,
    "hc_mult": 3,
    "hc_sinkhorn_iters": 2,
    "hc_eps": 0.04,
    "mlp_layer_types": ["hash_moe", "moe", "hash_moe", "moe"],
    "moe_intermediate_size": 40,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "scoring_func": "sqrtsoftplus",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.7,
    "swiglu_limit": 0.8,
    "rope_theta": 300.0,
    "compress_rope_theta": 700.0,
    "tie_word_embeddings": False,
}

V4_CASES: dict[str, Case] = {
    "deepseek_v4": Case(V4),
    "deepseek_v4_yarn": Case(
        V4
        | {
            "hc_mult": 2,
            "index_n_heads": 12,
            "layer_types": [_WINDOW, _SPARSE, _HEAVY],
            "mlp_layer_types": ["moe", "hash_moe", "moe"],
            "num_hidden_layers": 3,
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 512,
                "beta_fast": 6.0,
                "beta_slow": 0.5,
            },
        }
    ),
}
