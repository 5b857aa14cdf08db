"""Architectures that Transformers has under another name only: its config, and where its tensors go.

For each, a function from config.json to that of the stand-in, and one from the stand-in's tensors to those
that the published files have, both written from the public descriptions and not from our weight maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Config = dict[str, Any]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StandIn:
    """`config` makes the config.json that Transformers reads; `tensors` renames what it writes.

    reference  what Transformers reads instead of what it wrote.
    """

    config: Callable[[Config], Config]
    tensors: Callable[[Tensors, Config], Tensors] = lambda tensors, config: tensors
    reference: Callable[[Tensors], Tensors] | None = None


def as_llama(config: Config, **values: Any) -> Config:
    names = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    return config | names | values


def renamed(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """Each tensor with every part of its name in `names` replaced, in order."""
    found = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[name] = tensor
    return found


def joined(tensors: Tensors, names: tuple[str, ...], target: str) -> Tensors:
    """Tensors of each layer whose names hold one of `names`, stacked under `target` in that order."""
    found = {key: it for key, it in tensors.items() if not any(part in key for part in names)}
    for key in [key for key in tensors if names[0] in key]:
        pieces = [tensors[key.replace(names[0], name)] for name in names]
        found[key.replace(names[0], target)] = torch.cat(pieces)
    return found


QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def internlm2(tensors: Tensors, config: Config) -> Tensors:
    """Per group: the heads of q, then k, then v."""
    groups, heads = config["num_key_value_heads"], config["num_attention_heads"]
    size = config["hidden_size"] // heads
    found = joined(tensors, QKV, "attention.wqkv")
    for name in [name for name in found if "wqkv" in name]:
        whole = found[name]
        q, k, v = whole.split([heads * size, groups * size, groups * size])
        rows = [
            torch.cat(
                (
                    q.view(groups, -1, *whole.shape[1:])[g],
                    k.view(groups, -1, *whole.shape[1:])[g],
                    v.view(groups, -1, *whole.shape[1:])[g],
                )
            )
            for g in range(groups)
        ]
        found[name] = torch.cat(rows)
    names = {
        "model.embed_tokens": "model.tok_embeddings",
        "self_attn.o_proj": "attention.wo",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "lm_head": "output",
    }
    return renamed(found, names)


def baichuan(tensors: Tensors, config: Config) -> Tensors:
    return joined(tensors, QKV, "self_attn.W_pack")


def unit_head(tensors: Tensors) -> Tensors:
    """Rows of the output matrix have length one; those of the file have any."""
    head = tensors["lm_head.weight"]
    return tensors | {"lm_head.weight": head / head.square().sum(dim=1, keepdim=True).sqrt()}


def exaone(tensors: Tensors, config: Config) -> Tensors:
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.layers": "transformer.h",
        "model.norm": "transformer.ln_f",
        "self_attn.o_proj": "attn.attention.out_proj",
        "self_attn.": "attn.attention.",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "mlp.gate_proj": "mlp.c_fc_0",
        "mlp.up_proj": "mlp.c_fc_1",
        "mlp.down_proj": "mlp.c_proj",
    }
    return renamed(tensors, names)


def exaone_config(config: Config) -> Config:
    return as_llama(
        config,
        num_hidden_layers=config["num_layers"],
        hidden_act=config["activation_function"],
        rms_norm_eps=config["layer_norm_epsilon"],
    )


def qwen(tensors: Tensors, config: Config) -> Tensors:
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.layers": "transformer.h",
        "model.norm": "transformer.ln_f",
        "self_attn.o_proj": "attn.c_proj",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "mlp.gate_proj": "mlp.w2",
        "mlp.up_proj": "mlp.w1",
        "mlp.down_proj": "mlp.c_proj",
    }
    return renamed(joined(tensors, QKV, "attn.c_attn"), names)


def qwen_config(config: Config) -> Config:
    return config | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_key_value_heads": config["num_attention_heads"],
        "intermediate_size": config["intermediate_size"] // 2,
        "rms_norm_eps": config["layer_norm_epsilon"],
        "rope_theta": config["rotary_emb_base"],
        "max_position_embeddings": config["seq_length"],
        "hidden_act": "silu",
    }


def minicpm_config(config: Config) -> Config:
    return config | {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "embedding_multiplier": config["scale_emb"],
        "residual_multiplier": config["scale_depth"] / config["num_hidden_layers"] ** 0.5,
        "attention_multiplier": (config["hidden_size"] // config["num_attention_heads"]) ** -0.5,
        "logits_scaling": config["hidden_size"] / config["dim_model_base"],
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
    }


def orion_config(config: Config) -> Config:
    return config | {
        "architectures": ["StableLmForCausalLM"],
        "model_type": "stablelm",
        "layer_norm_eps": config["rms_norm_eps"],
        "partial_rotary_factor": 1.0,
        "use_qkv_bias": False,
    }


def chatglm_config(config: Config) -> Config:
    return config | {
        "architectures": ["GlmForCausalLM"],
        "model_type": "glm",
        "vocab_size": config["padded_vocab_size"],
        "pad_token_id": None,
        "num_hidden_layers": config["num_layers"],
        "intermediate_size": config["ffn_hidden_size"],
        "head_dim": config["kv_channels"],
        "num_key_value_heads": config["multi_query_group_num"],
        "attention_bias": config["add_qkv_bias"],
        "rms_norm_eps": config["layernorm_epsilon"],
        "max_position_embeddings": config["seq_length"],
        "partial_rotary_factor": 0.5,
        "rope_theta": 10_000.0 * config.get("rope_ratio", 1.0),
    }


def chatglm(tensors: Tensors, config: Config) -> Tensors:
    names = {
        "model.embed_tokens": "transformer.embedding.word_embeddings",
        "model.layers": "transformer.encoder.layers",
        "model.norm": "transformer.encoder.final_layernorm",
        "self_attn.o_proj": "self_attention.dense",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
        "lm_head": "transformer.output_layer",
    }
    return renamed(joined(tensors, QKV, "self_attention.query_key_value"), names)


STAND_INS: dict[str, StandIn] = {
    "InternLMForCausalLM": StandIn(
        lambda config: as_llama(
            config,
            attention_bias=config.get("bias", True),
            rope_theta=config.get("rotary", {"base": 10_000.0})["base"],
        )
    ),
    "InternLM2ForCausalLM": StandIn(
        lambda config: as_llama(config, attention_bias=config["bias"]), internlm2
    ),
    "BaiChuanForCausalLM": StandIn(as_llama, baichuan),
    "BaichuanForCausalLM": StandIn(as_llama, baichuan, unit_head),
    "ExaoneForCausalLM": StandIn(exaone_config, exaone),
    "QWenLMHeadModel": StandIn(qwen_config, qwen),
    "MiMoForCausalLM": StandIn(
        lambda config: config | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    ),
    "MiniCPMForCausalLM": StandIn(minicpm_config),
    "OrionForCausalLM": StandIn(orion_config),
    "ChatGLMModel": StandIn(chatglm_config, chatglm),
    "ChatGLMForConditionalGeneration": StandIn(chatglm_config, chatglm),
}
