"""Writes a checkpoint folder as a GGUF file with the `gguf` package: its names, its keys, its quantizer.

Shares nothing with the reader. What a converter does to the numbers of a family is done here too: rows of
q and k in pairs, norms with 1 added, experts stacked, factors of positions as tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from safetensors.torch import load_file

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mixtral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen2_moe": gguf.MODEL_ARCH.QWEN2MOE,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "qwen3_moe": gguf.MODEL_ARCH.QWEN3MOE,
    "gemma": gguf.MODEL_ARCH.GEMMA,
    "gemma2": gguf.MODEL_ARCH.GEMMA2,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "phi3": gguf.MODEL_ARCH.PHI3,
    "olmo2": gguf.MODEL_ARCH.OLMO2,
    "granite": gguf.MODEL_ARCH.GRANITE,
}
IN_PAIRS = ("llama", "mixtral", "granite")

Choice = Callable[[str], Kind]
"""The type of a matrix by its name in the file."""
Quantize = Callable[[np.ndarray, Kind], np.ndarray]
"""Floats [..., K] as the bytes of their blocks [..., n]."""


def write_gguf(
    folder: Path,
    path: Path,
    choose: Choice,
    more: Callable[[gguf.GGUFWriter], None] | None = None,
    quantize: Quantize | None = None,
) -> Path:
    """The folder's model as a file.

    more  adds what is wanted beside, a tokenizer say. quantize  makes the blocks of types other than floats;
    None is the package, with random blocks where it writes none.
    """
    config = json.loads((folder / "config.json").read_text())
    arch = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[arch])
    _settings(writer, config)
    if more is None:
        writer.add_tokenizer_model("none")
    else:
        more(writer)
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, values in sorted(_tensors(folder, config).items()):
        stem, _, kind = name.rpartition(".")
        target = names.get_name(stem)
        assert target is not None, name
        _put(writer, f"{target}.{kind}", values, choose, quantize or _quantized)
    for name, factors in _factors(config).items():
        writer.add_tensor(name, np.array(factors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _put(
    writer: gguf.GGUFWriter, name: str, values: np.ndarray, choose: Choice, quantize: Quantize
) -> None:
    kind = choose(name) if values.ndim > 1 and "gate_inp" not in name else Kind.F32
    values = np.ascontiguousarray(values, dtype=np.float32)
    if kind == Kind.F32:
        writer.add_tensor(name, values)
    elif kind == Kind.F16:
        writer.add_tensor(name, values.astype(np.float16))
    else:
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)


def _quantized(values: np.ndarray, kind: Kind) -> np.ndarray:
    if kind == Kind.NVFP4:
        return _drawn_nvfp4(values)
    if kind.name in HALVES:
        return _drawn(kind, values)
    found: np.ndarray = gguf.quants.quantize(values, kind)
    return found


HALVES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Q4_K", "Q5_K"), (0, 2)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ4_XS"), (0,)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}
"""Types of super-blocks that the package reads but does not write, and where their float16 numbers are."""


def _drawn(kind: Kind, values: np.ndarray) -> np.ndarray:
    """Random blocks of a type, of the size of the values, which they replace."""
    generator = np.random.default_rng(len(values))
    numbers, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    shape = (*values.shape[:-1], values.shape[-1] // numbers, num_bytes)
    data = generator.integers(0, 256, shape, np.uint8)
    size = 0.01
    for _ in range(2):  # the second time with the size that the first has shown
        for place in HALVES[kind.name]:
            data[..., place : place + 2] = np.frombuffer(np.float16(size).tobytes(), np.uint8)
        rows = data.reshape(*shape[:-2], -1)
        size *= float(values.std() / gguf.quants.dequantize(rows, kind).std())
    return rows


def _drawn_nvfp4(values: np.ndarray) -> np.ndarray:
    """Random blocks of 64 numbers with scales whose codes differ, about as large as the values."""
    generator = np.random.default_rng(len(values))
    data = generator.integers(0, 256, (*values.shape[:-1], values.shape[-1] // 64, 36), np.uint8)
    power = int(np.floor(np.log2(values.std() / 3.0))) + 7
    codes = generator.integers(8 * power, 8 * power + 8, (*data.shape[:-1], 4))
    data[..., :4] = np.clip(codes, 0, 126)
    return data.reshape(*values.shape[:-1], -1)


def _tensors(folder: Path, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """By their names in safetensors files, experts stacked."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update((name, one.float().numpy()) for name, one in load_file(path).items())
    if config.get("tie_word_embeddings"):
        found.pop("lm_head.weight", None)
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    made: dict[str, np.ndarray] = {}
    experts: dict[str, dict[int, np.ndarray]] = {}
    for name, values in found.items():
        if config["model_type"] in IN_PAIRS and (".q_proj." in name or ".k_proj." in name):
            count = heads if ".q_proj." in name else kv_heads
            parts = values.reshape(count, 2, -1, *values.shape[1:])
            values = parts.swapaxes(1, 2).reshape(values.shape)
        if config["model_type"].startswith("gemma") and "norm" in name:
            values = values + np.float32(1.0)
        if "shared_expert_gate" in name:
            values = values[0]
        before, is_expert, after = name.partition(".experts.")
        if is_expert:
            number, _, rest = after.partition(".")
            experts.setdefault(f"{before}.experts.{rest}", {})[int(number)] = values
        else:
            made[name] = values
    for name, parts in experts.items():
        made[name] = np.stack([parts[number] for number in sorted(parts)])
    return made


def _settings(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    size = config.get("head_dim", width // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(width)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta", 10_000.0))
    writer.add_rope_dimension_count(int(size * config.get("partial_rotary_factor", 1.0)))
    writer.add_vocab_size(config["vocab_size"])
    optional = {
        "num_experts": writer.add_expert_count,
        "num_local_experts": writer.add_expert_count,
        "num_experts_per_tok": writer.add_expert_used_count,
        "moe_intermediate_size": writer.add_expert_feed_forward_length,
        "shared_expert_intermediate_size": writer.add_expert_shared_feed_forward_length,
        "sliding_window": writer.add_sliding_window,
        "attn_logit_softcapping": writer.add_attn_logit_softcapping,
        "final_logit_softcapping": writer.add_final_logit_softcapping,
        "logits_scaling": writer.add_logit_scale,
        "embedding_multiplier": writer.add_embedding_scale,
        "residual_multiplier": writer.add_residual_scale,
        "attention_multiplier": writer.add_attention_scale,
    }
    for key, add in optional.items():
        if config.get(key) is not None:
            add(config[key])
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
        writer.add_rope_scaling_factor(scaling["factor"])
        if "original_max_position_embeddings" in scaling:
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    if scaling.get("rope_type") == "longrope":
        original = config["original_max_position_embeddings"]
        growth = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1.0 + math.log(growth) / math.log(original)))


def _factors(config: dict[str, Any]) -> dict[str, list[float]]:
    """Tensors of factors by which frequencies are divided."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "longrope":
        return {
            "rope_factors_long.weight": scaling["long_factor"],
            "rope_factors_short.weight": scaling["short_factor"],
        }
    if scaling.get("rope_type") != "llama3":
        return {}
    size = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    found = []
    for pair in range(0, size, 2):
        length = 2 * math.pi * config["rope_theta"] ** (pair / size)
        smooth = (original / length - low) / (high - low)
        if length < original / high:
            found.append(1.0)
        elif length > original / low:
            found.append(float(factor))
        else:
            found.append(1.0 / ((1.0 - smooth) / factor + smooth))
    return {"rope_freqs.weight": found}
