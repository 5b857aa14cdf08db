"""Tiny configs with odd values for mixtures of experts and latent attention beyond the first ones of `families`.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import CLASSIC, COMMON, Case

YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 6.0,
    "beta_slow": 0.7,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 6.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 5.0,
    "original_max_position_embeddings": 96,
}
EPS = frozenset({"norm_eps", "layer.norm_eps"})

LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 48,
    "q_lora_rank": 40,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
}


ROUTED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
}
IN_GROUPS = {"n_routed_experts": 12, "n_group": 3, "topk_group": 2}


def routed(name: str, model_type: str, **values: Any) -> dict[str, Any]:
    names = {"architectures": [name], "model_type": model_type, "rope_theta": 600.0}
    return COMMON | names | ROUTED | values


def dbrx(clip: float, theta: float, **experts: Any) -> dict[str, Any]:
    """Transformers reads the base of positions from rope_parameters only."""
    names = {"architectures": ["DbrxForCausalLM"], "model_type": "dbrx"}
    sizes = {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}
    attention = {"clip_qkv": clip, "kv_n_heads": 2, "rope_theta": theta, "model_type": ""}
    experts = {"ffn_hidden_size": 48, "moe_num_experts": 6, "model_type": ""} | experts
    rope = {"rope_type": "default", "rope_theta": theta}
    parts = {"attn_config": attention, "ffn_config": experts, "rope_parameters": rope}
    return CLASSIC | names | sizes | parts


def deepseek(name: str, model_type: str, **values: Any) -> dict[str, Any]:
    return routed(name, model_type, **LATENT | values)


MOE_CASES: dict[str, Case] = {
    "deepseek_v2": Case(
        deepseek(
            "DeepseekV2ForCausalLM",
            "deepseek_v2",
            topk_method="group_limited_greedy",
            **IN_GROUPS,
            attention_bias=True,
            rope_scaling=YARN | {"mscale": 0.9, "mscale_all_dim": 1.4},
        )
    ),
    "deepseek_v2_lite": Case(
        deepseek(
            "DeepseekV2ForCausalLM",
            "deepseek_v2",
            topk_method="greedy",
            q_lora_rank=None,
            hidden_act="gelu",
        )
    ),
    "deepseek_v3": Case(
        deepseek(
            "DeepseekV3ForCausalLM",
            "deepseek_v3",
            **IN_GROUPS,
            norm_topk_prob=False,
            attention_bias=True,
            rope_scaling=YARN | {"mscale": 0.9, "mscale_all_dim": 1.4},
        )
    ),
    "deepseek_v3_flat": Case(
        deepseek(
            "DeepseekV3ForCausalLM",
            "deepseek_v3",
            n_group=1,
            topk_group=1,
            q_lora_rank=None,
            rope_interleave=False,
            tie_word_embeddings=True,
        )
    ),
    "deepseek_v32": Case(
        deepseek(
            "DeepseekV32ForCausalLM",
            "deepseek_v32",
            **IN_GROUPS,
            index_topk=24,
            index_n_heads=12,
            index_head_dim=28,
            attention_bias=True,
            rope_scaling=YARN | {"mscale": 0.9, "mscale_all_dim": 1.4},
        )
    ),
    "glm_moe_dsa": Case(
        deepseek(
            "GlmMoeDsaForCausalLM",
            "glm_moe_dsa",
            num_hidden_layers=3,
            rms_norm_eps=0.1,
            indexer_types=["full", "shared", "full"],
            index_topk=20,
            index_n_heads=12,
            index_head_dim=36,
            norm_topk_prob=False,
            hidden_act="gelu",
            tie_word_embeddings=True,
        )
    ),
    "longcat_flash": Case(
        {key: value for key, value in COMMON.items() if key != "intermediate_size"}
        | LATENT
        | {
            "architectures": ["LongcatFlashForCausalLM"],
            "model_type": "longcat_flash",
            "rms_norm_eps": 0.1,
            "num_layers": 2,
            "num_hidden_layers": 4,
            "head_dim": 16,
            "ffn_hidden_size": 80,
            "expert_ffn_hidden_size": 40,
            "n_routed_experts": 6,
            "zero_expert_num": 3,
            "moe_topk": 4,
            "routed_scaling_factor": 1.7,
            "attention_bias": True,
            "rope_theta": 600.0,
            "hidden_act": "gelu",
        },
    ),
    "glm4_moe_lite": Case(
        deepseek(
            "Glm4MoeLiteForCausalLM",
            "glm4_moe_lite",
            mlp_layer_types=["sparse", "dense"],
            hidden_act="gelu",
        )
    ),
    "minicpm3": Case(
        COMMON
        | LATENT
        | {
            "architectures": ["MiniCPM3ForCausalLM"],
            "model_type": "minicpm3",
            "v_head_dim": None,
            "rope_theta": 600.0,
            "attention_bias": True,
            "mlp_bias": True,
            "scale_emb": 3.0,
            "scale_depth": 0.9,
            "dim_model_base": 96,
            "tie_word_embeddings": False,
            "hidden_act": "gelu",
        }
    ),
    "phimoe": Case(
        COMMON
        | {
            "architectures": ["PhimoeForCausalLM"],
            "model_type": "phimoe",
            "num_local_experts": 6,
            "router_jitter_noise": 0.3,
            "sliding_window": 40,
            "rope_theta": 600.0,
            "attention_bias": True,
            "lm_head_bias": True,
            "rms_norm_eps": 0.3,
            "hidden_act": "gelu",
        }
    ),
    "phimoe_own_name": Case(
        COMMON
        | {
            "architectures": ["PhiMoEForCausalLM"],
            "model_type": "phimoe",
            "num_local_experts": 5,
            "router_jitter_noise": 0.2,
            "rope_theta": 700.0,
            "rms_norm_eps": 0.3,
            "tie_word_embeddings": True,
        }
    ),
    "dbrx": Case(dbrx(1.3, 600.0, moe_top_k=3), unseen=EPS),
    "dbrx_quiet": Case(
        dbrx(
            2.0,
            600.0,
            moe_top_k=2,
            moe_normalize_expert_weights=None,
            ffn_act_fn={"name": "gelu"},
        ),
        quiet=0.003,
    ),
    "gpt_oss": Case(
        COMMON
        | {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "head_dim": 24,
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "swiglu_limit": 0.7,
            "sliding_window": 40,
            "rope_theta": 600.0,
            "rope_scaling": YARN | {"truncate": False},
        }
    ),
    "gpt_oss_unbiased": Case(
        COMMON
        | {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "head_dim": 16,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "swiglu_limit": 1.1,
            "attention_bias": False,
            "sliding_window": 40,
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 600.0},
            "tie_word_embeddings": True,
        }
    ),
    "glm4_moe": Case(
        routed(
            "Glm4MoeForCausalLM",
            "glm4_moe",
            head_dim=24,
            attention_bias=True,
            use_qk_norm=True,
            partial_rotary_factor=0.75,
            **IN_GROUPS,
        )
    ),
    "glm4_moe_plain": Case(
        routed(
            "Glm4MoeForCausalLM",
            "glm4_moe",
            head_dim=16,
            norm_topk_prob=False,
            hidden_act="gelu",
            tie_word_embeddings=True,
        )
    ),
    "dots1": Case(
        routed(
            "Dots1ForCausalLM",
            "dots1",
            head_dim=24,
            attention_bias=True,
            norm_topk_prob=True,
            sliding_window=40,
            max_window_layers=1,
        )
    ),
    "solar_open": Case(
        routed(
            "SolarOpenForCausalLM",
            "solar_open",
            head_dim=24,
            attention_bias=True,
            **IN_GROUPS,
        )
    ),
    "ernie4_5_moe": Case(
        COMMON
        | {
            "architectures": ["Ernie4_5_MoeForCausalLM"],
            "model_type": "ernie4_5_moe",
            "head_dim": 24,
            "moe_num_experts": 6,
            "moe_k": 3,
            "moe_intermediate_size": 40,
            "moe_num_shared_experts": 2,
            "moe_layer_start_index": 1,
            "rope_theta": 600.0,
            "tie_word_embeddings": False,
        }
    ),
    "ernie4_5_moe_first": Case(
        COMMON
        | {
            "architectures": ["Ernie4_5_MoeForCausalLM"],
            "model_type": "ernie4_5_moe",
            "head_dim": 16,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 40,
            "moe_num_shared_experts": 0,
            "moe_layer_start_index": 0,
            "moe_layer_end_index": 0,
            "rope_theta": 600.0,
            "hidden_act": "gelu",
        }
    ),
    "hunyuan_moe": Case(
        COMMON
        | {
            "architectures": ["HunYuanMoEV1ForCausalLM"],
            "model_type": "hunyuan_v1_moe",
            "head_dim": 24,
            "attention_bias": True,
            "num_experts": 6,
            "moe_topk": 3,
            "rope_theta": 600.0,
            "hidden_act": "gelu",
        }
    ),
    "flex_olmo": Case(
        COMMON
        | {
            "architectures": ["FlexOlmoForCausalLM"],
            "model_type": "flex_olmo",
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "rope_theta": 600.0,
            "attention_bias": True,
            "hidden_act": "gelu",
        }
    ),
    "granite_moe_shared": Case(
        COMMON
        | {
            "architectures": ["GraniteMoeSharedForCausalLM"],
            "model_type": "granitemoeshared",
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "shared_intermediate_size": 48,
            "rope_theta": 600.0,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.7,
            "hidden_act": "gelu",
        }
    ),
    "exaone_moe": Case(
        routed(
            "ExaoneMoeForCausalLM",
            "exaone_moe",
            head_dim=24,
            num_experts=12,
            n_group=3,
            topk_group=2,
            num_shared_experts=2,
            sliding_window=40,
            layer_types=["sliding_attention", "full_attention"],
        )
        | {"n_routed_experts": None, "n_shared_experts": None}
    ),
    "exaone_moe_own_name": Case(
        routed(
            "ExaoneMoEForCausalLM",
            "exaone_moe",
            head_dim=16,
            num_experts=6,
            num_shared_experts=1,
            sliding_window=40,
            sliding_window_pattern=2,
            mlp_layer_types=["sparse", "dense"],
            hidden_act="gelu",
        )
        | {"n_routed_experts": None, "n_shared_experts": None}
    ),
    "llama4": Case(
        COMMON
        | {
            "architectures": ["Llama4ForCausalLM"],
            "model_type": "llama4_text",
            "head_dim": 24,
            "attention_bias": True,
            "intermediate_size_mlp": 72,
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "interleave_moe_layer_step": 2,
            "no_rope_layer_interval": 2,
            "attention_chunk_size": 40,
            "floor_scale": 16,
            "attn_scale": 0.3,
            "rope_theta": 600.0,
            "hidden_act": "gelu",
        }
    ),
    "llama4_plain": Case(
        COMMON
        | {
            "architectures": ["Llama4ForCausalLM"],
            "model_type": "llama4_text",
            "head_dim": 16,
            "intermediate_size_mlp": 72,
            "num_local_experts": 5,
            "moe_layers": [0],
            "no_rope_layers": [0, 1],
            "attention_chunk_size": 64,
            "attn_temperature_tuning": False,
            "use_qk_norm": False,
            "rope_scaling": LLAMA3,
            "tie_word_embeddings": True,
        }
    ),
    "minimax_m2": Case(
        COMMON
        | {
            "architectures": ["MiniMaxM2ForCausalLM"],
            "model_type": "minimax_m2",
            "head_dim": 24,
            "rotary_dim": 16,
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "rope_theta": 600.0,
            "hidden_act": "gelu",
        }
    ),
}
