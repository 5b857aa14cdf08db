"""What the config.json of families with other mixers than plain attention says: latents, states, convolutions.

Each function changes a config.json that `gguf.config` began. Simpler differences are `gguf.adjusted`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf
from typing import Any, Protocol

from quire.models.loading.gguf.header import GgufHeader
from quire.protocol.errors import ModelLoadError


class Settings(Protocol):
    """Settings of a file by their names behind the architecture's."""

    def get(self, name: str) -> Any:
        """A setting, None if it is not there."""

    def needed(self, name: str) -> Any:
        """A setting that must be there."""

    def each(self, name: str) -> list[Any]:
        """A setting with a value for each layer; empty if it is not there."""


Adjust = Callable[[dict[str, Any], GgufHeader, Settings], None]

_NO_GROUPS_SAID = {(61, 256): (8, 4), (60, 160): (8, 3)}
"""Groups of experts, and how many are chosen of, of DeepSeek V3 and V2 by their layers and experts: files of
before October 2025 do not say it."""
_STATE_LEN, _GRANITE_LEN = 1 << 20, 131_072
"""The length that files of state-space models have whatever the model's is, and Granite 4's."""


def has_end(header: GgufHeader, end: str) -> bool:
    """Whether some layer has a tensor of this name."""
    return any(name.startswith("blk.") and name.endswith(f".{end}") for name in header.tensors)


def deepseek2(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Latent attention; experts weighed by sigmoids if the file says so, or has biases for the choice."""
    gating = read.get("expert_gating_func") or 0
    if gating not in (0, 1, 2):
        raise ModelLoadError(
            f"{header.path}: deepseek2.expert_gating_func is {gating}; 1 and 2 are read"
        )
    if gating == 2 or (not gating and has_end(header, "exp_probs_b.bias")):
        config |= {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
    layers, experts = config["num_hidden_layers"], config.get("n_routed_experts", 0)
    groups, chosen = _NO_GROUPS_SAID.get((layers, experts), (1, 1))
    config.setdefault("n_group", groups)
    config.setdefault("topk_group", chosen)
    latent_sizes(config, read)
    if not experts:
        config["first_k_dense_replace"] = layers
    if config["model_type"] == "deepseek_v2":
        config["topk_method"] = "group_limited_greedy" if config["n_group"] > 1 else "greedy"


def latent_sizes(config: dict[str, Any], read: Settings) -> None:
    """Of a latent, of heads over it and of experts; and how scores grow with a longer context."""
    for key in ("num_key_value_heads", "partial_rotary_factor"):
        config.pop(key, None)
    config |= latent_parts(read)
    config |= {
        "moe_intermediate_size": read.needed("expert_feed_forward_length"),
        "norm_topk_prob": bool(config.get("norm_topk_prob")),
        "routed_scaling_factor": config.get("routed_scaling_factor", 1.0),
    }
    growth = read.get("rope.scaling.yarn_log_multiplier")
    if (
        growth and "rope_scaling" in config
    ):  # a tenth of the model's factor, whose both parts are one
        whole = round(growth * 10.0, 6)
        config["rope_scaling"] |= {"mscale": whole, "mscale_all_dim": whole}


def latent_parts(read: Settings) -> dict[str, Any]:
    """The sizes of a latent and of heads over it."""
    turned = read.needed("rope.dimension_count")
    whole = read.get("attention.key_length_mla") or read.needed("attention.key_length")
    return {
        "q_lora_rank": read.get("attention.q_lora_rank"),
        "kv_lora_rank": read.needed("attention.kv_lora_rank"),
        "qk_rope_head_dim": turned,
        "qk_nope_head_dim": whole - turned,
        "v_head_dim": read.get("attention.value_length_mla")
        or read.needed("attention.value_length"),
    }


def _kinds(read: Settings, config: dict[str, Any], names: tuple[str, str]) -> list[str]:
    """For each layer the first name if it has heads of keys, else the second."""
    heads = read.each("attention.head_count_kv")
    count = config["num_hidden_layers"]
    heads = heads * count if len(heads) == 1 else heads
    if len(heads) != count:
        raise ModelLoadError(
            f"attention.head_count_kv is about {len(heads)} layers, of which there are {count}"
        )
    return [names[not one] for one in heads]


def lfm2(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Short convolutions where a layer has no heads."""
    config["layer_types"] = _kinds(read, config, ("full_attention", "conv"))
    config["block_auto_adjust_ff_dim"] = False
    config["conv_L_cache"] = read.needed("shortconv.l_cache")
    if config["model_type"] == "lfm2_moe":
        del config["block_auto_adjust_ff_dim"]
        config["use_expert_bias"] = has_end(header, "exp_probs_b.bias")
        if read.get("expert_gating_func") not in (None, 2):
            raise ModelLoadError(f"{header.path}: experts must be weighed by sigmoids")


def _states(read: Settings) -> dict[str, Any]:
    """A mixer with one decay a head, in the spelling of hybrids."""
    heads, inner = read.needed("ssm.time_step_rank"), read.needed("ssm.inner_size")
    return {
        "mamba_n_heads": heads,
        "mamba_d_head": inner // heads,
        "mamba_d_state": read.needed("ssm.state_size"),
        "mamba_n_groups": read.needed("ssm.group_count"),
        "mamba_d_conv": read.needed("ssm.conv_kernel"),
    }


def granitehybrid(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Granite with Mamba 2; without experts the part that all tokens pass is the only one."""
    config |= _states(read)
    inner = config["mamba_n_heads"] * config["mamba_d_head"]
    config["mamba_expand"] = inner // config["hidden_size"]
    config["layer_types"] = _kinds(read, config, ("attention", "mamba"))
    turned = read.get("rope.scaling.finetuned")
    config["position_embedding_type"] = "rope" if turned else "nope"
    config["shared_intermediate_size"] = read.needed("expert_shared_feed_forward_length")
    config.setdefault("num_local_experts", 0)
    if config["max_position_embeddings"] == _STATE_LEN:
        config["max_position_embeddings"] = _GRANITE_LEN


def nemotron_h(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Each layer is one part: attention, a feed-forward part or experts, or Mamba 2."""
    widths = read.each("feed_forward_length")
    heads = read.each("attention.head_count_kv")
    if not len(widths) == len(heads) == config["num_hidden_layers"]:
        raise ModelLoadError(
            f"{header.path}: the lists of heads and widths are not about all layers"
        )
    part = "E" if config.get("n_routed_experts") else "-"
    letters = [
        "*" if head else part if width else "M" for head, width in zip(heads, widths, strict=True)
    ]
    mixer = _states(read)
    if not config.get("intermediate_size"):
        config.pop("intermediate_size", None)
    config |= {
        "hybrid_override_pattern": "".join(letters),
        "mamba_num_heads": mixer["mamba_n_heads"],
        "mamba_head_dim": mixer["mamba_d_head"],
        "ssm_state_size": mixer["mamba_d_state"],
        "n_groups": mixer["mamba_n_groups"],
        "conv_kernel": mixer["mamba_d_conv"],
    }
    del config["rope_theta"]
    config.pop("partial_rotary_factor", None)


def falcon_h1(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Both mixers in each layer; all factors are in the weights."""
    config |= _states(read)
    config["mamba_d_ssm"] = config["mamba_n_heads"] * config["mamba_d_head"]
    config |= {
        "mamba_rms_norm": has_end(header, "ssm_norm.weight"),
        "mamba_norm_before_gate": False,
    }
    config |= {"ssm_multipliers": [1.0] * 5, "mlp_multipliers": [1.0] * 2}


def qwen3next(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Gated delta nets, and attention in some layers."""
    heads = read.needed("ssm.time_step_rank")
    config |= {
        "linear_num_key_heads": read.needed("ssm.group_count"),
        "linear_num_value_heads": heads,
        "linear_key_head_dim": read.needed("ssm.state_size"),
        "linear_value_head_dim": read.needed("ssm.inner_size") // heads,
        "linear_conv_kernel_dim": read.needed("ssm.conv_kernel"),
    }
    interval, count = read.get("full_attention_interval") or 4, config["num_hidden_layers"]
    found = read.each("attention.recurrent_layers")[:count]
    recurrent = found or [bool((layer + 1) % interval) for layer in range(count)]
    kinds = ("full_attention", "linear_attention")
    config["layer_types"] = [kinds[bool(one)] for one in recurrent]


def apertus(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Without factors among the tensors positions are plain, where elsewhere they would be Llama 3.1's."""
    config.setdefault("rope_scaling", {"rope_type": "default"})


def gemma3n(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Sizes that the tensors have, and how many gates count, which a file has in deviations of a normal one."""
    pattern, scales = (
        read.each(name)
        for name in ("attention.sliding_window_pattern", "activation_sparsity_scale")
    )
    tensors = [
        header.tensors.get(name)
        for name in ("per_layer_token_embd.weight", "blk.0.laurel_l.weight")
    ]
    count = config["num_hidden_layers"]
    if None in tensors or not len(pattern) == len(scales) == count:
        raise ModelLoadError(
            f"{header.path} lacks tensors, or settings for each layer, of Gemma 3n"
        )
    rows, rank = (tensor.shape[0] for tensor in tensors if tensor is not None)
    kinds = ("full_attention", "sliding_attention")
    config |= {
        "vocab_size_per_layer_input": rows,
        "laurel_rank": rank,
        "layer_types": [kinds[bool(one)] for one in pattern],
        "activation_sparsity_pattern": [
            round(0.5 + 0.5 * erf(one * 0.5**0.5), 6) for one in scales
        ],
    }


_MAVERICK = 128
"""Experts of the Llama 4 whose heads are not normed."""


def llama4(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Stretches of 8,192 tokens and no positions in every fourth layer, unless the file says that there are none."""
    config["use_qk_norm"] = config.get("num_local_experts") != _MAVERICK
    if read.get("attention.sliding_window") == 0:
        count = config["num_hidden_layers"]
        config |= {"layer_types": ["full_attention"] * count, "no_rope_layers": [1] * count}


def phimoe(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """The factor of cosines and sines, which files do not have, is that of Phi 3.5 MoE."""
    config["lm_head_bias"] = "output.bias" in header.tensors
    if "rope_scaling" in config:
        config["rope_scaling"].pop("attention_factor", None)
        config["rope_scaling"] |= dict.fromkeys(("short_mscale", "long_mscale"), 1.243163121016122)
        original = read.get("rope.scaling.original_context_length")
        config["rope_scaling"]["original_max_position_embeddings"] = original


ADJUST: dict[str, Adjust] = {
    "deepseek2": deepseek2,
    "lfm2": lfm2,
    "lfm2moe": lfm2,
    "granitehybrid": granitehybrid,
    "nemotron_h": nemotron_h,
    "nemotron_h_moe": nemotron_h,
    "falcon-h1": falcon_h1,
    "qwen3next": qwen3next,
    "apertus": apertus,
    "gemma3n": gemma3n,
    "llama4": llama4,
    "phimoe": phimoe,
}
"""By `general.architecture`."""
