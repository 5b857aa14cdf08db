"""Tiny configs of GGUF's families of 2025 and after, and of Jamba, and how files keep their numbers.

The functions do what llama.cpp's converter does, and share nothing with the reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.models.families import CASES

YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 6.0,
    "beta_slow": 0.7,
    "mscale": 1.4,
    "mscale_all_dim": 1.4,
}


def like(case: str, *without: str, **values: Any) -> dict[str, Any]:
    """The config of a case of the parity tests, but for what files cannot say."""
    config = {key: value for key, value in CASES[case].config.items() if key not in without}
    return config | values


CONFIGS: dict[str, dict[str, Any]] = {
    "deepseek32": like("deepseek_v32", rope_scaling=YARN),
    "glm-dsa": like("glm_moe_dsa", "hidden_act"),
    "kimi-linear": like("kimi_linear", num_expert_group=1, topk_group=1),
    "kimi-linear_ranked": like("kimi_linear_plain", moe_renormalize=True),
    "exaone-moe": like("exaone_moe"),
    "jamba": like("jamba"),
    "qwen35": like("qwen3_5"),
    "qwen35moe": like("qwen3_5_moe"),
    "gemma4": like("gemma4"),
    "gemma4_keys": like("gemma4_keys_are_values"),
    "gemma4_experts": like("gemma4_experts"),
}
"""By `general.architecture`, or a form of it."""


def factors(name: str) -> list[float]:
    """What the frequencies of Gemma 4's larger heads are divided by: of three in four pairs, nearly endless."""
    size = CONFIGS[name]["global_head_dim"] // 2 if name.startswith("gemma4") else 0
    return [1.0] * (size // 4) + [1e30] * (size - size // 4)


def forms(name: str, source: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """A tensor as files have it, by names of files or those that the package knows."""
    _, _, last = source.rpartition(".")
    layer = f"blk.{source.split('.')[2]}" if ".layers." in source else ""
    if name.startswith("gemma4"):
        return _gemma4(layer, source, last, values)
    if name.startswith("qwen35"):
        return _qwen35(CONFIGS[name], source, values)
    if name.startswith("kimi") and "_conv1d" in source:
        return {source: values.reshape(1, values.shape[0], 1, -1)}
    if name.startswith("kimi") and last == "A_log":
        return {source: values.reshape(1, 1, -1, 1)}
    if name == "jamba":
        source = source.replace("feed_forward.experts", "mlp.experts")
    if name.startswith("kimi") and "experts." in source:
        for theirs, ours in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
            source = source.replace(f".{theirs}.", f".{ours}_proj.")
        source = source.replace("block_sparse_moe.experts", "mlp.experts")
    return {source: values}


def _gemma4(layer: str, source: str, last: str, values: np.ndarray) -> dict[str, np.ndarray]:
    own = {
        "layer_scalar": "layer_output_scale.weight",
        "scale": "ffn_gate_inp.scale",
        "per_expert_scale": "ffn_down_exps.scale",
        "gate_up_proj": "ffn_gate_up_exps.weight",
        "down_proj": "ffn_down_exps.weight",
    }
    return {f"{layer}.{own[last]}": values} if last in own else {source: values}


def _qwen35(config: dict[str, Any], source: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Heads of values that one head of keys serves stand as far apart as there are heads of keys."""
    keys, heads = config["linear_num_key_heads"], config["linear_num_value_heads"]
    size = config["linear_value_head_dim"]
    if "linear_attn" not in source:
        is_norm = source.endswith("norm.weight")
        return {source: values + np.float32(1.0) if is_norm else values}

    def spread(rows: np.ndarray, each: int) -> np.ndarray:
        parts = rows.reshape(keys, heads // keys, each, *rows.shape[1:])
        return parts.swapaxes(0, 1).reshape(rows.shape)

    if source.endswith("out_proj.weight"):
        return {source: spread(values.T, size).T}
    if source.endswith("linear_attn.norm.weight"):
        return {source: values}
    if "in_proj_qkv" in source or "conv1d" in source:
        before = len(values) - heads * size
        return {source: np.concatenate([values[:before], spread(values[before:], size)])}
    return {source: spread(values, size if "in_proj_z" in source else 1)}
