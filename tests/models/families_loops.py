"""Tiny configs with odd values for decoders whose layers run several times, or share what they compute with.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from tests.models.case import COMMON, Case

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
}
