"""Tiny configs with odd values for dense architectures beyond the first ones of `families`.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import CLASSIC, COMMON, Case

NO_RMS = {key: value for key, value in COMMON.items() if key != "rms_norm_eps"}
EPS = frozenset({"norm_eps", "layer.norm_eps"})
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 6.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 5.0,
    "original_max_position_embeddings": 96,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "attention_factor": 1.3,
    "beta_fast": 6.0,
    "beta_slow": 0.7,
}


def named(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    """In Llama's spelling."""
    names = {"architectures": [architecture], "model_type": model_type, "rope_theta": 600.0}
    return COMMON | names | values


def layered(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    """The same with LayerNorm."""
    names = {"architectures": [architecture], "model_type": model_type, "rope_theta": 600.0}
    return NO_RMS | names | values


def classic(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    """In GPT-2's spelling."""
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
    names = {"architectures": [architecture], "model_type": model_type}
    return CLASSIC | sizes | names | {"layer_norm_epsilon": 0.3} | values


def falcon(**values: Any) -> dict[str, Any]:
    names = {"architectures": ["FalconForCausalLM"], "model_type": "falcon"}
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLASSIC | names | sizes | {"layer_norm_epsilon": 0.3} | values


CHATGLM = {
    "architectures": ["ChatGLMForConditionalGeneration"],
    "model_type": "chatglm",
    "hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 24,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "padded_vocab_size": 97,
    "vocab_size": 97,
    "ffn_hidden_size": 80,
    "layernorm_epsilon": 0.03,
    "seq_length": 512,
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_bias_linear": False,
    "torch_dtype": "float32",
}
QWEN = {
    "architectures": ["QWenLMHeadModel"],
    "model_type": "qwen",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "layer_norm_epsilon": 0.03,
    "seq_length": 512,
    "rotary_emb_base": 600.0,
    "no_bias": True,
    "vocab_size": 97,
    "torch_dtype": "float32",
}
BIASES = {"attention_bias": True, "mlp_bias": True}

DENSE_CASES: dict[str, Case] = {
    "smollm3": Case(
        named(
            "SmolLM3ForCausalLM",
            "smollm3",
            no_rope_layers=[1, 0],
            use_sliding_window=True,
            sliding_window=40,
            **BIASES,
        )
    ),
    "ministral": Case(
        named(
            "MinistralForCausalLM",
            "ministral",
            sliding_window=40,
            head_dim=24,
            layer_types=["full_attention", "sliding_attention"],
        )
    ),
    "cwm": Case(
        named(
            "CwmForCausalLM",
            "cwm",
            sliding_window=40,
            head_dim=24,
            mlp_bias=True,
            rope_scaling=LLAMA3,
        )
    ),
    "seed_oss": Case(
        named(
            "SeedOssForCausalLM",
            "seed_oss",
            head_dim=24,
            attention_bias=True,
            attention_out_bias=True,
            mlp_bias=True,
        )
    ),
    "internlm3": Case(
        named("InternLM3ForCausalLM", "internlm3", qkv_bias=True, bias=True, head_dim=24)
    ),
    "iquestcoder": Case(named("IQuestCoderForCausalLM", "iquestcoder", head_dim=24, **BIASES)),
    "helium": Case(named("HeliumForCausalLM", "helium", head_dim=16, **BIASES)),
    "arcee": Case(named("ArceeForCausalLM", "arcee", head_dim=24, **BIASES)),
    "cohere2": Case(
        layered(
            "Cohere2ForCausalLM",
            "cohere2",
            attention_bias=True,
            layer_norm_eps=0.3,
            logit_scale=0.4,
            sliding_window=40,
            sliding_window_pattern=2,
            hidden_act="gelu",
        )
    ),
    "olmo": Case(named("OlmoForCausalLM", "olmo") | {"rms_norm_eps": None}, unseen=EPS),
    "olmo_quiet": Case(
        named("OlmoForCausalLM", "olmo", attention_bias=True, clip_qkv=0.9)
        | {"rms_norm_eps": None},
        quiet=0.003,
    ),
    "olmo3": Case(
        named(
            "Olmo3ForCausalLM",
            "olmo3",
            attention_bias=True,
            sliding_window=40,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters={
                "full_attention": YARN | {"rope_theta": 600.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
            },
        )
    ),
    "olmo3_old": Case(
        named(
            "Olmo3ForCausalLM",
            "olmo3",
            sliding_window=40,
            layer_types=["sliding_attention", "full_attention"],
            rope_theta=500_000,
            rope_scaling=YARN,
            hidden_act="gelu",
        ),
        unseen=frozenset({"scaling.beta_fast"}),
    ),
    "exaone4": Case(
        named(
            "Exaone4ForCausalLM",
            "exaone4",
            head_dim=24,
            sliding_window=40,
            sliding_window_pattern=2,
            hidden_act="gelu",
        )
    ),
    "exaone4_plain": Case(
        named(
            "Exaone4ForCausalLM", "exaone4", sliding_window=None, layer_types=["full_attention"] * 2
        )
    ),
    "glm": Case(named("GlmForCausalLM", "glm", head_dim=24, hidden_act="gelu")),
    "glm_unbiased": Case(
        named(
            "GlmForCausalLM", "glm", partial_rotary_factor=0.25, attention_bias=False, head_dim=16
        )
    ),
    "glm4": Case(named("Glm4ForCausalLM", "glm4", head_dim=24)),
    "ernie4_5": Case(named("Ernie4_5ForCausalLM", "ernie4_5", head_dim=24, use_bias=True)),
    "hunyuan_dense": Case(
        named(
            "HunYuanDenseV1ForCausalLM",
            "hunyuan_v1_dense",
            head_dim=24,
            attention_bias=True,
            rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 1.0},
        )
    ),
    "hunyuan_plain": Case(named("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", head_dim=16)),
    "nemotron": Case(
        layered(
            "NemotronForCausalLM",
            "nemotron",
            head_dim=24,
            norm_eps=0.3,
            partial_rotary_factor=0.25,
            **BIASES,
        )
    ),
    "nemotron_plain": Case(
        layered("NemotronForCausalLM", "nemotron", hidden_act="gelu", norm_eps=0.3)
    ),
    "jais2": Case(layered("Jais2ForCausalLM", "jais2", layer_norm_eps=0.3, head_dim=24)),
    "persimmon": Case(
        layered("PersimmonForCausalLM", "persimmon", layer_norm_eps=0.3, num_key_value_heads=None)
    ),
    "persimmon_plain": Case(
        layered(
            "PersimmonForCausalLM",
            "persimmon",
            layer_norm_eps=0.3,
            qk_layernorm=False,
            hidden_act="gelu",
            partial_rotary_factor=0.25,
            num_key_value_heads=None,
        )
    ),
    "stablelm": Case(
        layered("StableLmForCausalLM", "stablelm", layer_norm_eps=0.3, use_qkv_bias=True)
    ),
    "stablelm_parallel": Case(
        layered(
            "StableLmForCausalLM",
            "stablelm",
            layer_norm_eps=0.3,
            use_parallel_residual=True,
            hidden_act="gelu",
            partial_rotary_factor=0.5,
        )
    ),
    "starcoder2": Case(
        layered("Starcoder2ForCausalLM", "starcoder2", norm_epsilon=0.3, sliding_window=40)
    ),
    "starcoder2_unbiased": Case(
        layered(
            "Starcoder2ForCausalLM",
            "starcoder2",
            use_bias=False,
            hidden_act="relu",
            norm_epsilon=0.3,
        )
    ),
    "phi": Case(layered("PhiForCausalLM", "phi", layer_norm_eps=0.3)),
    "phi_normed": Case(
        layered(
            "PhiForCausalLM",
            "phi",
            layer_norm_eps=0.3,
            qk_layernorm=True,
            partial_rotary_factor=0.25,
            hidden_act="relu",
        )
    ),
    "vaultgemma": Case(
        named(
            "VaultGemmaForCausalLM",
            "vaultgemma",
            rms_norm_eps=5.0,
            head_dim=24,
            attention_bias=True,
            query_pre_attn_scalar=9,
            sliding_window=40,
            attn_logit_softcapping=3.0,
            final_logit_softcapping=5.0,
        )
    ),
    "hyperclovax": Case(
        named(
            "HyperCLOVAXForCausalLM",
            "hyperclovax",
            head_dim=24,
            embedding_multiplier=3.0,
            attention_multiplier=0.4,
            residual_multiplier=0.6,
            logits_scaling=0.7,
            **BIASES,
        )
    ),
    "hyperclovax_pre": Case(
        named(
            "HyperCLOVAXForCausalLM",
            "hyperclovax",
            use_post_norm=False,
            hidden_act="gelu",
            attention_multiplier=0.3,
        )
    ),
    "bloom": Case(
        CLASSIC
        | {
            "architectures": ["BloomForCausalLM"],
            "model_type": "bloom",
            "n_embed": 64,
            "n_layer": 2,
            "num_attention_heads": 4,
            "layer_norm_epsilon": 0.3,
        }
    ),
    "falcon": Case(falcon(rope_theta=600.0, activation="relu")),
    "falcon_grouped": Case(
        falcon(new_decoder_architecture=True, num_kv_heads=2, ffn_hidden_size=80)
    ),
    "falcon_one_norm": Case(
        falcon(
            new_decoder_architecture=True,
            num_kv_heads=2,
            num_ln_in_parallel_attn=1,
            tie_word_embeddings=False,
        )
    ),
    "falcon_alibi": Case(falcon(alibi=True, multi_query=False, parallel_attn=False, bias=True)),
    "mpt": Case(
        CLASSIC
        | {
            "architectures": ["MptForCausalLM"],
            "model_type": "mpt",
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 2,
            "layer_norm_epsilon": 0.3,
            "attn_config": {"alibi": True, "softmax_scale": 0.4, "clip_qkv": 0.9},
        }
    ),
    "gptj": Case(classic("GPTJForCausalLM", "gptj", rotary_dim=8, n_inner=80)),
    "codegen": Case(
        classic("CodeGenForCausalLM", "codegen", rotary_dim=4, n_head=8, activation_function="relu")
    ),
    "gpt_neo": Case(
        CLASSIC
        | {
            "architectures": ["GPTNeoForCausalLM"],
            "model_type": "gpt_neo",
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 80,
            "max_position_embeddings": 256,
            "window_size": 40,
            "attention_types": [[["global", "local"], 1]],
            "layer_norm_epsilon": 0.3,
        }
    ),
    "internlm": Case(
        COMMON
        | {
            "architectures": ["InternLMForCausalLM"],
            "model_type": "internlm",
            "num_key_value_heads": 4,
            "bias": True,
            "rotary": {"base": 600, "type": "origin"},
        }
    ),
    "internlm2": Case(named("InternLM2ForCausalLM", "internlm2", bias=True, hidden_act="gelu")),
    "baichuan": Case(named("BaiChuanForCausalLM", "baichuan", num_key_value_heads=4)),
    "baichuan2": Case(
        named("BaichuanForCausalLM", "baichuan", num_key_value_heads=4, rms_norm_eps=0.3)
    ),
    "exaone": Case(
        {key: it for key, it in NO_RMS.items() if key != "num_hidden_layers"}
        | {
            "architectures": ["ExaoneForCausalLM"],
            "model_type": "exaone",
            "num_layers": 2,
            "head_dim": 24,
            "activation_function": "gelu",
            "layer_norm_epsilon": 0.03,
            "rope_theta": 600.0,
            "rope_scaling": LLAMA3,
            "tie_word_embeddings": True,
        }
    ),
    "qwen": Case(QWEN),
    "mimo": Case(named("MiMoForCausalLM", "mimo", attention_bias=True, use_sliding_window=False)),
    "minicpm": Case(
        named(
            "MiniCPMForCausalLM",
            "minicpm",
            scale_emb=3.0,
            scale_depth=0.7,
            dim_model_base=48,
            attention_bias=True,
            hidden_act="gelu",
        )
    ),
    "orion": Case(named("OrionForCausalLM", "orion", rms_norm_eps=0.3)),
    "chatglm": Case(CHATGLM | {"add_qkv_bias": True, "rope_ratio": 0.06}),
    "gpt_bigcode": Case(
        classic("GPTBigCodeForCausalLM", "gpt_bigcode", n_inner=80, scale_attn_weights=False)
    ),
    "gpt_bigcode_all": Case(
        classic(
            "GPTBigCodeForCausalLM",
            "gpt_bigcode",
            multi_query=False,
            activation_function="relu",
            tie_word_embeddings=False,
        ),
        unseen=frozenset({"mixer.scale"}),
    ),
}
