"""Tiny configs of GGUF's families with latents, states, convolutions and delta nets, and how files keep their numbers.

The functions do what llama.cpp's converter does, and share nothing with the reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.models import gguf_recent
from tests.models.gguf_recent import YARN, like

LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.3 * pair for pair in range(8)],
    "long_factor": [2.0 + 1.7 * pair for pair in range(8)],
    "short_mscale": 1.243163121016122,
    "long_mscale": 1.243163121016122,
    "original_max_position_embeddings": 128,
}
PLAIN_ROPE = {"rope_type": "default"}


CONFIGS: dict[str, dict[str, Any]] = {
    "deepseek2": like("deepseek_v2", hidden_act="silu", rope_scaling=YARN),
    "deepseek2_old": like("deepseek_v2_lite", hidden_act="silu"),
    "deepseek2_sigmoid": like("deepseek_v3", hidden_act="silu", rope_scaling=YARN),
    "mamba": like("mamba"),
    "mamba2": like("mamba2", "time_step_limit"),
    "lfm2": like("lfm2_own_keys"),
    "lfm2moe": like("lfm2_moe", "rms_norm_eps", routed_scaling_factor=1.0),
    "granitehybrid": like("granite_hybrid"),
    "granitehybrid_dense": like(
        "granite_hybrid_dense", "rope_theta", position_embedding_type="nope"
    )
    | {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.6,
        "logits_scaling": 0.5,
    },
    "nemotron_h": like("nemotron_h", mamba_num_heads=8, time_step_min=0.001),
    "nemotron_h_moe": like("nemotron_h_experts", mamba_num_heads=8, time_step_min=0.001),
    "falcon-h1": like("falcon_h1", head_dim=16, mamba_n_heads=8, mamba_d_ssm=128),
    "qwen3next": like("qwen3_next"),
    "deepseek": like("deepseek_moe", hidden_act="silu"),
    "exaone": like("exaone", "rope_scaling", activation_function="silu", head_dim=16),
    "gemma3n": like(
        "gemma3n",
        altup_num_inputs=4,
        intermediate_size=[80] * 5,
        vocab_size_per_layer_input=97,
    ),
    "llama4": like(
        "llama4",
        *("no_rope_layer_interval", "attention_chunk_size", "floor_scale", "attn_scale"),
        hidden_act="silu",
        num_hidden_layers=4,
    ),
    "apertus": like("apertus", rope_scaling=PLAIN_ROPE),
    "phimoe": like(
        "phimoe_own_name",
        attention_bias=True,
        lm_head_bias=True,
        tie_word_embeddings=False,
        router_jitter_noise=0.01,
        original_max_position_embeddings=128,
        rope_scaling=LONG,
    ),
    **gguf_recent.CONFIGS,
}
"""By `general.architecture`, or a form of it."""


def factors(name: str) -> dict[str, list[float]]:
    """What frequencies are divided by, for short texts and for long ones."""
    scaling = CONFIGS.get(name, {}).get("rope_scaling") or {}
    return {
        kind: scaling[f"{kind}_factor"] for kind in ("long", "short") if f"{kind}_factor" in scaling
    }


def stacked(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gemma 3n's products of the streams beside the first, one on the other."""
    for stem in ("model.altup_projections", "model.altup_unembed_projections"):
        names = [f"{stem}.{number}.weight" for number in range(3)]
        if names[0] in found:
            found[f"{stem}.weight"] = np.stack([found.pop(name) for name in names])
    return found


def forms(name: str, source: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """A tensor of one of these families as files have it, by names of files or those that the package knows."""
    config = CONFIGS[name]
    source, values = _state(name, source, values)
    stem, _, last = source.rpartition(".")
    if name in gguf_recent.CONFIGS and not source.endswith("kv_b_proj.weight"):
        return gguf_recent.forms(name, source, values)
    if source.endswith(("mixer.norm.weight", "mamba.norm.weight")):
        groups = config.get("n_groups") or config["mamba_n_groups"]
        return {source: values.reshape(groups, -1)}
    if name == "qwen3next":
        return _qwen3next(config, source, values)
    if source.endswith("kv_b_proj.weight") and name != "deepseek2_old":
        heads = values.reshape(config["num_attention_heads"], -1, values.shape[-1])
        cut = config["qk_nope_head_dim"]
        block = stem.removesuffix("kv_b_proj")
        return {
            f"{block}k_b_proj.weight": heads[:, :cut].swapaxes(1, 2),
            f"{block}v_b_proj.weight": heads[:, cut:],
        }
    if name.startswith("granitehybrid") and ("_mlp." in source or "input_linear" in source):
        return _shared(config, source, values)
    if name == "apertus" and ".act_fn." in source:
        return {}
    if name == "llama4" and ".experts." in source:
        turned, layer = values.swapaxes(-1, -2), f"blk.{source.split('.')[2]}"
        if last == "down_proj":
            return {f"{layer}.ffn_down_exps.weight": turned}
        half = turned.shape[1] // 2
        return {
            f"{layer}.ffn_gate_exps.weight": turned[:, :half],
            f"{layer}.ffn_up_exps.weight": turned[:, half:],
        }
    if last == "correct_output_scale":
        return {f"{source}.weight": values}
    if name == "falcon-h1":
        return _with_factors(config, source, values)
    if last == "expert_bias":
        return {f"{stem}.expert_bias.bias": values}
    if name == "lfm2moe" and ".experts." in source:
        source = source.removeprefix("model.")
    if name == "nemotron_h_moe" and ".mixer.experts." in source:
        source = source.replace("backbone.layers", "model.layers").replace("mixer", "mlp")
    return {source: values}


def _state(name: str, source: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """What is kept of decays, steps and convolutions."""
    stem, _, last = source.rpartition(".")
    if last == "A_log":
        values = -torch.exp(torch.from_numpy(values)).numpy()  # whose last bits are its own
    is_whole = name in ("mamba", "qwen3next", *gguf_recent.CONFIGS)
    if last in ("A_log", "D") and not is_whole:
        values = values.reshape(-1, 1)
    if last == "dt_bias":
        return f"{stem}.dt_proj.bias", values
    if last == "weight" and stem.endswith((".conv1d", ".conv.conv")):
        values = values[:, 0]
    return source, values


def _qwen3next(config: dict[str, Any], source: str, values: np.ndarray) -> dict[str, np.ndarray]:
    if source.endswith("norm.weight") and "linear_attn" not in source:
        return {source: values + np.float32(1.0)}
    if "in_proj_qkvz" not in source:
        return {source: values}
    keys, size = config["linear_num_key_heads"], config["linear_key_head_dim"]
    wide = config["linear_num_value_heads"] // keys * config["linear_value_head_dim"]
    groups = values.reshape(keys, -1, values.shape[-1])
    parts = np.split(groups, [size, 2 * size, 2 * size + wide], axis=1)
    q, k, v, z = (part.reshape(-1, values.shape[-1]) for part in parts)
    layer = f"blk.{source.split('.')[2]}"
    return {
        f"{layer}.attn_qkv.weight": np.concatenate([q, k, v]),
        f"{layer}.attn_gate.weight": z,
    }


def _shared(config: dict[str, Any], source: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Gate and up apart, of experts and of the part that all tokens pass."""
    layer, half = f"blk.{source.split('.')[2]}", values.shape[-2] // 2
    end = "" if not config["num_local_experts"] else "_shexp"
    if source.endswith("shared_mlp.output_linear.weight"):
        return {f"{layer}.ffn_down{end}.weight": values}
    end = end if "shared_mlp" in source else "_exps"
    return {
        f"{layer}.ffn_gate{end}.weight": values[..., :half, :],
        f"{layer}.ffn_up{end}.weight": values[..., half:, :],
    }


def _with_factors(config: dict[str, Any], source: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Falcon-H1's factors are multiplied into its weights; one of its names has no kind."""
    part = source.split(".")[-2]
    into = config["attention_in_multiplier"]
    gate, down = config["mlp_multipliers"]
    factors = {
        "gate_proj": gate,
        "down_proj": down,
        "q_proj": into,
        "k_proj": config["key_multiplier"] * into,
        "v_proj": into,
        "o_proj": config["attention_out_multiplier"],
        "out_proj": config["ssm_out_multiplier"],
        "in_proj": config["ssm_in_multiplier"],
        "lm_head": config["lm_head_multiplier"],
        "embed_tokens": config["embedding_multiplier"],
    }
    values = values * np.float32(factors.get(part, 1.0))
    if part == "in_proj":
        inner = config["mamba_d_ssm"]
        state = config["mamba_n_groups"] * config["mamba_d_state"]
        sizes = (inner, inner, state, state, config["mamba_n_heads"])
        values = values * np.repeat(np.float32(config["ssm_multipliers"]), sizes)[:, None]
    if part == "pre_ff_layernorm":
        return {f"blk.{source.split('.')[2]}.ffn_norm": values}
    return {source: values}
