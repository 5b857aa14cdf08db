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
}
