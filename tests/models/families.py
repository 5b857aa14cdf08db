"""Tiny configs with odd values, one or more for every registered architecture.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PROMPT_LEN = 200


@dataclass(frozen=True)
class Case:
    """One config; `max_len` is what the decoder is built for."""

    config: dict[str, Any]
    max_len: int = 256


COMMON = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 0.03,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def llama(**values: Any) -> dict[str, Any]:
    return COMMON | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"} | values


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 6.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 5.0,
    "original_max_position_embeddings": 96,
}

YARN = {
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "attention_factor": 1.3,
    "beta_fast": 6.0,
    "beta_slow": 0.7,
    "truncate": False,
}

CASES: dict[str, Case] = {
    "llama": Case(
        llama(
            head_dim=24,
            attention_bias=True,
            mlp_bias=True,
            rope_theta=700.0,
            rope_scaling=LLAMA3,
            hidden_act="gelu_new",
        )
    ),
    "llama_plain_tied": Case(llama(tie_word_embeddings=True, num_key_value_heads=1)),
    "llama_linear": Case(llama(rope_scaling={"type": "linear", "factor": 3.0}, hidden_act="gelu")),
    "llama_dynamic": Case(
        llama(rope_scaling={"rope_type": "dynamic", "factor": 5.0}, max_position_embeddings=64),
        max_len=PROMPT_LEN,
    ),
    "llama_yarn": Case(llama(rope_scaling=YARN, rope_theta=900.0)),
    "llama_yarn_derived": Case(
        llama(
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 900.0,
                "factor": 4.0,
                "original_max_position_embeddings": 128,
                "mscale": 0.7,
                "mscale_all_dim": 0.3,
            }
        )
    ),
    "mistral": Case(
        COMMON
        | {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "sliding_window": 40,
            "rope_theta": 800.0,
        }
    ),
    "qwen2": Case(
        COMMON
        | {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "use_sliding_window": True,
            "sliding_window": 24,
            "max_window_layers": 1,
            "rope_theta": 600.0,
        }
    ),
    "qwen3": Case(
        COMMON
        | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "head_dim": 32,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 24,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_theta": 600.0,
            "tie_word_embeddings": True,
        }
    ),
    "gemma2": Case(
        COMMON
        | {
            "architectures": ["Gemma2ForCausalLM"],
            "model_type": "gemma2",
            "rms_norm_eps": 0.5,
            "head_dim": 24,
            "attention_bias": True,
            "query_pre_attn_scalar": 9,
            "sliding_window": 40,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
            "rope_theta": 600.0,
            "hidden_activation": "gelu_pytorch_tanh",
        }
    ),
}
