"""Tiny configs with odd values for Llama's kin in other words, and for architectures that Transformers lacks.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import CLASSIC, COMMON, Case
from tests.models.families_delta import DELTA_CASES
from tests.models.families_dense import EPS, named
from tests.models.families_moe import MOE_CASES

SKIPS = {"bskcn_1": [0, 2], "bskcn_2": [1], "bskcn_3": [2, 4], "bskcn_4": [3, 4]}


def pangu(**values: Any) -> dict[str, Any]:
    sizes = {"q_lora": 40, "kv_lora": 48, "qk": 24, "qk_rope": 16, "v": 20}
    sizes = {f"attention_{name}_dim": size for name, size in sizes.items()}
    sizes |= {"num_routed_experts": 8, "num_shared_experts": 2, "num_dense_layers": 1}
    sizes |= {"num_experts_per_tok": 3, "moe_intermediate_size": 40, "num_mtp_layers": 1}
    routed = {"routed_scaling_factor": 1.7, "norm_topk_prob": True}
    return named("PanguUltraMoEForCausalLM", "pangu_ultra_moe", **sizes | routed | values)


def telechat2(**values: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "num_key_value_heads": 2}
    sizes |= {"ffn_hidden_size": 80, "layer_norm_epsilon": 0.03}
    names = {"architectures": ["TeleChat2ForCausalLM"], "model_type": "telechat"}
    return CLASSIC | names | sizes | values


def modern_decoder(**values: Any) -> dict[str, Any]:
    names = {"architectures": ["ModernBertDecoderForCausalLM"], "model_type": "modernbert-decoder"}
    sizes = {"hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 4}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 512, "norm_eps": 0.03}
    bases = {"global_rope_theta": 700.0, "local_rope_theta": 300.0}
    return CLASSIC | names | sizes | bases | values


def step(**values: Any) -> dict[str, Any]:
    """Lists are of two layers and of one behind them, which drafts."""
    names = {"architectures": ["Step3p5ForCausalLM"], "model_type": "step3p5", "head_dim": 24}
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    routed = {"moe_num_experts": 8, "moe_top_k": 3, "moe_intermediate_size": 40}
    routed |= {"moe_router_scaling_factor": 1.7, "share_expert_dim": 56, "moe_layers_enum": "1"}
    heads = {"num_attention_groups": 2, "layer_types": kinds, "sliding_window": 40}
    heads |= {"use_head_wise_attn_gate": True, "num_nextn_predict_layers": 1}
    turns = {"rope_theta": [900.0, 500.0, 900.0], "partial_rotary_factors": [0.5, 1.0, 0.5]}
    common = {key: it for key, it in COMMON.items() if key != "num_key_value_heads"}
    return common | names | heads | routed | turns | values


def plamo(**values: Any) -> dict[str, Any]:
    turns = {"rope_theta": 700.0, "rope_local_theta": 300.0, "window_size": 40}
    turns |= {"sliding_window_pattern": 2, "head_dim": 24}
    return named("Plamo3ForCausalLM", "plamo3", **turns | values)


KIN_CASES: dict[str, Case] = {
    "modern_decoder": Case(
        modern_decoder(local_attention=48, hidden_activation="relu", classifier_activation="silu")
        | {"decoder_bias": True, "classifier_bias": True, "global_attn_every_n_layers": 3}
    ),
    "modern_decoder_biased": Case(
        modern_decoder(sliding_window=20, attention_bias=True, mlp_bias=True, norm_bias=True)
        | {"tie_word_embeddings": False, "decoder_bias": False}
        | {"layer_types": ["sliding_attention", "full_attention"] * 2}
    ),
    "solar": Case(
        named("SolarForCausalLM", "solar", rope_theta=700.0, bskcn_tv=[0.9, 0.7], **SKIPS)
        | {"num_hidden_layers": 6, "sliding_window": 2047}
    ),
    "step3p5": Case(
        step(
            attention_other_setting={
                "attention_type": "sliding_attention",
                "num_attention_heads": 6,
                "num_attention_groups": 2,
                "head_dim": 24,
            },
            rope_scaling={
                "rope_type": "llama3",
                "factor": 6.0,
                "low_freq_factor": 1.5,
                "high_freq_factor": 5.0,
                "original_max_position_embeddings": 96,
            },
            yarn_only_types=["full_attention"],
            swiglu_limits=[0.0, 0.7, 0.0],
            swiglu_limits_shared=[0.0, 1.1, 0.0],
        )
    ),
    "plamo3": Case(
        plamo(rope_scaling_factor=4.0, initial_context_length=64, tie_word_embeddings=False)
    ),
    "plamo3_tied": Case(
        plamo(rope_scaling_factor=1, initial_context_length=None, tie_word_embeddings=True)
    ),
    "pangu_ultra": Case(pangu(sandwich_norm=True, rope_theta=700.0)),
    "pangu_ultra_pre": Case(
        pangu(sandwich_norm=False, norm_topk_prob=False, tie_word_embeddings=True)
        | {"rope_theta": 700.0, "rms_norm_eps": 0.2}
    ),
    "telechat2": Case(telechat2(training_seqlen=512, base_seqlen=128)),
    "telechat2_tied": Case(
        telechat2(num_key_value_heads=4, tie_word_embeddings=True)
        | {"training_seqlen": 256, "base_seqlen": 256}
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

GPT = CLASSIC | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
JAIS: dict[str, Any] = GPT | {
    "architectures": ["JAISLMHeadModel"],
    "model_type": "jais",
    "n_head": 6,
    "n_embd": 48,
    "n_inner": 80,
    "activation_function": "swiglu",
    "position_embedding_type": "alibi",
    "layer_norm_epsilon": 0.3,
}
BIO: dict[str, Any] = CLASSIC | {
    "architectures": ["BioGptForCausalLM"],
    "model_type": "biogpt",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "hidden_act": "relu",
}
KIN_CASES |= {
    "jais": Case(JAIS | {"embeddings_scale": 3.0, "width_scale": 0.4, "scale_qk_dot_by_d": True}),
    "jais_mup": Case(
        JAIS
        | {"mup_embeddings_scale": 3.0, "mup_output_alpha": 2.0, "mup_width_scale": 0.4}
        | {"mup_scale_qk_dot_by_d": False}
    ),
    "bio_gpt": Case(BIO, unseen=EPS),
    "bio_gpt_quiet": Case(
        BIO | {"scale_embedding": False, "tie_word_embeddings": False}, quiet=0.003
    ),
    "first_gpt": Case(
        GPT
        | {
            "architectures": ["OpenAIGPTLMHeadModel"],
            "model_type": "openai-gpt",
            "afn": "gelu",
            "layer_norm_epsilon": 0.3,
        }
    ),
    "gpt_neox_japanese": Case(
        CLASSIC
        | {
            "architectures": ["GPTNeoXJapaneseForCausalLM"],
            "model_type": "gpt_neox_japanese",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_multiple_size": 2,
            "max_position_embeddings": 512,
            "layer_norm_eps": 0.3,
            "rotary_pct": 0.5,
            "rotary_emb_base": 600,
            "tie_word_embeddings": False,
        }
    ),
    "internlm2_ve": Case(
        named("InternLM2VEForCausalLM", "internlm2", bias=True, hidden_act="gelu")
    ),
}

GROK = {
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "attn_output_multiplier": 0.4,
    "max_attn_value": 3.0,
    "embedding_multiplier_scale": 3.0,
    "output_multiplier_scale": 0.4,
}
KIN_CASES |= {
    "grok1": Case(named("Grok1ModelForCausalLM", "grok-1", tie_word_embeddings=True, **GROK)),
    "grok1_weights": Case(named("Grok1ForCausalLM", "grok-1", tie_word_embeddings=False, **GROK)),
}

COHERE_MOE = named(
    "Cohere2MoeForCausalLM",
    "cohere2_moe",
    head_dim=24,
    sliding_window=40,
    num_experts=6,
    num_experts_per_tok=3,
    logit_scale=0.4,
)
KIN_CASES |= {
    "cohere2_moe": Case(
        COHERE_MOE
        | {
            "num_hidden_layers": 3,
            "first_k_dense_replace": 1,
            "sliding_window_pattern": 2,
            "prefix_dense_intermediate_size": 72,
            "expert_selection_fn": "sigmoid",
            "norm_topk_prob": False,
            "rms_norm_eps": 0.3,
        }
    ),
    "cohere2_moe_layer_norms": Case(
        COHERE_MOE
        | {
            "rms_norm_eps": None,
            "layer_norm_eps": 0.3,
            "layer_types": ["full_attention", "sliding_attention"],
            "mlp_layer_types": ["sparse", "sparse"],
            "num_shared_experts": 2,
            "shared_expert_combination_strategy": "sum",
            "tie_word_embeddings": False,
            "hidden_act": "gelu",
        }
    ),
}

UNSEEN_IDS = {
    "image_token_id": 98,
    "video_token_id": 99,
    "vision_start_token_id": 100,
    "vision_end_token_id": 101,
}
"""Of tokens that stand for images, which no prompt of text has."""
VISUAL = {
    "depth": 1,
    "hidden_size": 32,
    "embed_dim": 32,
    "num_heads": 2,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "patch_size": 4,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
    "image_size": 16,
}
"""Of a tower as Qwen's and GLM's."""
TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "projection_dim": 16,
}


def seeing(
    name: str, model_type: str, text: dict[str, Any], vision: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """A file of a model that sees, whose text's decoder is that of a case of text alone."""
    inner = {key: it for key, it in text.items() if key not in ("architectures", "torch_dtype")}
    names = {"architectures": [name], "model_type": model_type, "torch_dtype": "float32"}
    tied = {"tie_word_embeddings": text.get("tie_word_embeddings", False)}
    return names | tied | {"text_config": inner, "vision_config": vision} | UNSEEN_IDS | more


def text(model_type: str, **values: Any) -> dict[str, Any]:
    return named("", model_type, **values)


MROPE = {"type": "mrope", "mrope_section": [4, 2, 2]}
MROPE_BY_TURNS = {"rope_type": "default", "mrope_section": [6, 3, 3], "mrope_interleaved": True}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40}

SEEING_CASES: dict[str, Case] = {
    "qwen2_vl": Case(
        {
            key: it
            for key, it in text("qwen2_vl", rope_scaling=MROPE, use_sliding_window=False).items()
            if key != "pad_token_id"
        }
        | {"architectures": ["Qwen2VLForConditionalGeneration"], "vision_config": VISUAL}
        | UNSEEN_IDS
    ),
    "qwen2_5_vl": Case(
        seeing(
            "Qwen2_5_VLForConditionalGeneration",
            "qwen2_5_vl",
            text("qwen2_5_vl_text", rope_scaling=MROPE, hidden_act="gelu"),
            VISUAL,
        )
    ),
    "qwen3_vl": Case(
        seeing(
            "Qwen3VLForConditionalGeneration",
            "qwen3_vl",
            text("qwen3_vl_text", head_dim=24, rope_scaling=MROPE_BY_TURNS),
            VISUAL,
        )
    ),
    "qwen3_vl_tied": Case(
        seeing(
            "Qwen3VLForConditionalGeneration",
            "qwen3_vl",
            text(
                "qwen3_vl_text",
                head_dim=24,
                rope_scaling=MROPE_BY_TURNS,
                tie_word_embeddings=True,
                attention_bias=True,
            ),
            VISUAL,
        )
    ),
    "qwen3_vl_moe": Case(
        seeing(
            "Qwen3VLMoeForConditionalGeneration",
            "qwen3_vl_moe",
            text("qwen3_vl_moe_text", head_dim=24, rope_scaling=MROPE_BY_TURNS, **EXPERTS),
            VISUAL,
        )
    ),
    "qwen3_5_moe_text": Case(
        seeing(
            "Qwen3_5MoeForConditionalGeneration",
            "qwen3_5_moe",
            DELTA_CASES["qwen3_5_moe"].config | {"tie_word_embeddings": False},
            VISUAL,
        )
    ),
    "llava": Case(
        seeing(
            "LlavaForConditionalGeneration",
            "llava",
            text("llama", hidden_act="gelu"),
            TOWER,
            image_token_index=98,
            vision_feature_layer=-1,
            projector_hidden_act="gelu",
        )
    ),
    "llava_mistral": Case(
        seeing(
            "LlavaForConditionalGeneration",
            "llava",
            text("mistral", sliding_window=40, tie_word_embeddings=True),
            TOWER,
        )
    ),
    "glm4v": Case(
        seeing(
            "Glm4vForConditionalGeneration",
            "glm4v",
            text(
                "glm4v_text",
                attention_bias=True,
                hidden_act="gelu",
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 600.0,
                    "partial_rotary_factor": 0.5,
                    "mrope_section": [2, 1, 1],
                },
            ),
            VISUAL,
        )
    ),
    "kimi_k25": Case(
        seeing(
            "KimiK25ForConditionalGeneration",
            "kimi_k25",
            MOE_CASES["deepseek_v3"].config,
            TOWER,
        )
    ),
    "llama4_text": Case(
        seeing(
            "Llama4ForConditionalGeneration",
            "llama4",
            MOE_CASES["llama4"].config,
            {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 8,
                "patch_size": 4,
                "vision_output_dim": 32,
                "projector_input_dim": 32,
                "projector_output_dim": 32,
            },
            boi_token_index=98,
            eoi_token_index=99,
            image_token_index=100,
        )
    ),
}
SEEING_CASES |= {
    "llava_next": Case(
        seeing(
            "LlavaNextForConditionalGeneration",
            "llava_next",
            text("llama", hidden_act="gelu"),
            TOWER,
            image_grid_pinpoints=[[8, 8]],
            use_image_newline_parameter=True,
        )
    ),
}
STEP_TOWER = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
STEP_TOWER |= {"image_size": 28, "patch_size": 14, "intermediate_size": 32}
KIN_CASES["step3p7"] = Case(
    {
        "architectures": ["Step3p7ForConditionalGeneration"],
        "model_type": "step3p7",
        "torch_dtype": "float32",
        "image_token_id": 96,
        "understand_projector_stride": 2,
        "projector_bias": False,
        "tie_word_embeddings": False,
        "text_config": {
            key: value
            for key, value in KIN_CASES["step3p5"].config.items()
            if key != "architectures"
        },
        "vision_config": STEP_TOWER,
    }
)
KIN_CASES |= SEEING_CASES
