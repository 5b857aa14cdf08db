"""Rows of GGUF's families with latents, states, convolutions or delta nets in place of attention.

What their config.json says in words of its own is in `gguf.mixers`.
"""

from __future__ import annotations

from quire.models.loading.gguf.family import Family
from quire.models.names import Rule

_SSM = {"ssm_in": "in_proj", "ssm_conv1d": "conv1d", "ssm_norm": "norm", "ssm_out": "out_proj"}
_SSM |= {"ssm_a": "A_log", "ssm_d": "D"}
_FLAT = ("ssm_a", "ssm_d", "ssm_norm")
_PART, _LAYER = "layers.{layer}.feed_forward", "model.layers.{layer}"


def mamba_names(block: str, **more: str) -> dict[str, str]:
    """Names of a state-space mixer below `block` of a layer."""
    return {theirs: f"{block}.{ours}" for theirs, ours in (_SSM | more).items()}


_MAMBA2 = {"ssm_dt.bias": "dt_bias"}
_BACKBONE = {"token_embd": "backbone.embeddings", "output_norm": "backbone.norm_f"}
_MULTIPLIERS = {
    "logits_scaling": "logit_scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale",
}
FLAT_EXPERTS = tuple(
    (f"{part}_exps", f"experts.{{expert}}.{part}_proj") for part in ("gate", "up", "down")
)
"""Experts' products behind "ffn_", and where experts have numbers."""
_SPLIT = {f"ffn_{theirs}": ours for theirs, ours in FLAT_EXPERTS}
_LFM2 = {
    "attn_norm": "operator_norm",
    "attn_q_norm": "self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_layernorm",
    "attn_output": "self_attn.out_proj",
    "shortconv.conv": "conv.conv",
    "shortconv.in_proj": "conv.in_proj",
    "shortconv.out_proj": "conv.out_proj",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
_LFM2_TOP = dict.fromkeys(("token_embd_norm", "output_norm"), "model.embedding_norm")
_NEMOTRON_H = Family(
    "NemotronHForCausalLM",
    model_type="nemotron_h",
    eps="layer_norm_epsilon",
    keys={
        "n_routed_experts": "expert_count",
        "num_experts_per_tok": "expert_used_count",
        "n_shared_experts": "expert_shared_count",
        "moe_intermediate_size": "expert_feed_forward_length",
        "moe_shared_expert_intermediate_size": "expert_shared_feed_forward_length",
        "moe_latent_size": "moe_latent_size",
        "routed_scaling_factor": "expert_weights_scale",
        "norm_topk_prob": "expert_weights_norm",
        "n_group": "expert_group_count",
        "topk_group": "expert_group_used_count",
    },
    names={
        **mamba_names("mixer", **_MAMBA2),
        "attn_norm": "norm",
        "attn_q": "mixer.q_proj",
        "attn_k": "mixer.k_proj",
        "attn_v": "mixer.v_proj",
        "attn_output": "mixer.o_proj",
        "ffn_up": "mixer.up_proj",
        "ffn_down": "mixer.down_proj",
        "ffn_gate_inp": "mixer.gate",
        "exp_probs_b.bias": "mixer.gate.e_score_correction_bias",
        "ffn_up_exps": "mixer.experts.{expert}.up_proj",
        "ffn_down_exps": "mixer.experts.{expert}.down_proj",
        "ffn_up_shexp": "mixer.shared_experts.up_proj",
        "ffn_down_shexp": "mixer.shared_experts.down_proj",
        "ffn_latent_down": "mixer.fc1_latent_proj",
        "ffn_latent_up": "mixer.fc2_latent_proj",
    },
    top=_BACKBONE,
    layers="backbone.layers",
    flags={
        "use_conv_bias": "ssm_conv1d.bias",
        "use_bias": "ssm_in.bias",
        "mlp_bias": "ffn_up.bias",
    },
    in_pairs=True,
    flat=_FLAT,
    in_middle=("ssm_conv1d",),
)

STATES: dict[str, Family] = {
    "deepseek2": Family(
        "DeepseekV2ForCausalLM",
        model_type="deepseek_v2",
        keys={
            "n_routed_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "n_shared_experts": "expert_shared_count",
            "first_k_dense_replace": "leading_dense_block_count",
            "routed_scaling_factor": "expert_weights_scale",
            "norm_topk_prob": "expert_weights_norm",
            "n_group": "expert_group_count",
            "topk_group": "expert_group_used_count",
        },
        names={
            "attn_q_a": "self_attn.q_a_proj",
            "attn_q_a_norm": "self_attn.q_a_layernorm",
            "attn_q_b": "self_attn.q_b_proj",
            "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
            "attn_kv_a_norm": "self_attn.kv_a_layernorm",
            "attn_kv_b": "self_attn.kv_b_proj",
            "attn_k_b": "self_attn.kv_b_proj",
            "attn_v_b": "self_attn.kv_b_proj",
            "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
            **{
                f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj"
                for part in ("gate", "up", "down")
            },
        },
        flags={"attention_bias": "attn_kv_a_mqa.bias"},
        head_dim=False,
    ),
    "mamba": Family(
        "MambaForCausalLM",
        names={**mamba_names("mixer", ssm_x="x_proj", ssm_dt="dt_proj"), "attn_norm": "norm"},
        top=_BACKBONE,
        layers="backbone.layers",
        in_middle=("ssm_conv1d",),
    ),
    "mamba2": Family(
        "Mamba2ForCausalLM",
        names={**mamba_names("mixer", **_MAMBA2), "attn_norm": "norm"},
        top=_BACKBONE,
        layers="backbone.layers",
        flat=_FLAT,
        in_middle=("ssm_conv1d",),
    ),
    "lfm2": Family(
        "Lfm2ForCausalLM",
        eps="norm_eps",
        names=_LFM2,
        top=_LFM2_TOP,
        flags={"conv_bias": "shortconv.conv.bias"},
        head_dim=False,
    ),
    "lfm2moe": Family(
        "Lfm2MoeForCausalLM",
        model_type="lfm2_moe",
        eps="norm_eps",
        keys={
            "num_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "num_dense_layers": "leading_dense_block_count",
        },
        names={
            **_LFM2,
            "ffn_gate_inp": "feed_forward.gate",
            "ffn_gate_exps": "feed_forward.experts.{expert}.w1",
            "ffn_up_exps": "feed_forward.experts.{expert}.w3",
            "ffn_down_exps": "feed_forward.experts.{expert}.w2",
            "exp_probs_b.bias": "feed_forward.expert_bias",
        },
        top=_LFM2_TOP,
        flags={"conv_bias": "shortconv.conv.bias"},
        head_dim=False,
    ),
    "granitehybrid": Family(
        "GraniteMoeHybridForCausalLM",
        model_type="granitemoehybrid",
        keys={
            **_MULTIPLIERS,
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
        },
        names={
            **_SPLIT,
            **mamba_names("mamba", **_MAMBA2),
            "ffn_gate_inp": "block_sparse_moe.router.layer",
            **{f"ffn_gate{end}": "shared_mlp.gate_proj" for end in ("", "_shexp")},
            **{f"ffn_up{end}": "shared_mlp.up_proj" for end in ("", "_shexp")},
            **{f"ffn_down{end}": "shared_mlp.output_linear" for end in ("", "_shexp")},
        },
        flags={"mamba_conv_bias": "ssm_conv1d.bias", "mamba_proj_bias": "ssm_in.bias"},
        in_pairs=True,
        head_dim=False,
        split_experts=True,
        flat=_FLAT,
        in_middle=("ssm_conv1d",),
        instead=tuple(
            Rule(f"{_LAYER}.shared_mlp.{name}_proj.weight", f"{_PART}.{target}.weight", (place,))
            for place, name in enumerate(("gate", "up"))
            for target in ("gate_up", "shared.gate_up")
        ),
    ),
    "nemotron_h": _NEMOTRON_H,
    "nemotron_h_moe": _NEMOTRON_H,
    "falcon-h1": Family(
        "FalconH1ForCausalLM",
        model_type="falcon_h1",
        names={
            **mamba_names("mamba", **_MAMBA2),
            "ffn_norm": "pre_ff_layernorm.weight",
            "ffn_norm.weight": "pre_ff_layernorm.weight",
            "ffn_gate": "feed_forward.gate_proj",
            "ffn_up": "feed_forward.up_proj",
            "ffn_down": "feed_forward.down_proj",
        },
        top={"output_norm": "model.final_layernorm"},
        flags={"mamba_conv_bias": "ssm_conv1d.bias"},
        flat=_FLAT,
        in_middle=("ssm_conv1d",),
    ),
    "qwen3next": Family(
        "Qwen3NextForCausalLM",
        model_type="qwen3_next",
        keys={
            "num_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
        },
        names={
            **mamba_names("linear_attn", **_MAMBA2, ssm_ba="in_proj_ba"),
            "attn_qkv": "linear_attn.in_proj_qkv",
            "attn_gate": "linear_attn.in_proj_z",
            "post_attention_norm": "post_attention_layernorm",
        },
        norms_whole=True,
        instead=(
            Rule(
                f"{_LAYER}.linear_attn.in_proj_qkv.weight",
                "layers.{layer}.mixer.in.weight",
                (0, 1, 2),
            ),
            Rule(f"{_LAYER}.linear_attn.in_proj_z.weight", "layers.{layer}.mixer.in.weight", (3,)),
        ),
    ),
}
"""By `general.architecture`."""
