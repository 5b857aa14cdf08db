"""Tiny configs with odd values for state-space models and hybrids of them with attention.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import CLASSIC, COMMON, Case

STATES: dict[str, Any] = CLASSIC | {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "layer_norm_epsilon": 0.2,
    "expand": 2,
    "chunk_size": 8,
}
"""Transformers cuts its scan into chunks, and long ones lose bits: their decays are summed up."""

HYBRID: dict[str, Any] = COMMON | {"rms_norm_eps": 0.4}
MIXER: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_d_head": 24,
    "mamba_n_groups": 2,
    "mamba_d_state": 20,
    "mamba_d_conv": 3,
    "mamba_expand": 3,
    "mamba_proj_bias": True,
    "mamba_chunk_size": 8,
}

NEMOTRON_EXPERTS: dict[str, Any] = STATES | {
    "architectures": ["NemotronHForCausalLM"],
    "model_type": "nemotron_h",
    "hybrid_override_pattern": "ME*E",
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "ssm_state_size": 20,
    "mamba_num_heads": 6,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "time_step_min": 0.4,
    "max_position_embeddings": 512,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "moe_shared_expert_intermediate_size": 56,
    "n_group": 3,
    "topk_group": 2,
    "routed_scaling_factor": 1.7,
}

STATE_CASES: dict[str, Case] = {
    "mamba": Case(
        STATES
        | {
            "architectures": ["MambaForCausalLM"],
            "model_type": "mamba",
            "state_size": 12,
            "time_step_rank": 7,
            "conv_kernel": 2,
            "use_bias": True,
            "tie_word_embeddings": False,
        }
    ),
    "falcon_mamba": Case(
        STATES
        | {
            "architectures": ["FalconMambaForCausalLM"],
            "model_type": "falcon_mamba",
            "state_size": 12,
            "time_step_rank": 7,
            "intermediate_size": 96,
            "mixer_rms_eps": 0.05,
            "use_conv_bias": False,
        }
    ),
    "mamba2": Case(
        STATES
        | {
            "architectures": ["Mamba2ForCausalLM"],
            "model_type": "mamba2",
            "state_size": 20,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "use_bias": True,
            "time_step_limit": [0.3, 1.2],
        }
    ),
    "bamba": Case(
        HYBRID
        | MIXER
        | {
            "architectures": ["BambaForCausalLM"],
            "model_type": "bamba",
            "attn_layer_indices": [1],
            "rope_theta": 700.0,
            "num_key_value_heads": 2,
            "time_step_limit": [0.3, 1.2],
        }
    ),
    "granite_hybrid": Case(
        HYBRID
        | MIXER
        | {
            "architectures": ["GraniteMoeHybridForCausalLM"],
            "model_type": "granitemoehybrid",
            "layer_types": ["mamba", "attention"],
            "position_embedding_type": "nope",
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 56,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.5,
            "mamba_conv_bias": True,
        }
    ),
    "granite_hybrid_dense": Case(
        HYBRID
        | MIXER
        | {
            "architectures": ["GraniteMoeHybridForCausalLM"],
            "model_type": "granitemoehybrid",
            "layer_types": ["attention", "mamba", "mamba"],
            "num_hidden_layers": 3,
            "position_embedding_type": "rope",
            "rope_theta": 700.0,
            "num_local_experts": 0,
            "shared_intermediate_size": 56,
            "tie_word_embeddings": True,
        },
    ),
    "jamba": Case(
        HYBRID
        | {
            "architectures": ["JambaForCausalLM"],
            "model_type": "jamba",
            "num_hidden_layers": 3,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 0,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "mamba_d_state": 12,
            "mamba_d_conv": 3,
            "mamba_expand": 3,
            "mamba_dt_rank": 7,
            "mamba_proj_bias": True,
            "mamba_conv_bias": True,
            "use_mamba_kernels": False,
        }
    ),
    "falcon_h1": Case(
        HYBRID
        | MIXER
        | {
            "architectures": ["FalconH1ForCausalLM"],
            "model_type": "falcon_h1",
            "mamba_d_ssm": 96,
            "mamba_n_heads": 6,
            "mamba_d_head": 16,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": False,
            "mamba_proj_bias": False,
            "rope_theta": 700.0,
            "embedding_multiplier": 3.0,
            "lm_head_multiplier": 0.6,
            "key_multiplier": 0.7,
            "attention_in_multiplier": 1.3,
            "attention_out_multiplier": 0.8,
            "ssm_in_multiplier": 1.2,
            "ssm_out_multiplier": 0.7,
            "ssm_multipliers": [0.8, 1.3, 0.9, 1.2, 0.7],
            "mlp_multipliers": [0.8, 1.4],
        }
    ),
    "nemotron_h": Case(
        STATES
        | {
            "architectures": ["NemotronHForCausalLM"],
            "model_type": "nemotron_h",
            "hybrid_override_pattern": "M*-M",
            "num_hidden_layers": 4,
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "ssm_state_size": 20,
            "mamba_num_heads": 6,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "mlp_bias": True,
            "use_bias": True,
            "time_step_min": 0.4,
            "max_position_embeddings": 512,
        }
    ),
    "nemotron_h_experts": Case(NEMOTRON_EXPERTS),
    "nemotron_h_latent": Case(
        NEMOTRON_EXPERTS
        | {"moe_latent_size": 28, "n_group": 1, "topk_group": 1, "norm_topk_prob": False},
        unseen=frozenset({"norm_eps"}),
    ),
    # The final norm's eps is a constant, which each halving of the stream makes four times as large.
    "rwkv": Case(
        CLASSIC
        | {
            "architectures": ["RwkvForCausalLM"],
            "model_type": "rwkv",
            "hidden_size": 64,
            "num_hidden_layers": 6,
            "attention_hidden_size": 48,
            "intermediate_size": 80,
            "layer_norm_epsilon": 0.01,
            "rescale_every": 1,
            "context_length": 512,
        },
        quiet=0.03,
    ),
    "recurrent_gemma": Case(
        CLASSIC
        | {
            "architectures": ["RecurrentGemmaForCausalLM"],
            "model_type": "recurrent_gemma",
            "hidden_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "lru_width": 72,
            "intermediate_size": 160,
            "conv1d_width": 3,
            "attention_window_size": 48,
            "attention_bias": True,
            "block_types": ["recurrent", "attention"],
            "hidden_activation": "silu",
            "logits_soft_cap": 3.0,
            "rms_norm_eps": 2.0,
            "rope_theta": 700.0,
            "partial_rotary_factor": 0.25,
            "tie_word_embeddings": False,
        }
    ),
}
