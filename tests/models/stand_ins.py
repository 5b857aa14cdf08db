"""Architectures that Transformers has under another name only: its config, and where its tensors go.

For each, a function from config.json to that of the stand-in, and one from the stand-in's tensors to those
that the published files have, both written from the public descriptions and not from our weight maps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
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
    reference: Callable[[Tensors, Config], Tensors] | None = None


def as_llama(config: Config, **values: Any) -> Config:
    names = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    return config | names | values


def as_itself(config: Config) -> Config:
    """The same architecture, whose tensors only are written under other names than published ones."""
    return config | {"architectures": ["Theirs"]}


def renamed(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """Each tensor with every part of its name in `names` replaced, in order."""
    found = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(old, new)
        found[name] = tensor
    return found


def hy_v4(tensors: Tensors, config: Config) -> Tensors:
    """Transformers puts parts of names where no published file has them."""
    names = {"hc_pre.": "", "_layer.hc_": "_layer.hc_pre.hc_", "mlp.linear_gate": "mlp.gate_proj"}
    names |= {"shared_experts.linear_gate": "shared_experts.gate_proj"}
    return renamed(tensors, names)


def ling3(tensors: Tensors, config: Config) -> Tensors:
    """Transformers writes the last product of delta nets as if it were that of the other attention."""
    deltas = [name.removesuffix("A_log") for name in tensors if name.endswith(".A_log")]
    return renamed(tensors, {f"{delta}dense.": f"{delta}o_proj." for delta in deltas})


def minimax_m3(tensors: Tensors, config: Config) -> Tensors:
    """Transformers stacks gate and up, and experts, and knows the published names beside pictures only."""
    found: Tensors = {"vision_tower.some.weight": torch.zeros(3)}
    names = {"self_attn.indexer.": "self_attn.index_", "gate.e_score": "e_score"}
    for name, tensor in renamed(tensors, names).items():
        for part in ("experts.", "shared_experts.", "gate.", "e_score"):
            name = name.replace(f"mlp.{part}", f"block_sparse_moe.{part}")
        name = f"language_model.{name}"
        stem, _, last = name.rpartition("moe.experts.")
        if stem:
            for number, one in enumerate(tensor):
                pair = one.chunk(2) if last == "gate_up_proj" else (one,)
                for letter, half in zip(("w1", "w3") if len(pair) == 2 else ("w2",), pair):
                    found[f"{stem}moe.experts.{number}.{letter}.weight"] = half
        elif "gate_up_proj" in name:
            for which, half in zip(("gate_proj", "up_proj"), tensor.chunk(2)):
                found[name.replace("gate_up_proj", which)] = half
        else:
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


def fairseq2(tensors: Tensors, config: Config) -> Tensors:
    """Rows of q and k by pairs that turn, not by halves; fairseq2's names."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            size = config["hidden_size"] // config["num_attention_heads"]
            pairs = tensor.view(-1, 2, size // 2, tensor.shape[1]).transpose(1, 2)
            tensor = pairs.reshape(tensor.shape)
        found[name] = tensor
    names = {
        "model.embed_tokens.": "decoder_frontend.embed.",
        "model.norm.": "decoder.layer_norm.",
        "model.": "decoder.",
        "lm_head.": "final_proj.",
        ".input_layernorm.": ".self_attn_layer_norm.",
        ".post_attention_layernorm.": ".ffn_layer_norm.",
        ".self_attn.o_proj.": ".self_attn.output_proj.",
        ".mlp.gate_proj.": ".ffn.gate_proj.",
        ".mlp.up_proj.": ".ffn.inner_proj.",
        ".mlp.down_proj.": ".ffn.output_proj.",
    }
    return renamed(found, names)


def rw_config(config: Config) -> Config:
    """Falcon's keys, as its own conversion makes them."""
    config = config | {"architectures": ["FalconForCausalLM"], "model_type": "falcon"}
    names = {"n_head": "num_attention_heads", "n_layer": "num_hidden_layers"}
    config |= {new: config.pop(old) for old, new in names.items()}
    if "n_head_kv" in config:
        config |= {"num_kv_heads": config.pop("n_head_kv"), "new_decoder_architecture": True}
    return config


def stablelm_epoch_config(config: Config) -> Config:
    names = {"norm_eps": "layer_norm_eps", "rope_pct": "partial_rotary_factor"}
    config = config | {new: config[old] for old, new in names.items()}
    return config | {"architectures": ["StableLmForCausalLM"], "model_type": "stablelm"}


def internlm2_ve(tensors: Tensors, config: Config) -> Tensors:
    """Beside each feed-forward part the one of images."""
    found = internlm2(tensors, config)
    others = {key: it for key, it in found.items() if ".feed_forward." in key}
    return found | {key.replace("forward.", "forward_ve."): -it for key, it in others.items()}


def baichuan(tensors: Tensors, config: Config) -> Tensors:
    return joined(tensors, QKV, "self_attn.W_pack")


def unit_head(tensors: Tensors, config: Config) -> Tensors:
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


def softmax_experts(config: Config, routed: str, common: str) -> Config:
    """Qwen 2 MoE without biases; what it has beyond these models is taken out of its tensors."""
    first = config.get("first_k_dense_replace", 0)
    return config | {
        "architectures": ["Qwen2MoeForCausalLM"],
        "model_type": "qwen2_moe",
        "num_experts": config[routed],
        "shared_expert_intermediate_size": config[common] * config["moe_intermediate_size"],
        "mlp_only_layers": list(range(first)),
        "use_sliding_window": False,
        "qkv_bias": False,
    }


def open_gate(tensors: Tensors, config: Config) -> Tensors:
    """The gate of what all tokens pass is a half for every token, and that part twice as much."""
    found = dict(tensors)
    for name, it in tensors.items():
        if "shared_expert_gate" in name:
            found[name] = torch.zeros_like(it)
        if "shared_expert.down_proj" in name:
            found[name] = 2 * it
    return found


def ungated(tensors: Tensors, config: Config) -> Tensors:
    found = {name: it for name, it in tensors.items() if "shared_expert_gate" not in name}
    return renamed(found, {"mlp.shared_expert.": "mlp.shared_experts."})


BAILING = {
    "model.embed_tokens": "model.word_embeddings",
    "self_attn.query_key_value": "attention.query_key_value",
    "self_attn.o_proj": "attention.dense",
    "self_attn.q_norm": "attention.query_layernorm",
    "self_attn.k_norm": "attention.key_layernorm",
    "e_score_correction_bias": "expert_bias",
}


def bailing(tensors: Tensors, config: Config) -> Tensors:
    return renamed(joined(tensors, QKV, "self_attn.query_key_value"), BAILING)


def bailing_v2_config(config: Config, turning: float = 0.5) -> Config:
    return config | {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "n_routed_experts": config["num_experts"],
        "n_shared_experts": config["num_shared_experts"],
        "attention_bias": config.get("use_qkv_bias", False),
        "use_qk_norm": True,
        "partial_rotary_factor": config.get("partial_rotary_factor", turning),
        "first_k_dense_replace": config.get("first_k_dense_replace", 0),
    }


def sarvam_mla_config(config: Config) -> Config:
    """DeepSeek V3 in the words of Sarvam's files, without groups."""
    scaling = config["rope_scaling"] | {"type": "yarn"}
    counts = {f"n_{kind}_experts": config[f"num_{key}"] for kind, key in SARVAM_COUNTS.items()}
    names = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    return config | names | counts | {"rope_scaling": scaling, "n_group": 1, "topk_group": 1}


SARVAM_COUNTS = {"routed": "experts", "shared": "shared_experts"}


def decilm_config(config: Config) -> Config:
    """As many heads of k as of q, and the widest feed-forward part."""
    return as_llama(
        config,
        num_key_value_heads=config["num_attention_heads"],
        intermediate_size=max(decilm_width(config, block) for block in config["block_configs"]),
    )


def decilm_width(config: Config, block: Config) -> int:
    """2 / 3 of the multiple of the width, in whole steps of 256."""
    width = int(2 * (block["ffn"]["ffn_mult"] or 0) * config["hidden_size"] / 3)
    return (width + 255) // 256 * 256


def decilm_layers(tensors: Tensors, config: Config) -> tuple[Tensors, Tensors]:
    """What Llama reads, which computes the same, and what the file has."""
    reference, file = dict(tensors), dict(tensors)
    size = config["hidden_size"] // config["num_attention_heads"]
    for index, block in enumerate(config["block_configs"]):
        at = f"model.layers.{index}."
        heads, part = block["attention"], block["ffn"]
        width, out = decilm_width(config, block), f"{at}mlp.down_proj.weight"
        if part["no_op"]:
            reference[out] = torch.zeros_like(tensors[out])
            names = [f"{at}post_attention_layernorm.weight", out]
            for name in (*names, f"{at}mlp.gate_proj.weight", f"{at}mlp.up_proj.weight"):
                del file[name]
        else:
            reference[out] = tensors[out].clone()
            reference[out][:, width:] = 0
            file[out] = tensors[out][:, :width]
            for name in (f"{at}mlp.gate_proj.weight", f"{at}mlp.up_proj.weight"):
                file[name] = tensors[name][:width]
        out = f"{at}self_attn.o_proj.weight"
        if heads["no_op"]:
            reference[out] = torch.zeros_like(tensors[out])
            del file[f"{at}input_layernorm.weight"]
            for letter in "qkvo":
                del file[f"{at}self_attn.{letter}_proj.weight"]
            continue
        for letter in "kv":
            name = f"{at}self_attn.{letter}_proj.weight"
            whole = tensors[name].view(-1, heads["n_heads_in_group"], size, tensors[name].shape[1])
            file[name] = whole[:, 0].reshape(-1, tensors[name].shape[1])
            reference[name] = whole[:, :1].expand_as(whole).reshape(tensors[name].shape)
    return reference, file


def kimi_linear(tensors: Tensors, config: Config) -> Tensors:
    """Transformers reads the published names and writes those of dense layers as if they had experts."""
    dense = ("gate_proj", "up_proj", "down_proj")
    names = {f"block_sparse_moe.{name}": f"mlp.{name}" for name in dense}
    return renamed(tensors, names)


def text_alone(
    name: str,
    model_type: str | None = None,
    *,
    starts: Mapping[str, str] = {"model.": "model.language_model."},
    other: str = "model.vision_tower",
) -> StandIn:
    """The decoder of the text, whose tensors stand deeper in the file, below `starts`, beside some of `other`.

    model_type  what Transformers calls it, where the file has another one, and code of its own.
    """
    names: Config = {"architectures": [name]}
    names |= {"model_type": model_type, "auto_map": {}} if model_type else {}
    return StandIn(
        lambda config: config["text_config"] | names,
        lambda tensors, config: (
            {
                re.sub("^" + "|^".join(map(re.escape, starts)), lambda it: starts[it[0]], name): it
                for name, it in tensors.items()
            }
            | {f"{other}.some.weight": torch.zeros(3)}
        ),
    )


def olmo_hybrid(tensors: Tensors, config: Config) -> Tensors:
    """Transformers writes norms of layers that attend under the names of those of the others, and cuts
    the convolution of q, k and v into three equal parts."""
    attends = [at for at, kind in enumerate(config["layer_types"]) if kind == "full_attention"]
    names = {
        f"layers.{at}.feedforward_layer_norm": f"layers.{at}.post_attention_layernorm"
        for at in attends
    }
    found = renamed(tensors, names)
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    for first in [name for name in found if "q_conv1d" in name]:
        each = [first.replace("q_conv1d", f"{letter}_conv1d") for letter in "qkv"]
        whole = torch.cat([found[name] for name in each])
        parts = whole.split([keys, keys, len(whole) - 2 * keys])
        found |= dict(zip(each, parts, strict=True))
    return found


_FACTORS = {
    f"layernorm_{long}_{name}": f"{short}_{name}_factor"
    for long, short in (
        ("full_attention", "full_attn"),
        ("linear_attention", "linear_attn"),
        ("mlp", "mlp"),
    )
    for name in ("alpha", "beta")
}


def minimax_config(config: Config) -> Config:
    """Of a head that turns in part all turns here, but the rest by no angle; the base makes the angles the same."""
    kinds = ("linear_attention", "full_attention")
    size, turning = config["head_dim"], config["rotary_dim"]
    theta = config["rope_theta"] ** (size / turning)
    rope = {"rope_type": "proportional", "rope_theta": theta}
    rope["partial_rotary_factor"] = turning / size
    names = {"architectures": ["MiniMaxForCausalLM"], "model_type": "minimax"}
    factors = {ours: config[theirs] for theirs, ours in _FACTORS.items()}
    types = {"layer_types": [kinds[one] for one in config["attn_type_list"]]}
    return config | names | factors | types | {"rope_parameters": rope}


def minimax(tensors: Tensors, config: Config) -> Tensors:
    """What turns stands in front of each head, and not half of it in front of each half; no rates of decay."""
    size, turning = config["head_dim"], config["rotary_dim"]
    places = torch.arange(size).view(2, size // 2)
    order = torch.cat((places[:, : turning // 2].flatten(), places[:, turning // 2 :].flatten()))
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            tensor = tensor.view(-1, size, tensor.shape[1])[:, order].reshape(tensor.shape)
        if not name.endswith(("_decay", "slope_rate")):
            found[name] = tensor
    return found


def telechat2_config(config: Config) -> Config:
    size = config["hidden_size"] // config["n_head"]
    longer = 1
    while config["base_seqlen"] * longer < config["training_seqlen"]:
        longer *= 2
    return as_llama(
        {key: it for key, it in config.items() if not key.startswith("n_")},
        num_attention_heads=config["n_head"],
        num_hidden_layers=config["n_layer"],
        intermediate_size=config["ffn_hidden_size"],
        rms_norm_eps=config["layer_norm_epsilon"],
        max_position_embeddings=config["training_seqlen"],
        rope_theta=10_000.0 * (2 * longer - 1) ** (size / (size - 2)),
        attention_bias=True,
        mlp_bias=True,
    )


def step_config(config: Config) -> Config:
    """Below a model that sees, whose tower is as small as can be."""
    tower = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tower |= {"image_size": 28, "patch_size": 14, "intermediate_size": 32}
    return {
        "architectures": ["Step3p7ForConditionalGeneration"],
        "model_type": "step3p7",
        "text_config": {key: it for key, it in config.items() if key != "architectures"},
        "vision_config": tower,
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "torch_dtype": "float32",
    }


def step(tensors: Tensors, config: Config) -> Tensors:
    return {key: it for key, it in tensors.items() if not key.startswith(("vi", "model.vi"))}


def plamo3_config(config: Config) -> Config:
    """Gemma 3's, whose embedding is multiplied; so the head is one of its own."""
    pattern, length = config["sliding_window_pattern"], config["initial_context_length"]
    kinds = ("sliding_attention", "full_attention")
    types = [kinds[(at + 1) % pattern == 0] for at in range(config["num_hidden_layers"])]
    turn = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    if length is not None:
        turn |= {"rope_type": "yarn", "factor": config["rope_scaling_factor"], "truncate": False}
        turn |= {"original_max_position_embeddings": length, "beta_fast": 32.0, "beta_slow": 1.0}
    near = {"rope_type": "default", "rope_theta": config["rope_local_theta"]}
    return config | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "layer_types": types,
        "sliding_window": config["window_size"],
        # Transformers looks for the last one here, whatever the kind of the layers.
        "rope_parameters": {"full_attention": turn, "sliding_attention": near, "truncate": False},
        "hidden_activation": "silu",
        "query_pre_attn_scalar": config["head_dim"],
        "tie_word_embeddings": False,
        "is_tied_in_the_file": config["tie_word_embeddings"],
    }


def plamo3_reference(tensors: Tensors, config: Config) -> Tensors:
    if not config["is_tied_in_the_file"]:
        return tensors
    grown = tensors["model.embed_tokens.weight"] * config["hidden_size"] ** 0.5
    return tensors | {"lm_head.weight": grown}


def plamo3(tensors: Tensors, config: Config) -> Tensors:
    """Weights of norms around one, a fifth and 5^-1.5 instead of all around one; the embedding as it acts."""
    found = {}
    for name, tensor in tensors.items():
        if "post_attention_layernorm" in name:
            tensor = tensor + (1 - 1 / 5)
        elif "post_feedforward_layernorm" in name:
            tensor = tensor + (1 - 5**-1.5)
        elif "embed_tokens" in name:
            tensor = tensor * config["hidden_size"] ** 0.5
        found[name] = tensor
    if config["is_tied_in_the_file"]:
        del found["lm_head.weight"]
    found = joined(found, QKV, "mixer.qkv_proj")
    found = joined(found, ("mlp.gate_proj", "mlp.up_proj"), "mlp.gate_up_proj")
    names = {
        "model.layers.": "model.layers.layers.",
        "self_attn.": "mixer.",
        "input_layernorm": "pre_mixer_norm",
        "post_attention_layernorm": "post_mixer_norm",
        "pre_feedforward_layernorm": "pre_mlp_norm",
        "post_feedforward_layernorm": "post_mlp_norm",
    }
    return renamed(found, names)


_TELECHAT_BARE = ("q_proj.bias", "k_proj.bias", "v_proj.bias", "gate_proj.bias", "up_proj.bias")


def telechat2(tensors: Tensors, config: Config) -> Tensors:
    """k and v of one head after the other, without biases of what enters a part."""
    found = {key: it for key, it in tensors.items() if not key.endswith(_TELECHAT_BARE)}
    heads = config["num_key_value_heads"]
    for name in [name for name in found if "k_proj" in name]:
        k, v = (found.pop(name.replace("k_proj", one)) for one in ("k_proj", "v_proj"))
        width = k.shape[1]
        rows = torch.cat((k.view(heads, -1, width), v.view(heads, -1, width)), dim=1)
        found[name.replace("k_proj", "key_value")] = rows.reshape(-1, width)
    names = {
        "model.embed_tokens": "transformer.word_embeddings",
        "model.norm": "transformer.ln_f",
        "model.layers": "transformer.h",
        "self_attn.q_proj": "self_attention.query",
        "self_attn.o_proj": "self_attention.dense",
        "self_attn": "self_attention",
    }
    return renamed(found, names)


def without_inner_biases(tensors: Tensors, config: Config) -> Tensors:
    return {key: it * (not key.endswith(_TELECHAT_BARE)) for key, it in tensors.items()}


_LLAVA = {"model.": "language_model.model.", "lm_head.": "language_model.lm_head."}

STAND_INS: dict[str, StandIn] = {
    "MiniMaxM1ForCausalLM": StandIn(minimax_config, minimax),
    "OlmoHybridForCausalLM": StandIn(as_itself, olmo_hybrid),
    "Gemma3nForConditionalGeneration": text_alone("Gemma3nForCausalLM"),
    "Gemma4ForConditionalGeneration": text_alone("Gemma4ForCausalLM"),
    "Gemma3ForConditionalGeneration": text_alone(
        "Gemma3ForCausalLM", starts=_LLAVA, other="vision_tower"
    ),
    "Mistral3ForConditionalGeneration": text_alone(
        "MistralForCausalLM", starts=_LLAVA, other="multi_modal_projector"
    ),
    "Qwen3_5ForConditionalGeneration": text_alone("Qwen3_5ForCausalLM", other="model.visual"),
    "KimiK25ForConditionalGeneration": text_alone(
        "DeepseekV3ForCausalLM", "deepseek_v3", starts=_LLAVA, other="mm_projector"
    ),
    "Fairseq2LlamaForCausalLM": StandIn(as_llama, fairseq2),
    "RWForCausalLM": StandIn(rw_config),
    "StableLMEpochForCausalLM": StandIn(stablelm_epoch_config),
    "KimiLinearForCausalLM": StandIn(as_itself, kimi_linear),
    "DeepseekForCausalLM": StandIn(
        lambda config: softmax_experts(config, "n_routed_experts", "n_shared_experts"),
        ungated,
        open_gate,
    ),
    "BailingMoeForCausalLM": StandIn(
        lambda config: softmax_experts(config, "num_experts", "num_shared_experts"),
        lambda tensors, config: bailing(ungated(tensors, config), config),
        open_gate,
    ),
    "BailingMoeV2ForCausalLM": StandIn(bailing_v2_config, bailing),
    "SarvamMoEForCausalLM": StandIn(partial(bailing_v2_config, turning=1.0), bailing),
    "Param2MoEForCausalLM": StandIn(partial(bailing_v2_config, turning=1.0), bailing),
    "SarvamMLAForCausalLM": StandIn(sarvam_mla_config),
    "PanguEmbeddedForCausalLM": StandIn(
        lambda config: as_llama(config, attention_bias=config["bias"])
    ),
    "TeleFLMForCausalLM": StandIn(
        lambda config: (
            config
            | {
                "architectures": ["GraniteForCausalLM"],
                "model_type": "granite",
                "embedding_multiplier": config["input_mult"],
                "logits_scaling": config["mup_scale_factor"] / config["output_mult"],
                "attention_multiplier": (config["hidden_size"] // config["num_attention_heads"])
                ** -0.5,
            }
        )
    ),
    "DeciLMForCausalLM": StandIn(
        decilm_config,
        lambda tensors, config: decilm_layers(tensors, config)[1],
        lambda tensors, config: decilm_layers(tensors, config)[0],
    ),
    "Step3p5ForCausalLM": StandIn(step_config, step),
    "Step3p7ForConditionalGeneration": StandIn(as_itself),
    "HYV4ForCausalLM": StandIn(as_itself, hy_v4),
    "MiniMaxM3SparseForConditionalGeneration": StandIn(
        lambda config: config["text_config"] | {"architectures": ["MiniMaxM3VLForCausalLM"]},
        minimax_m3,
    ),
    "BailingHybridForCausalLM": StandIn(as_itself, ling3),
    "BailingMoeV3ForCausalLM": StandIn(as_itself, ling3),
    "Plamo3ForCausalLM": StandIn(plamo3_config, plamo3, plamo3_reference),
    "TeleChat2ForCausalLM": StandIn(telechat2_config, telechat2, without_inner_biases),
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
    "InternLM2VEForCausalLM": StandIn(
        lambda config: as_llama(config, attention_bias=config["bias"]), internlm2_ve
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
