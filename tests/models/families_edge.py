"""Tiny configs with odd values for Gemma 3n and 4, Apertus and AFMoE.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import COMMON, Case

FULL, SLIDING = "full_attention", "sliding_attention"

GEMMA3N: dict[str, Any] = COMMON | {
    "architectures": ["Gemma3nForCausalLM"],
    "model_type": "gemma3n_text",
    "num_hidden_layers": 5,
    "num_kv_shared_layers": 2,
    "layer_types": [SLIDING, FULL, SLIDING, SLIDING, FULL],
    "head_dim": 24,
    "intermediate_size": [80, 72, 80, 96, 80],
    "activation_sparsity_pattern": [0.7, 0.0, 0.4, 0.0, 0.0],
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size_per_layer_input": 12,
    "vocab_size_per_layer_input": 90,
    "altup_num_inputs": 3,
    "altup_active_idx": 1,
    "laurel_rank": 6,
    "rope_theta": 700.0,
    "rope_local_base_freq": 300.0,
    "sliding_window": 40,
    "final_logit_softcapping": 4.0,
    "tie_word_embeddings": True,
}

GEMMA4: dict[str, Any] = COMMON | {
    "architectures": ["Gemma4ForCausalLM"],
    "model_type": "gemma4_text",
    "num_hidden_layers": 4,
    "layer_types": [SLIDING, FULL, SLIDING, FULL],
    "head_dim": 24,
    "global_head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size_per_layer_input": 12,
    "vocab_size_per_layer_input": 97,
    "sliding_window": 40,
    "final_logit_softcapping": 4.0,
    "tie_word_embeddings": True,
}
POSITIONS = {
    FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 700.0},
    SLIDING: {"rope_type": "default", "rope_theta": 300.0},
}

EDGE_CASES: dict[str, Case] = {
    "gemma3n": Case(GEMMA3N),
    "gemma3n_plain": Case(
        GEMMA3N
        | {
            "num_kv_shared_layers": 0,
            "altup_num_inputs": 2,
            "altup_active_idx": 0,
            "altup_correct_scale": False,
            "intermediate_size": 80,
            "vocab_size_per_layer_input": 97,
        }
    ),
    "gemma4": Case(
        GEMMA4
        | {
            "num_hidden_layers": 6,
            "layer_types": [SLIDING, FULL, SLIDING, FULL, SLIDING, FULL],
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "rope_parameters": POSITIONS,
        }
    ),
    "gemma4_keys_are_values": Case(
        GEMMA4
        | {
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "hidden_size_per_layer_input": 0,
        }
    ),
    "gemma4_experts": Case(
        GEMMA4
        | {
            "enable_moe_block": True,
            "num_experts": 6,
            "top_k_experts": 3,
            "moe_intermediate_size": 40,
            "hidden_size_per_layer_input": 0,
            "rope_parameters": POSITIONS,
            "tie_word_embeddings": False,
        },
        unseen=frozenset({"norm_eps"}),
    ),
}


def with_more(text: dict[str, Any], name: str, model_type: str) -> dict[str, Any]:
    """The file of a model that sees and hears too, around one of the text's decoder."""
    inner = {key: value for key, value in text.items() if key != "architectures"}
    return {
        "architectures": [name],
        "model_type": model_type,
        "torch_dtype": "float32",
        "vision_config": {"model_type": "gemma3n_vision"},
        "audio_soft_tokens_per_image": 188,
        "image_token_id": 88,
        "eos_token_id": 2,
        "text_config": inner,
    }


EDGE_CASES |= {
    "afmoe": Case(
        COMMON
        | {
            "architectures": ["AfmoeForCausalLM"],
            "model_type": "afmoe",
            "num_hidden_layers": 3,
            "head_dim": 24,
            "num_dense_layers": 1,
            "layer_types": [SLIDING, SLIDING, FULL],
            "sliding_window": 40,
            "num_experts": 12,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "num_shared_experts": 1,
            "route_scale": 1.7,
            "mup_enabled": True,
            "rope_theta": 700.0,
        }
    ),
    "apertus": Case(
        COMMON
        | {
            "architectures": ["ApertusForCausalLM"],
            "model_type": "apertus",
            "hidden_act": "xielu",
            "qk_norm": True,
            "rms_norm_eps": 3.0,
            "rope_theta": 700.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 6.0,
                "low_freq_factor": 1.5,
                "high_freq_factor": 5.0,
                "original_max_position_embeddings": 96,
            },
        }
    ),
    "gemma3n_text": Case(with_more(GEMMA3N, "Gemma3nForConditionalGeneration", "gemma3n")),
    "gemma4_text": Case(
        with_more(EDGE_CASES["gemma4"].config, "Gemma4ForConditionalGeneration", "gemma4")
    ),
}
