"""Tiny configs with odd values for decoders whose mixtures or states are of a newer kind.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

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

NEW_CASES: dict[str, Case] = {
    "kolibri1": Case(KOLIBRI | {"hidden_act": "gelu"}),
    "kolibri1_whole": Case(
        KOLIBRI
        | {
            "layer_types": ["full_attention"] * 3,
            "norm_topk_prob": True,
            "tie_word_embeddings": True,
        }
    ),
    "hy_v4": Case(HY_V4),
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
