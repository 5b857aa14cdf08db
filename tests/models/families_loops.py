"""Tiny configs with odd values for decoders whose layers run several times, or share what they compute with.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from tests.models.case import COMMON, Case

ZAMBA = COMMON | {
    "architectures": ["Zamba2ForCausalLM"],
    "model_type": "zamba2",
    "num_hidden_layers": 3,
    "mamba_d_state": 20,
    "mamba_d_conv": 3,
    "mamba_expand": 3,
    "mamba_ngroups": 2,
    "n_mamba_heads": 8,
    "chunk_size": 8,
    "time_step_min": 0.4,
    "adapter_rank": 12,
    "rms_norm_eps": 4.0,
}

GRANITE = COMMON | {
    "model_type": "granite_swa",
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 40,
    "layer_rope_theta": [700.0, 0, 90_000.0],
    "rope_theta": 500.0,
    "attention_bias": True,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.6,
    "logits_scaling": 0.7,
    "tie_word_embeddings": False,
}

LOOP_CASES: dict[str, Case] = {
    "ouro": Case(
        COMMON
        | {
            "architectures": ["OuroForCausalLM"],
            "model_type": "ouro",
            "head_dim": 24,
            "rope_theta": 700.0,
            "total_ut_steps": 2,
            "early_exit_threshold": 1.0,
            "tie_word_embeddings": False,
        }
    ),
    "zamba2": Case(
        ZAMBA
        | {
            "layers_block_type": ["hybrid", "hybrid", "hybrid"],
            "num_mem_blocks": 2,
            "use_shared_attention_adapter": True,
            "use_mem_rope": True,
            "rope_theta": 700.0,
            "num_key_value_heads": 4,
            "add_bias_linear": True,
        }
    ),
    "zamba2_plain": Case(
        ZAMBA | {"layers_block_type": ["mamba", "hybrid", "hybrid"]},
    ),
    "granite_swa": Case(GRANITE | {"architectures": ["GraniteSWAForCausalLM"]}),
    "granite_moe_swa": Case(
        GRANITE
        | {
            "architectures": ["GraniteMoeSWAForCausalLM"],
            "model_type": "granitemoe_swa",
            "num_local_experts": 7,
            "num_experts_per_tok": 3,
            "shared_intermediate_size": 56,
        }
    ),
    "nanochat": Case(
        COMMON
        | {
            "architectures": ["NanoChatForCausalLM"],
            "model_type": "nanochat",
            "rope_theta": 700.0,
            "attention_bias": True,
            "hidden_act": "gelu",
            "final_logit_softcapping": 4.0,
        }
    ),
    "mimo_v2_flash": Case(
        COMMON
        | {
            "architectures": ["MiMoV2FlashForCausalLM"],
            "model_type": "mimo_v2_flash",
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "head_dim": 24,
            "v_head_dim": 20,
            "attention_bias": True,
            "attention_value_scale": 0.6,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "mlp_layer_types": ["sparse", "dense", "sparse"],
            "sliding_window": 40,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "default",
                    "rope_theta": 700.0,
                    "partial_rotary_factor": 0.5,
                },
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": 90.0,
                    "partial_rotary_factor": 0.75,
                },
            },
            "n_routed_experts": 12,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "n_group": 3,
            "topk_group": 2,
            "norm_topk_prob": False,
            "routed_scaling_factor": 1.7,
        }
    ),
    "lfm3": Case(
        {key: value for key, value in COMMON.items() if key != "rms_norm_eps"}
        | {
            "architectures": ["Lfm3ForCausalLM"],
            "model_type": "lfm3",
            "num_hidden_layers": 3,
            "norm_eps": 0.03,
            "head_dim": 24,
            "attention_bias": True,
            "conv_bias": True,
            "conv_L_cache": 6,
            "sliding_window": 40,
            "layer_types": ["sliding_attention", "conv", "full_attention"],
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
                "full_attention": {
                    "rope_type": "proportional",
                    "rope_theta": 700.0,
                    "partial_rotary_factor": 0.75,
                },
            },
            "tie_word_embeddings": False,
        }
    ),
}
