"""Tiny configs with odd values for Llama's kin in other words, and for architectures that Transformers lacks.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from tests.models.case import CLASSIC, COMMON, Case
from tests.models.families_dense import named

SKIPS = {"bskcn_1": [0, 2], "bskcn_2": [1], "bskcn_3": [2, 4], "bskcn_4": [3, 4]}

KIN_CASES: dict[str, Case] = {
    "solar": Case(
        named("SolarForCausalLM", "solar", rope_theta=700.0, bskcn_tv=[0.9, 0.7], **SKIPS)
        | {"num_hidden_layers": 6, "sliding_window": 2047}
    ),
    "fairseq2": Case(
        named("Fairseq2LlamaForCausalLM", "llama", rope_theta=700.0, hidden_act="gelu")
    ),
    "fairseq2_tied": Case(
        named("Fairseq2LlamaForCausalLM", "llama", rope_theta=700.0, tie_word_embeddings=True)
    ),
    "rw": Case(
        CLASSIC
        | {
            "architectures": ["RWForCausalLM"],
            "model_type": "RefinedWeb",
            "hidden_size": 64,
            "n_head": 4,
            "n_head_kv": 2,
            "n_layer": 2,
            "layer_norm_epsilon": 0.3,
            "parallel_attn": True,
        }
    ),
    "stablelm_epoch": Case(
        {key: value for key, value in COMMON.items() if key != "rms_norm_eps"}
        | {
            "architectures": ["StableLMEpochForCausalLM"],
            "model_type": "stablelm_epoch",
            "norm_eps": 0.3,
            "rope_pct": 0.5,
            "rope_theta": 700.0,
            "rotary_scaling_factor": 1.0,
            "use_qkv_bias": True,
        }
    ),
}
