"""Tiny configs with odd values for architectures of several shapes: layers that differ, experts of two kinds.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import Case
from tests.models.families_dense import named
from tests.models.families_moe import IN_GROUPS, LATENT, YARN, routed

GROWING = {
    "rope_type": "yarn",
    "rope_theta": 900.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 6.0,
    "beta_slow": 0.7,
    "truncate": False,
    "mscale": 1.0,
    "mscale_all_dim": 0.0,
    "llama_4_scaling_beta": 0.4,
}


def without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The same without keys that stand elsewhere or have no meaning for it."""
    return {key: value for key, value in config.items() if key not in keys}


def without_theta(config: dict[str, Any]) -> dict[str, Any]:
    """The same where `rope_parameters` has the base of positions."""
    return without(config, "rope_theta")


def block(group: int | None, mult: float | None) -> dict[str, Any]:
    """A layer whose heads share k and v in groups of that size, with a feed-forward part of that factor."""
    return {
        "attention": {
            "n_heads_in_group": group,
            "no_op": group is None,
            "replace_with_linear": False,
            "window_length": None,
        },
        "ffn": {"ffn_mult": mult, "no_op": mult is None, "replace_with_linear": False},
    }


def decilm(*blocks: dict[str, Any], **values: Any) -> dict[str, Any]:
    values |= {"block_configs": list(blocks), "num_hidden_layers": len(blocks)}
    values |= {"num_key_value_heads": None, "intermediate_size": None}
    return named("DeciLMForCausalLM", "nemotron-nas", **values)


def bailing(name: str, model_type: str, **values: Any) -> dict[str, Any]:
    config = routed(name, model_type, num_experts=8, num_shared_experts=2, **values)
    return without(config, "n_routed_experts", "n_shared_experts")


def mistral4(rope_parameters: dict[str, Any], **values: Any) -> dict[str, Any]:
    whole = LATENT["qk_nope_head_dim"] + LATENT["qk_rope_head_dim"]
    part = {"partial_rotary_factor": LATENT["qk_rope_head_dim"] / whole}
    config = routed("Mistral4ForCausalLM", "mistral4", **LATENT | values)
    return without_theta(config) | {"rope_parameters": rope_parameters | part}


MORE_CASES: dict[str, Case] = {
    "ministral3": Case(
        without_theta(
            named("Ministral3ForCausalLM", "ministral3", head_dim=24, rope_parameters=GROWING)
        )
        | {"sliding_window": 40, "hidden_act": "gelu"}
    ),
    "ministral3_plain": Case(
        without_theta(
            named(
                "Ministral3ForCausalLM",
                "ministral3",
                head_dim=16,
                rope_parameters=GROWING | {"llama_4_scaling_beta": 0.0},
                tie_word_embeddings=True,
            )
        )
    ),
    "axk1": Case(
        routed(
            "AXK1ForCausalLM",
            "axk1",
            **LATENT | IN_GROUPS,
            attention_bias=True,
            norm_topk_prob=False,
            rope_scaling=YARN | {"mscale": 0.9, "mscale_all_dim": 1.4},
        ),
        unseen=frozenset({"layer.placement"}),
    ),
    "axk1_closed": Case(
        routed(
            "AXK1ForCausalLM",
            "axk1",
            **LATENT,
            n_group=1,
            topk_group=1,
            rope_interleave=False,
            tie_word_embeddings=True,
        )
        | {"first_k_dense_replace": 0}
    ),
    "mistral4": Case(
        mistral4(
            rope_parameters=GROWING | {"mscale": 0.9, "mscale_all_dim": 1.4},
            norm_topk_prob=False,
            attention_bias=True,
            **IN_GROUPS,
        )
    ),
    "mistral4_flat": Case(
        mistral4(
            rope_parameters=GROWING | {"llama_4_scaling_beta": 0.0, "mscale_all_dim": 1.0},
            rope_interleave=False,
            tie_word_embeddings=True,
            q_lora_rank=None,
            hidden_act="gelu",
        )
    ),
    "pangu_embedded": Case(
        named("PanguEmbeddedForCausalLM", "PanguEmbedded", bias=True, hidden_act="gelu")
    ),
    "teleflm": Case(
        named(
            "TeleFLMForCausalLM",
            "TeleFLM",
            use_mup=True,
            input_mult=3.0,
            output_mult=1.4,
            mup_scale_factor=2.0,
            hidden_act="gelu",
        )
    ),
    "decilm": Case(decilm(block(2, 3.0), block(2, 7.0), hidden_act="gelu")),
    "decilm_parts": Case(
        decilm(block(4, None), block(None, 3.0), block(1, 3.0), tie_word_embeddings=True)
    ),
    "youtu": Case(
        named(
            "YoutuForCausalLM",
            "youtu",
            **LATENT,
            pad_token_id=None,
            attention_bias=True,
            hidden_act="gelu",
        )
        | {
            "tie_word_embeddings": False,
            "rope_scaling": YARN | {"mscale": 0.9, "mscale_all_dim": 1.4},
        }
    ),
    "youtu_flat": Case(
        named(
            "YoutuForCausalLM", "youtu", **LATENT, rope_interleave=False, tie_word_embeddings=True
        )
        | {"q_lora_rank": None, "pad_token_id": None}
    ),
    "mellum": Case(
        without_theta(
            named(
                "MellumForCausalLM",
                "mellum",
                head_dim=24,
                attention_bias=True,
                num_experts=6,
                num_experts_per_tok=3,
                moe_intermediate_size=40,
                norm_topk_prob=False,
                sliding_window=40,
                layer_types=["sliding_attention", "full_attention"],
                mlp_layer_types=["sparse", "dense"],
                rope_parameters={
                    "full_attention": {"rope_type": "default", "rope_theta": 900.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
                },
                hidden_act="gelu",
            )
        )
    ),
    "hy_v3": Case(
        without(
            bailing(
                "HYV3ForCausalLM",
                "hy_v3",
                head_dim=24,
                attention_bias=True,
                router_scaling_factor=1.7,
                mlp_layer_types=["dense", "sparse"],
                hidden_act="gelu",
            ),
            *("rope_theta", "first_k_dense_replace", "routed_scaling_factor"),
        )
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 600.0}}
    ),
    "deepseek_moe": Case(
        routed("DeepseekForCausalLM", "deepseek", hidden_act="gelu")
        | {"num_key_value_heads": 4, "routed_scaling_factor": 1.0}
    ),
    "bailing_moe": Case(
        bailing("BailingMoeForCausalLM", "bailing_moe", norm_topk_prob=False, head_dim=16)
        | {"routed_scaling_factor": 1.0, "use_bias": False, "use_qkv_bias": False}
    ),
    "bailing_moe_v2": Case(
        bailing("BailingMoeV2ForCausalLM", "bailing_moe", head_dim=24, use_qkv_bias=True)
        | {"num_experts": 12, "n_group": IN_GROUPS["n_group"], "topk_group": 2}
        | {"partial_rotary_factor": 0.75, "norm_topk_prob": True, "score_function": "sigmoid"}
    ),
}
