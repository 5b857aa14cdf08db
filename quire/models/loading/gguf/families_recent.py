"""Rows of GGUF's families of 2025 and after: hybrids, latents whose tokens are picked, Gemma 4; and Jamba.

What their config.json says in words of its own is in `gguf.recent`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.loading.gguf.families_states import FLAT_EXPERTS, STATES, mamba_names
from quire.models.loading.gguf.family import Family
from quire.models.names import Rule

_SHARED_EXPERTS = {
    f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")
}
_LATENT, _NEXT = STATES["deepseek2"], STATES["qwen3next"]
_PICKED = replace(
    _LATENT,
    names={
        **_LATENT.names,
        "indexer.k_norm": "self_attn.indexer.k_norm",
        "indexer.proj": "self_attn.indexer.weights_proj",
        "indexer.attn_k": "self_attn.indexer.wk",
        "indexer.attn_q_b": "self_attn.indexer.wq_b",
    },
)
_QWEN35 = replace(
    _NEXT,
    architecture="Qwen3_5ForCausalLM",
    model_type="qwen3_5_text",
    keys={},
    names={
        **_NEXT.names,
        "ssm_alpha": "linear_attn.in_proj_a",
        "ssm_beta": "linear_attn.in_proj_b",
    },
    instead=(),
)
_EXPERT, _OURS = "model.layers.{layer}.experts.{expert}", "layers.{layer}.feed_forward.experts"

RECENT: dict[str, Family] = {
    "deepseek32": replace(
        _PICKED, architecture="DeepseekV32ForCausalLM", model_type="deepseek_v32"
    ),
    "glm-dsa": replace(_PICKED, architecture="GlmMoeDsaForCausalLM", model_type="glm_moe_dsa"),
    "kimi-linear": Family(
        "KimiLinearForCausalLM",
        model_type="kimi_linear",
        keys={
            "num_experts": "expert_count",
            "num_experts_per_token": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "num_shared_experts": "expert_shared_count",
            "first_k_dense_replace": "leading_dense_block_count",
            "routed_scaling_factor": "expert_weights_scale",
            "num_expert_group": "expert_group_count",
            "topk_group": "expert_group_used_count",
        },
        renamed={"max_position_embeddings": "model_max_length"},
        names={
            **{name: target for name, target in _LATENT.names.items() if name.startswith("attn_")},
            **{f"ssm_conv1d_{part}": f"self_attn.{part}_conv1d" for part in "qkv"},
            **{f"ssm_{one}": f"self_attn.{one}_proj" for one in ("f_a", "f_b", "g_a", "g_b")},
            "ssm_a": "self_attn.A_log",
            "ssm_beta": "self_attn.b_proj",
            "ssm_dt.bias": "self_attn.dt_bias",
            "ssm_norm": "self_attn.o_norm",
            "ffn_gate_inp": "block_sparse_moe.gate",
            "ffn_gate_exps": "block_sparse_moe.experts.{expert}.w1",
            "ffn_up_exps": "block_sparse_moe.experts.{expert}.w3",
            "ffn_down_exps": "block_sparse_moe.experts.{expert}.w2",
            "exp_probs_b.bias": "block_sparse_moe.gate.e_score_correction_bias",
            **{
                f"ffn_{part}_shexp": f"block_sparse_moe.shared_experts.{part}_proj"
                for part in ("gate", "up", "down")
            },
        },
        head_dim=False,
    ),
    "exaone-moe": Family(
        "ExaoneMoeForCausalLM",
        model_type="exaone_moe",
        keys={
            "num_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "num_shared_experts": "expert_shared_count",
            "first_k_dense_replace": "leading_dense_block_count",
            "routed_scaling_factor": "expert_weights_scale",
            "norm_topk_prob": "expert_weights_norm",
            "n_group": "expert_group_count",
            "topk_group": "expert_group_used_count",
            "sliding_window": "attention.sliding_window",
        },
        names={**_SHARED_EXPERTS, "exp_probs_b.bias": "mlp.e_score_correction_bias"},
    ),
    "jamba": Family(
        "JambaForCausalLM",
        keys={"num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        names={
            **mamba_names("mamba", ssm_x="x_proj", ssm_dt="dt_proj"),
            **{f"ssm_{part}_norm": f"mamba.{part}_layernorm" for part in ("dt", "b", "c")},
            "ffn_norm": "pre_ff_layernorm",
            "ffn_gate_inp": "feed_forward.router",
            **{f"ffn_{part}": f"feed_forward.{part}_proj" for part in ("gate", "up", "down")},
            **{f"ffn_{part}": f"feed_forward.{name}" for part, name in FLAT_EXPERTS},
        },
        top={"output_norm": "model.final_layernorm"},
        flags={"mamba_conv_bias": "ssm_conv1d.bias", "mamba_proj_bias": "ssm_in.bias"},
        head_dim=False,
        in_middle=("ssm_conv1d",),
    ),
    "qwen35": _QWEN35,
    "qwen35moe": replace(
        _QWEN35,
        architecture="Qwen3_5MoeForCausalLM",
        model_type="qwen3_5_moe_text",
        keys=_NEXT.keys,
    ),
    "gemma4": Family(
        "Gemma4ForCausalLM",
        model_type="gemma4_text",
        names={
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
            "post_ffw_norm_1": "post_feedforward_layernorm_1",
            "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
            "post_ffw_norm_2": "post_feedforward_layernorm_2",
            "layer_output_scale.weight": "layer_scalar",
            "inp_gate": "per_layer_input_gate",
            "proj": "per_layer_projection",
            "post_norm": "post_per_layer_input_norm",
            "ffn_gate_inp": "router.proj",
            "ffn_gate_inp.scale": "router.scale",
            "ffn_down_exps.scale": "router.per_expert_scale",
            "ffn_gate_up_exps": "experts.{expert}.gate_up_proj",
            "ffn_down_exps": "experts.{expert}.down_proj",
        },
        top={
            "per_layer_token_embd": "model.embed_tokens_per_layer",
            "per_layer_model_proj": "model.per_layer_model_projection",
            "per_layer_proj_norm": "model.per_layer_projection_norm",
        },
        instead=(
            Rule(f"{_EXPERT}.gate_up_proj.weight", f"{_OURS}.{{expert}}.gate_up.weight", (0, 1)),
            Rule(f"{_EXPERT}.down_proj.weight", f"{_OURS}.{{expert}}.down.weight"),
        ),
    ),
}
"""By `general.architecture`."""
