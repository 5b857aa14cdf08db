"""Tiny configs with odd values, one or more for every registered architecture.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import CLASSIC, COMMON, PROMPT_LEN, Case
from tests.models.families_delta import DELTA_CASES
from tests.models.families_dense import DENSE_CASES
from tests.models.families_edge import EDGE_CASES, with_more
from tests.models.families_kin import KIN_CASES
from tests.models.families_loops import LOOP_CASES
from tests.models.families_moe import MOE_CASES
from tests.models.families_more import MORE_CASES
from tests.models.families_new import NEW_CASES
from tests.models.families_states import STATE_CASES
from tests.models.families_v4 import V4_CASES
from tests.models.families_zoo import ZOO_CASES


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


def phi3(**values: Any) -> dict[str, Any]:
    return COMMON | {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"} | values


def longrope(pairs: int, **values: Any) -> dict[str, Any]:
    return {
        "type": "longrope",
        "short_factor": [1.0 + 0.3 * pair for pair in range(pairs)],
        "long_factor": [2.0 + 1.7 * pair for pair in range(pairs)],
        **values,
    }


def gpt2(**values: Any) -> dict[str, Any]:
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 80, "n_positions": 256}
    names = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    return CLASSIC | sizes | names | {"layer_norm_epsilon": 0.3} | values


def opt(**values: Any) -> dict[str, Any]:
    names = {"architectures": ["OPTForCausalLM"], "model_type": "opt"}
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 80}
    sizes |= {"max_position_embeddings": 256, "word_embed_proj_dim": 64}
    return CLASSIC | names | sizes | {"do_layer_norm_before": True, "dropout": 0.1} | values


EPS = frozenset({"norm_eps", "layer.norm_eps"})


def gpt_neox(**values: Any) -> dict[str, Any]:
    names = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox"}
    sizes = {key: COMMON[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 512}
    return CLASSIC | names | sizes | {"layer_norm_eps": 0.3, "rotary_emb_base": 600} | values


def cohere(**values: Any) -> dict[str, Any]:
    names = {"architectures": ["CohereForCausalLM"], "model_type": "cohere"}
    common = {key: value for key, value in COMMON.items() if key != "rms_norm_eps"}
    own = {"layer_norm_eps": 0.3, "logit_scale": 0.4, "rope_theta": 600.0}
    return common | names | own | values


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
    "gemma": Case(
        COMMON
        | {
            "architectures": ["GemmaForCausalLM"],
            "model_type": "gemma",
            "rms_norm_eps": 0.5,
            "head_dim": 24,
            "attention_bias": True,
            "rope_theta": 600.0,
            "hidden_act": "gelu",
        }
    ),
    "gemma3": Case(
        COMMON
        | {
            "architectures": ["Gemma3ForCausalLM"],
            "model_type": "gemma3_text",
            "rms_norm_eps": 0.5,
            "head_dim": 24,
            "attention_bias": True,
            "query_pre_attn_scalar": 9,
            "sliding_window": 40,
            "sliding_window_pattern": 2,
            "final_logit_softcapping": 5.0,
            "rope_theta": 5000.0,
            "rope_local_base_freq": 600.0,
            "rope_scaling": {"rope_type": "linear", "factor": 3.0},
        }
    ),
    "granite": Case(
        COMMON
        | {
            "architectures": ["GraniteForCausalLM"],
            "model_type": "granite",
            "rope_theta": 600.0,
            "attention_bias": True,
            "mlp_bias": True,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.7,
            "hidden_act": "gelu",
        }
    ),
    "olmo2": Case(
        COMMON
        | {
            "architectures": ["Olmo2ForCausalLM"],
            "model_type": "olmo2",
            "rope_theta": 600.0,
            "attention_bias": True,
            "hidden_act": "gelu",
        }
    ),
    "cohere": Case(cohere(attention_bias=True, use_qk_norm=True, hidden_act="gelu")),
    "cohere_plain": Case(cohere()),
    "phi3": Case(
        phi3(
            sliding_window=40,
            rope_theta=600.0,
            partial_rotary_factor=0.5,
            hidden_act="gelu",
            tie_word_embeddings=True,
        )
    ),
    "phi3_long": Case(
        phi3(rope_scaling=longrope(8), original_max_position_embeddings=150),
        unseen=frozenset({"scaling.short_factor"}),
    ),
    "phi3_short": Case(
        phi3(
            rope_scaling=longrope(6, factor=3.0),
            original_max_position_embeddings=256,
            partial_rotary_factor=0.75,
        ),
        unseen=frozenset({"scaling.long_factor", "scaling.original_len"}),
    ),
    "mixtral": Case(
        COMMON
        | {
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": 40,
            "rope_theta": 800.0,
            "hidden_act": "gelu",
        }
    ),
    "qwen2_moe": Case(
        COMMON
        | {
            "architectures": ["Qwen2MoeForCausalLM"],
            "model_type": "qwen2_moe",
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 48,
            "shared_expert_intermediate_size": 72,
            "norm_topk_prob": False,
            "rope_theta": 600.0,
        }
    ),
    "qwen3_moe": Case(
        COMMON
        | {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "head_dim": 32,
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "norm_topk_prob": True,
            "mlp_only_layers": [0],
            "rope_theta": 600.0,
        }
    ),
    "olmoe": Case(
        COMMON
        | {
            "architectures": ["OlmoeForCausalLM"],
            "model_type": "olmoe",
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "rope_theta": 600.0,
            "attention_bias": True,
        }
    ),
    "granite_moe": Case(
        COMMON
        | {
            "architectures": ["GraniteMoeForCausalLM"],
            "model_type": "granitemoe",
            "num_local_experts": 6,
            "num_experts_per_tok": 3,
            "rope_theta": 600.0,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.6,
            "logits_scaling": 0.7,
        }
    ),
    "gpt2": Case(gpt2(scale_attn_weights=False, activation_function="relu")),
    "gpt2_by_layer": Case(
        gpt2(scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False, n_inner=None)
    ),
    "opt": Case(opt(), unseen=EPS),
    "opt_plain": Case(opt(enable_bias=False, activation_function="gelu"), unseen=EPS),
    "opt_quiet": Case(opt(tie_word_embeddings=False), quiet=0.003),
    "gpt_neox": Case(gpt_neox(rotary_pct=0.5)),
    "gpt_neox_serial": Case(
        gpt_neox(use_parallel_residual=False, attention_bias=False, hidden_act="gelu_fast")
    ),
}
CASES["gemma3_text"] = Case(
    with_more(
        CASES["gemma3"].config | {"final_logit_softcapping": None},
        "Gemma3ForConditionalGeneration",
        "gemma3",
    )
)
PROJECTOR = {"multimodal_projector_bias": False, "projector_hidden_act": "gelu"}
PROJECTOR |= {"spatial_merge_size": 2, "vision_feature_layer": -1}
CASES["mistral_text"] = Case(
    with_more(CASES["mistral"].config, "Mistral3ForConditionalGeneration", "mistral3") | PROJECTOR
)
CASES["ministral3_text"] = Case(
    with_more(MORE_CASES["ministral3"].config, "Mistral3ForConditionalGeneration", "mistral3")
    | PROJECTOR
)
CASES["mistral4_text"] = Case(
    with_more(MORE_CASES["mistral4"].config, "Mistral3ForConditionalGeneration", "mistral3")
    | PROJECTOR
)
DELTA_CASES["qwen3_5_text"] = Case(
    with_more(DELTA_CASES["qwen3_5"].config, "Qwen3_5ForConditionalGeneration", "qwen3_5")
)
CASES |= DENSE_CASES | MOE_CASES | DELTA_CASES | STATE_CASES | MORE_CASES | EDGE_CASES
CASES |= LOOP_CASES
CASES |= KIN_CASES
CASES |= V4_CASES | ZOO_CASES | NEW_CASES
