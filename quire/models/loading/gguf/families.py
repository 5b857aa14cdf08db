"""What each `general.architecture` of a GGUF file is elsewhere: its name, settings and names of tensors, as data.

`gguf.config` and `gguf.names` follow it. Source: the keys and tensors that llama.cpp's converter writes.
"""

from __future__ import annotations

from quire.models.loading.gguf.families_classic import CLASSIC
from quire.models.loading.gguf.families_recent import RECENT
from quire.models.loading.gguf.families_states import STATES
from quire.models.loading.gguf.family import Family

_EXPERTS = {
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
}
_ROUTED = {
    "n_routed_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "first_k_dense_replace": "leading_dense_block_count",
    "routed_scaling_factor": "expert_weights_scale",
    "norm_topk_prob": "expert_weights_norm",
    "n_group": "expert_group_count",
    "topk_group": "expert_group_used_count",
}
_SHARED_EXPERTS = {
    f"ffn_{part}_shexp": f"mlp.shared_experts.{part}_proj" for part in ("gate", "up", "down")
}
_BIASED_ROUTER = {**_SHARED_EXPERTS, "exp_probs_b.bias": "mlp.gate.e_score_correction_bias"}
_SPLIT = {f"ffn_{part}_exps": f"experts.{{expert}}.{part}_proj" for part in ("gate", "up", "down")}
_CAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "sliding_window": "attention.sliding_window",
}
_SANDWICH = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_MULTIPLIERS = {
    "logits_scaling": "logit_scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale",
}
_ALL_BIASES = {
    "attention_bias": "attn_q.bias",
    "attention_out_bias": "attn_output.bias",
    "mlp_bias": "ffn_up.bias",
}
_TWO_BIASES = {"attention_bias": "attn_q.bias", "mlp_bias": "ffn_up.bias"}

FAMILIES: dict[str, Family] = {
    "llama": Family(
        "LlamaForCausalLM",
        with_experts="MixtralForCausalLM",
        keys={"num_local_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        names={
            "ffn_gate_inp": "block_sparse_moe.gate",
            "ffn_gate_exps": "block_sparse_moe.experts.{expert}.w1",
            "ffn_up_exps": "block_sparse_moe.experts.{expert}.w3",
            "ffn_down_exps": "block_sparse_moe.experts.{expert}.w2",
        },
        in_pairs=True,
    ),
    "qwen2": Family("Qwen2ForCausalLM"),
    "qwen2moe": Family(
        "Qwen2MoeForCausalLM",
        keys={
            **_EXPERTS,
            "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
        },
    ),
    "qwen3": Family("Qwen3ForCausalLM", top={"cls.output": "score"}),
    "qwen3moe": Family("Qwen3MoeForCausalLM", keys=_EXPERTS, constants={"norm_topk_prob": True}),
    "gemma": Family("GemmaForCausalLM", norms_whole=True),
    "gemma2": Family("Gemma2ForCausalLM", keys=_CAPS, names=_SANDWICH, norms_whole=True),
    "gemma3": Family("Gemma3ForCausalLM", keys=_CAPS, names=_SANDWICH, norms_whole=True),
    "gemma-embedding": Family(
        "Gemma3TextModel",
        model_type="gemma3_text",
        keys=_CAPS,
        constants={"use_bidirectional_attention": True},
        names=_SANDWICH,
        norms_whole=True,
    ),
    "gemma3n": Family(
        "Gemma3nForCausalLM",
        model_type="gemma3n_text",
        keys={
            "final_logit_softcapping": "final_logit_softcapping",
            "sliding_window": "attention.sliding_window",
            "altup_num_inputs": "altup.num_inputs",
            "altup_active_idx": "altup.active_idx",
            "hidden_size_per_layer_input": "embedding_length_per_layer_input",
            "num_kv_shared_layers": "attention.shared_kv_layers",
        },
        names={
            **_SANDWICH,
            "altup_correct_scale.weight": "altup.correct_output_scale",
            "altup_correct_coef": "altup.correction_coefs",
            "altup_predict_coef": "altup.prediction_coefs",
            "altup_router": "altup.modality_router",
            "altup_router_norm": "altup.router_norm",
            "laurel_l": "laurel.linear_left",
            "laurel_r": "laurel.linear_right",
            "laurel_post_norm": "laurel.post_laurel_norm",
            "inp_gate": "per_layer_input_gate",
            "proj": "per_layer_projection",
            "post_norm": "post_per_layer_input_norm",
        },
        top={
            "altup_proj": "model.altup_projections.{expert}",
            "altup_unembd_proj": "model.altup_unembed_projections.{expert}",
            "per_layer_token_embd": "model.embed_tokens_per_layer",
            "per_layer_model_proj": "model.per_layer_model_projection",
            "per_layer_proj_norm": "model.per_layer_projection_norm",
        },
    ),
    "llama4": Family(
        "Llama4ForCausalLM",
        model_type="llama4_text",
        keys={
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "interleave_moe_layer_step": "interleave_moe_layer_step",
            "intermediate_size": "expert_feed_forward_length",
        },
        renamed={"intermediate_size": "intermediate_size_mlp"},
        names={
            **_SPLIT,
            "ffn_gate_inp": "feed_forward.router",
            **{f"ffn_{part}": f"feed_forward.{part}_proj" for part in ("gate", "up", "down")},
            **{
                f"ffn_{part}_shexp": f"feed_forward.shared_expert.{part}_proj"
                for part in ("gate", "up", "down")
            },
        },
        flags={"attention_bias": "attn_q.bias"},
        split_experts=True,
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        keys={"sliding_window": "attention.sliding_window"},
        names={"ffn_up": "mlp.gate_up_proj"},
        head_dim=False,
    ),
    "olmo2": Family("Olmo2ForCausalLM", names=_SANDWICH, head_dim=False),
    "granite": Family("GraniteForCausalLM", keys=_MULTIPLIERS, in_pairs=True, head_dim=False),
    "granitemoe": Family(
        "GraniteMoeForCausalLM",
        keys={
            **_MULTIPLIERS,
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
        },
        names={**_SPLIT, "ffn_gate_inp": "block_sparse_moe.router.layer"},
        in_pairs=True,
        head_dim=False,
        split_experts=True,
    ),
    "gpt-oss": Family(
        "GptOssForCausalLM",
        model_type="gpt_oss",
        keys={
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "sliding_window": "attention.sliding_window",
        },
        names={
            **_SPLIT,
            "post_attention_norm": "post_attention_layernorm",
            "ffn_gate_inp": "mlp.router",
            "attn_sinks.weight": "self_attn.sinks",
        },
        split_experts=True,
    ),
    "internlm2": Family("LlamaForCausalLM", model_type="llama", in_pairs=True),
    "xverse": Family("LlamaForCausalLM", model_type="llama", in_pairs=True),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        constants={"no_rope_layer_interval": 4},
        flags=_TWO_BIASES,
        in_pairs=True,
        head_dim=False,
    ),
    "seed_oss": Family(
        "SeedOssForCausalLM",
        names={"post_attention_norm": "post_attention_layernorm"},
        flags=_ALL_BIASES,
    ),
    "arcee": Family("ArceeForCausalLM", flags=_TWO_BIASES, in_pairs=True),
    "ernie4_5": Family("Ernie4_5ForCausalLM", flags={"use_bias": "attn_q.bias"}),
    "exaone4": Family(
        "Exaone4ForCausalLM",
        keys={"sliding_window": "attention.sliding_window"},
        names=_SANDWICH,
    ),
    "glm4": Family(
        "Glm4ForCausalLM",
        names={
            "ffn_up": "mlp.gate_up_proj",
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
        },
        flags={"attention_bias": "attn_q.bias"},
    ),
    "hunyuan-dense": Family(
        "HunYuanDenseV1ForCausalLM",
        model_type="hunyuan_v1_dense",
        names={
            "attn_q_norm": "self_attn.query_layernorm",
            "attn_k_norm": "self_attn.key_layernorm",
        },
        flags={"attention_bias": "attn_q.bias"},
    ),
    "minicpm": Family("MiniCPMForCausalLM", in_pairs=True, head_dim=False),
    "olmo": Family("OlmoForCausalLM", eps="", in_pairs=True, head_dim=False),
    "olmoe": Family(
        "OlmoeForCausalLM",
        keys={"num_experts": "expert_count", "num_experts_per_tok": "expert_used_count"},
        head_dim=False,
    ),
    "nemotron": Family("NemotronForCausalLM", eps="norm_eps", flags=_TWO_BIASES, norms_whole=True),
    "command-r": Family(
        "CohereForCausalLM",
        model_type="cohere",
        eps="layer_norm_eps",
        keys={"logit_scale": "logit_scale"},
        flags={"use_qk_norm": "attn_q_norm.weight", "attention_bias": "attn_q.bias"},
        head_dim=False,
    ),
    "cohere2": Family(
        "Cohere2ForCausalLM",
        eps="layer_norm_eps",
        keys={"logit_scale": "logit_scale", "sliding_window": "attention.sliding_window"},
        flags={"attention_bias": "attn_q.bias"},
    ),
    "dots1": Family("Dots1ForCausalLM", keys=_ROUTED, names=_BIASED_ROUTER),
    "glm4moe": Family(
        "Glm4MoeForCausalLM",
        model_type="glm4_moe",
        keys=_ROUTED,
        names={**_BIASED_ROUTER, "post_attention_norm": "post_attention_layernorm"},
        flags={"use_qk_norm": "attn_q_norm.weight", "attention_bias": "attn_q.bias"},
    ),
    "ernie4_5-moe": Family(
        "Ernie4_5_MoeForCausalLM",
        model_type="ernie4_5_moe",
        keys={
            "moe_num_experts": "expert_count",
            "moe_k": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "moe_num_shared_experts": "expert_shared_count",
            "moe_layer_start_index": "leading_dense_block_count",
            "moe_layer_interval": "interleave_moe_layer_step",
        },
        names={
            **_SHARED_EXPERTS,
            "exp_probs_b.bias": "mlp.moe_statics.e_score_correction_bias",
        },
        flags={"use_bias": "attn_q.bias"},
    ),
    "minimax-m2": Family(
        "MiniMaxM2ForCausalLM",
        model_type="minimax_m2",
        keys={
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "rotary_dim": "rope.dimension_count",
        },
        names={
            "ffn_gate_inp": "block_sparse_moe.gate",
            "ffn_gate_exps": "block_sparse_moe.experts.{expert}.w1",
            "ffn_up_exps": "block_sparse_moe.experts.{expert}.w3",
            "ffn_down_exps": "block_sparse_moe.experts.{expert}.w2",
            "exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias",
        },
    ),
    "bailingmoe2": Family(
        "BailingMoeV2ForCausalLM",
        model_type="bailing_moe",
        keys={
            **{key: name for key, name in _ROUTED.items() if not key.startswith("n_")},
            "num_experts": "expert_count",
            "num_shared_experts": "expert_shared_count",
            "n_group": "expert_group_count",
        },
        constants={"score_function": "sigmoid"},
        names={
            **_SHARED_EXPERTS,
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "attn_q_norm": "attention.query_layernorm",
            "attn_k_norm": "attention.key_layernorm",
            "exp_probs_b.bias": "mlp.gate.expert_bias",
        },
        top={"token_embd": "model.word_embeddings"},
        flags={"use_qkv_bias": "attn_qkv.bias", "use_bias": "attn_output.bias"},
    ),
    "deepseek": Family(
        "DeepseekForCausalLM",
        keys={
            "n_routed_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
            "n_shared_experts": "expert_shared_count",
            "first_k_dense_replace": "leading_dense_block_count",
            "routed_scaling_factor": "expert_weights_scale",
        },
        constants={"norm_topk_prob": False},
        names=_SHARED_EXPERTS,
        in_pairs=True,
        head_dim=False,
    ),
    "exaone": Family(
        "ExaoneForCausalLM",
        eps="layer_norm_epsilon",
        renamed={"num_hidden_layers": "num_layers"},
        names={
            "attn_norm": "ln_1",
            "attn_q": "attn.attention.q_proj",
            "attn_k": "attn.attention.k_proj",
            "attn_v": "attn.attention.v_proj",
            "attn_output": "attn.attention.out_proj",
            "ffn_norm": "ln_2",
            "ffn_gate": "mlp.c_fc_0",
            "ffn_up": "mlp.c_fc_1",
            "ffn_down": "mlp.c_proj",
        },
        top={"token_embd": "transformer.wte", "output_norm": "transformer.ln_f"},
        layers="transformer.h",
    ),
    "apertus": Family(
        "ApertusForCausalLM",
        names={"attn_norm": "attention_layernorm", "ffn_norm": "feedforward_layernorm"},
        settings={
            f"mlp.act_fn.{name}": (f"xielu.{name}", (1,) if name.startswith("alpha") else ())
            for name in ("alpha_p", "alpha_n", "beta", "eps")
        },
    ),
    "phimoe": Family(
        "PhimoeForCausalLM",
        keys={
            "num_local_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "sliding_window": "attention.sliding_window",
        },
        names={
            "ffn_gate_inp": "block_sparse_moe.gate",
            "ffn_gate_exps": "block_sparse_moe.experts.{expert}.w1",
            "ffn_up_exps": "block_sparse_moe.experts.{expert}.w3",
            "ffn_down_exps": "block_sparse_moe.experts.{expert}.w2",
        },
        flags={"attention_bias": "attn_q.bias"},
        head_dim=False,
    ),
    **CLASSIC,
    **STATES,
    **RECENT,
}
"""By `general.architecture`."""
