"""config.json as published checkpoints have it: their true keys and values, and a shrunken copy of each."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parent / "configs"
PUBLISHED = sorted(path.stem for path in CONFIGS.glob("*.json"))
"""Files whose names end in -text are the text part of a
file for text and images, with the name of the text model and, of Gemma, the outer eos_token_id. Files of
checkpoints in fewer bits stand here as their copies in bfloat16 have them, without quantization_config;
kimi-k2-instruct, whose model_type kimi_k2 Transformers lacks, with deepseek_v3."""

SOURCES: dict[str, str] = json.loads((CONFIGS.parent / "sources.json").read_text())
"""Where a copy of a published file was found with which ours agrees in all keys that act; "sizes", `.md` and
`.py`: in those that the place tells. No source supports the files that are not named here."""

_SMALL = {
    "block_ff_dim": 80,
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 24,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "ffn_dim": 80,
    "attention_heads": 4,
    "word_embed_proj_dim": 64,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 72,
    "num_experts": 6,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "top_k_experts": 2,
    "num_global_key_value_heads": 1,
    "kv_lora_rank": 48,
    "q_lora_rank": 40,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "n_routed_experts": 24,
    "first_k_dense_replace": 1,
    "rotary_dim": 12,
    "moe_num_experts": 6,
    "moe_k": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": 2,
    "moe_topk": 2,
    "n_inner": 80,
    "n_embed": 64,
    "num_heads": 4,
    "num_layers": 3,
    "d_model": 64,
    "n_heads": 4,
    "n_layers": 3,
    "ffn_hidden_size": 80,
    "num_kv_heads": 2,
    "kv_channels": 24,
    "multi_query_group_num": 2,
    "padded_vocab_size": 97,
    "intermediate_size_mlp": 72,
    "attention_chunk_size": 48,
    "full_attention_interval": 3,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 24,
    "linear_value_head_dim": 24,
    "total_ut_steps": 2,
}
FEWER = {
    "Dots1ForCausalLM": 2,
    "JetMoeForCausalLM": 0,
    "BeamForCausalLM": 0,
    "CohereCompassForConditionalGeneration": 0,
    "CohereCompassForCausalLM": 0,
    "xLSTMForCausalLM": 0,
    "FlintForCausalLM": 0,
    "Glm4MoeLiteForCausalLM": 1,
    "GraniteMoeSharedForCausalLM": 0,
    "HunYuanMoEV1ForCausalLM": 2,
    "FlexOlmoForCausalLM": 2,
    "MiniCPM3ForCausalLM": 1,
    "DbrxForCausalLM": 2,
    "Lfm2MoeForCausalLM": 2,
    "KimiLinearForCausalLM": 1,
    "ExaoneMoeForCausalLM": 0,
    "ExaoneMoEForCausalLM": 1,
    "DeepseekV32ForCausalLM": 2,
    "DeepseekV4ForCausalLM": 2,
    "PhimoeForCausalLM": 0,
    "PhiMoEForCausalLM": 0,
    "SolarOpenForCausalLM": 1,
    "BaiChuanForCausalLM": 1,
    "BaichuanForCausalLM": 2,
    "OrionForCausalLM": 2,
    "HeliumForCausalLM": 1,
    "HyperCLOVAXForCausalLM": 1,
    "IQuestCoderForCausalLM": 1,
    "InternLM3ForCausalLM": 1,
    "Jais2ForCausalLM": 1,
    "MinistralForCausalLM": 0,
    "VaultGemmaForCausalLM": 1,
    "Ernie4_5ForCausalLM": 2,
    "PersimmonForCausalLM": 2,
    "SmolLM3ForCausalLM": 2,
    "Llama4ForCausalLM": 2,
    "FalconMambaForCausalLM": 2,
    "Mamba2ForCausalLM": 1,
    "FalconH1ForCausalLM": 1,
    "DeciLMForCausalLM": 1,
    "ApertusForCausalLM": 2,
    "OlmoHybridForCausalLM": 1,
    "Gemma3nForCausalLM": 1,
    "Gemma3nForConditionalGeneration": 0,
    "Gemma3ForConditionalGeneration": 1,
    "Qwen3_5ForConditionalGeneration": 1,
    "Gemma4ForConditionalGeneration": 1,
    "Qwen2VLForConditionalGeneration": 0,
    "Qwen2_5_VLForConditionalGeneration": 1,
    "Qwen3VLMoeForConditionalGeneration": 2,
    "Llama4ForConditionalGeneration": 2,
    "LlavaForConditionalGeneration": 1,
    "Glm4vForConditionalGeneration": 0,
    "KimiK25ForConditionalGeneration": 1,
    "DeepseekForCausalLM": 2,
    "BailingMoeForCausalLM": 0,
    "BailingMoeV2ForCausalLM": 0,
    "PanguEmbeddedForCausalLM": 0,
    "AXK1ForCausalLM": 0,
    "PanguUltraMoEForCausalLM": 0,
    "Plamo3ForCausalLM": 0,
    "TeleChat2ForCausalLM": 0,
    "Step3p5ForCausalLM": 0,
    "Step3p7ForConditionalGeneration": 0,
    "TeleFLMForCausalLM": 0,
    "YoutuForCausalLM": 0,
    "MellumForCausalLM": 1,
    "MiniMaxForCausalLM": 1,
    "Mistral3ForConditionalGeneration": 2,
    "Mistral4ForCausalLM": 1,
    "HYV3ForCausalLM": 0,
    "LongcatFlashForCausalLM": 1,
    "OuroForCausalLM": 2,
    "Lfm3ForCausalLM": 1,
    "MiMoV2FlashForCausalLM": 1,
    "GraniteSWAForCausalLM": 0,
    "GraniteMoeSWAForCausalLM": 0,
    "SolarForCausalLM": 0,
    "LlavaNextForConditionalGeneration": 0,
    "Cohere2MoeForCausalLM": 0,
    "Grok1ModelForCausalLM": 0,
    "Grok1ForCausalLM": 0,
    "JAISLMHeadModel": 0,
    "OpenAIGPTLMHeadModel": 1,
    "GPTNeoXJapaneseForCausalLM": 0,
    "InternLM2VEForCausalLM": 0,
    "Fairseq2LlamaForCausalLM": 0,
    "SarvamMoEForCausalLM": 0,
    "SarvamMLAForCausalLM": 0,
    "Param2MoEForCausalLM": 0,
    "BitNetForCausalLM": 0,
    "LagunaForCausalLM": 1,
    "Step3VLForConditionalGeneration": 0,
    "Plamo2ForCausalLM": 0,
    "ArcticForCausalLM": 0,
    "Step1ForCausalLM": 0,
    "Step3TextForCausalLM": 0,
    "RecurrentGemmaForCausalLM": 1,
    "Kolibri1ForCausalLM": 0,
    "HYV4ForCausalLM": 1,
    "BailingHybridForCausalLM": 0,
    "MiniMaxM3SparseForConditionalGeneration": 0,
}
"""Architectures with fewer than three checkpoints in floats whose files we know, and how many."""
UNSOURCED = {"BaiChuanForCausalLM", "RecurrentGemmaForCausalLM"}
"""Architectures that have files but none with a source."""
_STATES = {
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "shared_intermediate_size": 56,
    "attn_layer_indices": [1],
    "layer_types": ["mamba", "attention", "mamba"],
}
_EDGE: dict[str, Any] = {
    "num_hidden_layers": 5,
    "layer_types": [
        f"{kind}_attention" for kind in ("sliding", "full", "sliding", "sliding", "full")
    ],
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 90,
    "hidden_size_per_layer_input": 12,
    "laurel_rank": 6,
    "global_head_dim": 32,
    "intermediate_size": 80,
    "activation_sparsity_pattern": [0.95, 0.95, 0.0, 0.0, 0.0],
}
"""What the keys of Gemma 3n and 4 become."""
_PICKS = {
    "index_topk": 40,
    "index_head_dim": 28,
    "index_n_heads": 12,
    "indexer_types": ["full", "shared", "full"],
}
SMALL_STATES: dict[str, dict[str, Any]] = {
    "recurrent_gemma": {"head_dim": 16, "lru_width": 72},
    "rwkv": {"attention_hidden_size": 48},
    "mistral4": {"qk_nope_head_dim": 16, "head_dim": 32},  # half of a head turns
    "deepseek_v32": _PICKS,
    "glm_moe_dsa": _PICKS,
    "hy_v4": _PICKS,
    # Transformers takes positions for 64 numbers of a head where head_dim does not say it.
    "longcat_flash": {
        "qk_rope_head_dim": 64,
        "expert_ffn_hidden_size": 40,
        "n_routed_experts": 10,
        "zero_expert_num": 6,
        "moe_topk": 4,
    },
    "mamba": {"time_step_rank": 8, "n_layer": 3},
    "falcon_mamba": {"time_step_rank": 8},
    "mamba2": {"head_dim": 32, "n_groups": 2, "state_size": 16, "time_step_rank": 8},
    "bamba": _STATES,
    "granitemoehybrid": _STATES,
    "falcon_h1": _STATES | {"mamba_d_head": 24, "mamba_d_ssm": 96},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "mimo_v2_flash": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_head_dim": 24,
        "swa_v_head_dim": 20,
        "sliding_window_size": 48,
    },
    "zamba2": {
        "num_hidden_layers": 2,
        "layers_block_type": ["hybrid", "hybrid"],
        "chunk_size": 8,
        "hybrid_layer_ids": [0, 1],
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "mamba_headdim": 32,
        "n_mamba_heads": 4,
        "mamba_d_state": 16,
        "adapter_rank": 12,
    },
    "gemma3n_text": _EDGE,
    "afmoe": {"num_dense_layers": 1, "global_attn_every_n_layers": 2},
    "gemma4_text": _EDGE | {"vocab_size_per_layer_input": 97},
    "deepseek_v4": {
        "compress_ratios": [0, 4, 128, 0],
        "num_hash_layers": 1,
        "o_groups": 2,
        "o_lora_rank": 20,
        "index_n_heads": 16,
        "index_head_dim": 24,
        "index_topk": 8,
    },
    "nemotron_h": {
        "hybrid_override_pattern": "M*-",
        "moe_shared_expert_intermediate_size": 56,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "ssm_state_size": 16,
    },
}
"""What keys of state-space models and some others become, by model_type; a pattern keeps one layer of each kind."""
_VISION: dict[str, Any] = {
    "depth": 1,
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "embed_dim": 32,
    "num_heads": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "out_hidden_size": 64,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
    "image_size": 28,
    "projection_dim": 16,
    "vision_output_dim": 32,
    "projector_input_dim": 32,
    "projector_output_dim": 32,
}
"""What the keys of towers become, which no text passes."""
SWITCH = 100  # tokens: where shrunken LongRoPE models change their factors


def config(name: str) -> dict[str, Any]:
    """A published config.json, parsed."""
    values: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    return values


def shrunk(name: str) -> dict[str, Any]:
    """The same keys with small sizes; grouping of heads stays, windows shrink with the prompt.

    A pattern of windows keeps one layer without, and LongRoPE's lists are thinned out evenly.
    """
    values = config(name)
    text = values.get("text_config")
    if text is None:
        return _small(values)
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        text.setdefault(key, _SMALL[key])
    if values["model_type"] == "qwen2_5_vl":
        text["rope_scaling"]["mrope_section"] = [4, 2, 2]  # half of a head
    vision = values.get("vision_config") or dict(_VISION)
    small = {key: _VISION.get(key, value) for key, value in vision.items()}
    return values | {"text_config": _small(text), "vision_config": small}


def _small(values: dict[str, Any]) -> dict[str, Any]:
    original = copy.deepcopy(values)
    heads, kv_heads = values.get("num_attention_heads"), values.get("num_key_value_heads")
    if values["model_type"] == "dbrx":
        return _small_dbrx(values)
    num_layers = values.get("num_hidden_layers")
    for key, value in values.items():
        if isinstance(value, list) and len(value) == num_layers:
            few = _SMALL["num_hidden_layers"]
            ends = value[:few], value[-few:]
            values[key] = max(ends, key=lambda part: len({json.dumps(item) for item in part}))
    for key, small in _SMALL.items():
        if values.get(key) not in (None, 0):
            values[key] = small
    if kv_heads is not None:
        values["num_key_value_heads"] = 4 if heads == kv_heads else min(kv_heads, 2)
    for block in values.get("block_configs", ()):
        if block["attention"]["n_heads_in_group"] is not None:
            block["attention"]["n_heads_in_group"] = 2
    if values.get("sliding_window"):
        values["sliding_window"] = 48
    if values["model_type"] == "gemma3_text":
        values |= {"num_hidden_layers": 7, "vocab_size": 97}
        values |= {"layer_types": original["layer_types"][:7]} if "layer_types" in values else {}
    if (
        values["model_type"] == "mistral" and "layer_types" in values
    ):  # Transformers' Mistral reads no kinds
        values |= {"architectures": ["MinistralForCausalLM"], "model_type": "ministral"}
    if values["model_type"] == "cohere2":
        values["sliding_window_pattern"] = 2
    if values["model_type"] == "helium":
        values["head_dim"] = 16  # its heads share the width
    if "linear_attn_config" in values:
        small = {"head_dim": 12, "num_heads": 3, "kda_layers": [1, 2], "full_attn_layers": [3]}
        values["linear_attn_config"] |= small
    if "attention_types" in values:
        values["attention_types"] = [[["global", "local", "global"], 1]]
        values["attention_layers"] = ["global", "local", "global"]
    with_experts = "E" in values.get("hybrid_override_pattern", "")
    for key, small in SMALL_STATES.get(values["model_type"], {}).items():
        if values.get(key, 0) != 0:
            values[key] = small
    if with_experts:
        values["hybrid_override_pattern"] = "ME*"
    scaling = values.get("rope_scaling") or {}
    if scaling.get("type") == "longrope":
        pairs = int(8 * values.get("partial_rotary_factor", 1.0))
        for key in ("long_factor", "short_factor"):
            scaling[key] = scaling[key][:: len(scaling[key]) // pairs][:pairs]
        owner = scaling if "original_max_position_embeddings" in scaling else values
        owner["original_max_position_embeddings"] = SWITCH
    return values


def _small_dbrx(values: dict[str, Any]) -> dict[str, Any]:
    """With the base of positions that Transformers takes, who does not read attn_config for it."""
    values |= {"d_model": 64, "n_heads": 4, "n_layers": 3, "vocab_size": 97}
    values["attn_config"] |= {"kv_n_heads": 2, "rope_theta": 10_000.0}
    values["ffn_config"] |= {"ffn_hidden_size": 48, "moe_num_experts": 6, "moe_top_k": 2}
    return values
