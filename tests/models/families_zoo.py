"""Tiny configs with odd values for architectures that are rarer still.

Values differ from every default so that a reader that misses one gives other logits.
"""

from __future__ import annotations

from typing import Any

from tests.models.case import CLASSIC, Case
from tests.models.families_dense import EPS, layered, named
from tests.models.families_kin import VISUAL, seeing
from tests.models.families_moe import LATENT, YARN, routed
from tests.models.families_more import bailing, without


def sarvam_mla(**values: Any) -> dict[str, Any]:
    config = routed("SarvamMLAForCausalLM", "sarvam_mla", num_experts=8, **LATENT | values)
    return without(config, "n_routed_experts", "n_shared_experts") | {"num_shared_experts": 2}


XGLM: dict[str, Any] = CLASSIC | {
    "architectures": ["XGLMForCausalLM"],
    "model_type": "xglm",
    "d_model": 64,
    "num_layers": 2,
    "attention_heads": 4,
    "ffn_dim": 80,
    "max_position_embeddings": 256,
    "activation_function": "relu",
}

NEVER_SEEN = {"XGLMForCausalLM": EPS}
"""Fields that no weights can show: an eps of 1e-5 beside the waves, which are as large as one."""

XLSTM: dict[str, Any] = CLASSIC | {
    "architectures": ["xLSTMForCausalLM"],
    "model_type": "xlstm",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_heads": 4,
    "qk_dim_factor": 0.5,
    "v_dim_factor": 1.5,
    "ffn_proj_factor": 1.3,
    "ffn_round_up_to_multiple_of": 10,
    "gate_soft_cap": 2.0,
    "output_logit_soft_cap": 4.0,
    "norm_eps": 0.5,
    "eps": 0.2,
    "autocast_kernel_dtype": "float32",
}

STEP_KEYS = ("rope_theta", "num_key_value_heads", "max_position_embeddings")


def arctic(**values: Any) -> dict[str, Any]:
    experts = {
        "rms_norm_eps": 0.2,
        "num_local_experts": 6,
        "parallel_attn_mlp_res": True,
        "use_residual": True,
    }
    return named("ArcticForCausalLM", "arctic", **experts | values)


def plamo2(**values: Any) -> dict[str, Any]:
    sizes = {"hidden_size_per_head": 24, "attention_window_size": 60, "mamba_d_state": 12}
    sizes |= {"mamba_num_heads": 6, "mamba_d_conv": 3, "mamba_step": 2}
    return named("Plamo2ForCausalLM", "plamo2", **{"tie_word_embeddings": True} | sizes | values)


def laguna(**values: Any) -> dict[str, Any]:
    sizes = {"head_dim": 24, "sliding_window": 40, "num_experts": 8, "num_experts_per_tok": 3}
    sizes |= {"moe_intermediate_size": 40, "shared_expert_intermediate_size": 56}
    config = named("LagunaForCausalLM", "laguna", moe_routed_scaling_factor=1.7, **sizes | values)
    return without(config, "rope_theta")


def jetmoe(**values: Any) -> dict[str, Any]:
    sizes = {"kv_channels": 24, "num_local_experts": 6, "num_experts_per_tok": 3}
    config = named("JetMoeForCausalLM", "jetmoe", **sizes | values)
    return without(config, "num_attention_heads")


def doge(**values: Any) -> dict[str, Any]:
    sizes = {"head_dim": 24, "keep_window_size": 300, "hidden_act": "gelu"}
    return named("DogeForCausalLM", "doge", **sizes | values)


def flint(**values: Any) -> dict[str, Any]:
    sizes = {"head_dim": 24, "sliding_window": 40, "num_experts": 8, "num_experts_per_tok": 3}
    sizes |= {"moe_intermediate_size": 40, "shared_expert_intermediate_size": 56}
    return named("FlintForCausalLM", "flint", **sizes | values)


def compass(**values: Any) -> dict[str, Any]:
    kinds = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
        "full_attention": None,
    }
    fields = {"layer_norm_eps": 0.3, "logit_scale": 0.4, "sliding_window": 40, "hidden_act": "gelu"}
    fields |= {"layer_types": ["sliding_attention", "full_attention"], "rope_parameters": kinds}
    fields |= {"tie_word_embeddings": True, "attention_bias": True}
    config = layered("CohereCompassForCausalLM", "cohere_compass_text", **fields | values)
    return without(config, "rope_theta")


def beam(**values: Any) -> dict[str, Any]:
    sizes = {"head_dim": 24, "sliding_window": 40, "num_experts": 12, "num_experts_per_tok": 3}
    sizes |= {"moe_intermediate_size": 40, "n_group": 3, "topk_group": 2, "hidden_act": "gelu"}
    fields = {"layer_types": ["sliding_attention", "full_attention"], "attention_bias": True}
    fields |= {"mlp_layer_types": ["dense", "sparse"], "final_logit_softcapping": 4.0}
    kinds = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
        "full_attention": None,
    }
    fields |= {"rope_parameters": kinds, "routed_scaling_factor": 1.7}
    return without(named("BeamForCausalLM", "beam", **sizes | fields | values), "rope_theta")


ZOO_CASES: dict[str, Case] = {
    "bitnet": Case(
        named("BitNetForCausalLM", "bitnet", attention_bias=True, tie_word_embeddings=True)
    ),
    "bitnet_gelu": Case(named("BitNetForCausalLM", "bitnet", hidden_act="gelu")),
    "xglm": Case(XGLM, unseen=EPS),
    "xglm_plain": Case(XGLM | {"scale_embedding": False, "tie_word_embeddings": False}, unseen=EPS),
    "step1": Case(
        without(named("Step1ForCausalLM", "step1"), *STEP_KEYS)
        | {
            "num_attention_groups": 2,
            "max_seq_len": 512,
            "mlp_bias": True,
            "num_attention_heads": 8,
        }
    ),
    "step3_text": Case(
        without(named("Step3TextForCausalLM", "step3_text"), *STEP_KEYS)
        | {"rope_theta": 600.0, "share_q_dim": 40, "head_dim": 24}
        | {"moe_num_experts": 8, "moe_top_k": 3, "moe_intermediate_size": 40}
        | {"share_expert_dim": 56, "moe_layers_enum": "0", "max_position_embedding": 512}
    ),
    "arctic": Case(arctic(num_experts_per_tok=2, moe_layer_frequency=2)),
    "arctic_in_a_row": Case(
        arctic(parallel_attn_mlp_res=False, moe_layer_frequency=1, num_experts_per_tok=1)
        | {"hidden_act": "gelu", "tie_word_embeddings": True}
    ),
    "plamo2": Case(
        plamo2(attention_window_size=40, mamba_num_heads=4, tie_word_embeddings=False)
        | {"rope_theta": 600.0, "mamba_step": 8, "num_hidden_layers": 2}
    ),
    "plamo2_whole": Case(plamo2(full_attention_idx=[1], rope_theta=700.0, rope_local_theta=300.0)),
    "diffllama": Case(
        named("DiffLlamaForCausalLM", "diffllama", attention_bias=True, num_attention_heads=8)
        | {"num_key_value_heads": 4, "hidden_act": "gelu"}
    ),
    "diffllama_tied": Case(
        named("DiffLlamaForCausalLM", "diffllama", tie_word_embeddings=True, head_dim=24)
    ),
    "laguna": Case(
        laguna(
            num_attention_heads_per_layer=[4, 8],
            layer_types=["full_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_theta": 700.0, "partial_rotary_factor": 0.5}
                | {"rope_type": "default"},
                "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
            },
        )
    ),
    "laguna_whole": Case(
        laguna(
            gating="per-head",
            tie_word_embeddings=True,
            mlp_layer_types=["sparse", "dense"],
            hidden_act="gelu",
            attention_bias=True,
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 900.0},
            },
        )
    ),
    "doge": Case(doge(attention_bias=True, num_key_value_heads=3, num_attention_heads=6)),
    "doge_tied": Case(doge(tie_word_embeddings=True, mlp_bias=True, sliding_window=40)),
    "flint": Case(flint(num_hidden_layers=4, attention_bias=True, rms_norm_eps=0.3)),
    "flint_sparse": Case(
        flint(layer_types=["sliding_attention", "full_attention"], mlp_only_layers=[0])
        | {"norm_topk_prob": False, "tie_word_embeddings": True, "hidden_act": "gelu"}
    ),
    "xlstm": Case(XLSTM),
    "xlstm_wide": Case(
        XLSTM
        | {"tie_word_embeddings": True, "qk_dim_factor": 0.75, "num_heads": 2, "gate_soft_cap": 3.0}
    ),
    "cohere_compass": Case(compass()),
    "cohere_compass_turning": Case(
        compass(layer_types=None, logit_scale=None, tie_word_embeddings=False)
        | {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 900.0}}}
    ),
    "beam": Case(beam()),
    "beam_whole": Case(
        beam(layer_types=["full_attention"] * 2, mlp_layer_types=["sparse", "sparse"])
        | {"norm_topk_prob": False, "final_logit_softcapping": None, "tie_word_embeddings": True}
    ),
    "jetmoe": Case(jetmoe(activation_function="gelu")),
    "jetmoe_apart": Case(
        jetmoe(tie_word_embeddings=False, num_key_value_heads=3, num_experts_per_tok=2)
    ),
    "sarvam_moe": Case(bailing("SarvamMoEForCausalLM", "sarvam_moe", head_dim=24)),
    "sarvam_mla": Case(
        sarvam_mla(
            q_lora_rank=None,
            rope_scaling=YARN | {"type": "deepseek_yarn", "mscale": 0.9, "mscale_all_dim": 1.4},
            moe_shared_expert_intermediate_size=40,
        )
    ),
    "param2moe": Case(
        bailing("Param2MoEForCausalLM", "param2moe", head_dim=24, tie_word_embeddings=True)
        | {"moe_shared_expert_intermediate_size": 80, "norm_topk_prob": False}
    ),
}
ZOO_CASES["step3_vl"] = Case(
    {
        "architectures": ["Step3VLForConditionalGeneration"],
        "model_type": "step3_vl",
        "torch_dtype": "float32",
        "understand_projector_stride": 2,
        "projector_bias": False,
        "image_token_id": 96,
        "text_config": without(ZOO_CASES["step3_text"].config, "architectures"),
        "vision_config": {"hidden_size": 32, "output_hidden_size": 64},
    }
)
ZOO_CASES |= {
    f"cohere_compass_{name}": Case(
        seeing(
            "CohereCompassForConditionalGeneration",
            "cohere_compass",
            ZOO_CASES[text].config,
            VISUAL,
        )
    )
    for name, text in (
        ("seeing", "cohere_compass"),
        ("seeing_turning", "cohere_compass_turning"),
    )
}
