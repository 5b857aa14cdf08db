"""What the config.json of families of 2025 and after, and of Jamba, says in words of its own.

Their names of tensors are in `gguf.families_recent`.
"""

from __future__ import annotations

from typing import Any

from quire.models.loading.gguf.header import GgufHeader, floats_of
from quire.models.loading.gguf.mixers import (
    ADJUST,
    Adjust,
    Settings,
    latent_parts,
    latent_sizes,
)
from quire.protocol.errors import ModelLoadError

_KINDS = ("full_attention", "sliding_attention")


def picked(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """DeepSeek V3.2 and GLM 5: latent attention to the tokens that an indexer picks."""
    name = config["model_type"]
    gating = read.get("expert_gating_func") or 2
    if gating != 2:
        raise ModelLoadError(
            f"{header.path}: experts of {name} are weighed by sigmoids (expert_gating_func 2), not {gating}"
        )
    latent_sizes(config, read)
    config |= {
        "index_n_heads": read.needed("attention.indexer.head_count"),
        "index_head_dim": read.needed("attention.indexer.key_length"),
        "index_topk": read.needed("attention.indexer.top_k"),
    }
    own = read.each("attention.indexer.types") if name == "glm_moe_dsa" else []
    if own:
        own = own[: config["num_hidden_layers"]]
        config["indexer_types"] = ["full" if one else "shared" for one in own]


def kimi_linear(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Delta nets where a layer has no heads of keys; their heads are as many as the tensors say."""
    if read.get("expert_gating_func") not in (None, 2):
        raise ModelLoadError(f"{header.path}: experts must be weighed by sigmoids")
    size, count = read.needed("kda.head_dim"), config["num_hidden_layers"]
    heads = read.each("attention.head_count_kv")
    biases = [one for name, one in header.tensors.items() if name.endswith(".ssm_dt.bias")]
    if len(heads) != count or not biases:
        raise ModelLoadError(
            f"{header.path}: kimi-linear.attention.head_count_kv must be about {count} layers, of which some "
            "have a tensor ssm_dt.bias"
        )
    for key in ("rope_theta", "partial_rotary_factor"):
        config.pop(key, None)
    config |= latent_parts(read)
    config["num_key_value_heads"] = config["num_attention_heads"]
    config["topk_group"] = min(
        config.get("topk_group", 1), config.setdefault("num_expert_group", 1)
    )
    config["moe_renormalize"] = True
    config["linear_attn_config"] = {
        "head_dim": size,
        "num_heads": biases[0].shape[0] // size,
        "short_conv_kernel_size": read.needed("ssm.conv_kernel"),
        "kda_layers": [layer + 1 for layer, one in enumerate(heads) if not one],
        "full_attn_layers": [layer + 1 for layer, one in enumerate(heads) if one],
    }


def exaone_moe(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """K-EXAONE: experts weighed by sigmoids; which layers look back no further than a window is a list."""
    if read.get("expert_gating_func") not in (None, 2):
        raise ModelLoadError(f"{header.path}: experts must be weighed by sigmoids")
    config.setdefault("n_group", 1)
    config.setdefault("topk_group", 1)
    config["norm_topk_prob"] = bool(config.get("norm_topk_prob"))


def jamba(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Which layers attend, and which have experts, by the first of them and how far they are apart."""
    count = config["num_hidden_layers"]
    heads = read.each("attention.head_count_kv")
    routed = [f"blk.{layer}.ffn_gate_inp.weight" in header.tensors for layer in range(count)]
    inner, width = read.needed("ssm.inner_size"), config["hidden_size"]
    if inner % width:
        raise ModelLoadError(
            f"{header.path}: jamba.ssm.inner_size {inner} is no multiple of {width}"
        )
    for key in ("rope_theta", "partial_rotary_factor"):
        config.pop(key, None)
    config |= {
        **_steps(header, "attn_layer", [bool(one) for one in heads], count),
        **_steps(header, "expert_layer", routed, count),
        "mamba_expand": inner // width,
        "mamba_d_state": read.needed("ssm.state_size"),
        "mamba_d_conv": read.needed("ssm.conv_kernel"),
        "mamba_dt_rank": read.needed("ssm.time_step_rank"),
    }
    config["num_experts"] = config.get("num_experts", 1) if any(routed) else 1


def _steps(header: GgufHeader, name: str, found: list[bool], count: int) -> dict[str, int]:
    """`<name>_offset` and `<name>_period` of layers that are equally far apart."""
    at = [layer for layer, is_one in enumerate(found) if is_one]
    first = at[0] if at else 0
    step = at[1] - first if len(at) > 1 else max(count, 1)
    if len(found) != count or at != list(range(first, count, step)) * bool(at) or first >= step:
        raise ModelLoadError(
            f"{header.path}: layers {at} of {count} are not equally far apart, as Jamba's are ({name})"
        )
    return {f"{name}_offset": first, f"{name}_period": step}


def qwen35(config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Delta nets whose heads of keys serve heads of values in turns, where elsewhere they serve neighbours."""
    ADJUST["qwen3next"](config, header, read)
    config["linear_keys_in_turns"] = True


def gemma4(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """Gemma 4: larger heads in layers without a window, and other positions; keys and values that are shared."""
    count = read.needed("block_count")
    slides = read.each("attention.sliding_window_pattern")
    heads = read.each("attention.head_count_kv")
    heads = heads * count if len(heads) == 1 else heads
    if not len(slides) == len(heads) == count:
        raise ModelLoadError(
            f"{header.path}: the lists of windows and heads are not about all layers"
        )
    shared, inputs = (
        read.get(name) or 0
        for name in ("attention.shared_kv_layers", "embedding_length_per_layer_input")
    )
    config: dict[str, Any] = {
        "hidden_size": read.needed("embedding_length"),
        "num_hidden_layers": count,
        "num_attention_heads": read.needed("attention.head_count"),
        "head_dim": read.needed("attention.key_length_swa"),
        "global_head_dim": read.needed("attention.key_length"),
        "max_position_embeddings": read.needed("context_length"),
        "rms_norm_eps": read.needed("attention.layer_norm_rms_epsilon"),
        "final_logit_softcapping": read.get("final_logit_softcapping"),
        "sliding_window": read.needed("attention.sliding_window"),
        "layer_types": [_KINDS[bool(one)] for one in slides],
        "num_kv_shared_layers": shared,
        "hidden_size_per_layer_input": inputs,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "rope_parameters": _two_ropes(header, read),
        **_widths(header, read, count, shared),
        **_heads4(header, heads, slides, count - shared),
    }
    if inputs and "per_layer_token_embd.weight" in header.tensors:
        rows = header.tensors["per_layer_token_embd.weight"].shape[0]
        config["vocab_size_per_layer_input"] = rows
    if read.get("expert_count"):
        config |= {
            "enable_moe_block": True,
            "num_experts": read.get("expert_count"),
            "top_k_experts": read.needed("expert_used_count"),
            "moe_intermediate_size": read.needed("expert_feed_forward_length"),
        }
    return config


def _two_ropes(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """A part of the pairs turns in layers without a window: the others' factors are almost endless."""
    turned, size = read.get("rope.dimension_count_swa"), read.get("attention.key_length_swa")
    factors = floats_of(header, "rope_freqs.weight")
    turning = sum(one == 1.0 for one in factors)
    if (
        turned != size
        or factors[:turning] != [1.0] * turning
        or min(factors[turning:], default=1e9) < 1e9
    ):
        raise ModelLoadError(
            f"{header.path}: of Gemma 4 only files are read in which whole heads turn where there is a window, "
            f"and elsewhere the first pairs; this one says {turned} of {size}, and factors {factors[:8]}..."
        )
    return {
        "full_attention": {
            "rope_type": "proportional",
            "partial_rotary_factor": turning / len(factors),
            "rope_theta": read.needed("rope.freq_base"),
        },
        "sliding_attention": {
            "rope_type": "default",
            "rope_theta": read.needed("rope.freq_base_swa"),
        },
    }


def _widths(header: GgufHeader, read: Settings, count: int, shared: int) -> dict[str, Any]:
    """One width, or twice of it in the layers that share keys and values."""
    widths = read.each("feed_forward_length")
    width = widths[0] if widths else read.needed("feed_forward_length")
    if len(widths) > 1 and len(set(widths)) > 1:
        if widths != [width] * (count - shared) + [2 * width] * shared:
            raise ModelLoadError(
                f"{header.path}: gemma4.feed_forward_length {widths} is not one width, and twice of it in the "
                f"last {shared} layers"
            )
        return {"intermediate_size": width, "use_double_wide_mlp": True}
    return {"intermediate_size": width, "use_double_wide_mlp": False}


def _heads4(header: GgufHeader, heads: list[int], slides: list[bool], own: int) -> dict[str, Any]:
    """Heads of keys of both kinds of layers, and whether keys are values too where there is no window."""
    found = {
        kind: {n for n, slid in zip(heads, slides, strict=True) if bool(slid) is kind}
        for kind in (True, False)
    }
    with_values = {
        f"blk.{layer}.attn_v.weight" in header.tensors
        for layer, slid in enumerate(slides[:own])
        if not slid
    }
    if len(with_values) > 1 or max(map(len, found.values())) > 1:
        raise ModelLoadError(
            f"{header.path}: layers of one kind differ in their heads of keys {heads} or in having values"
        )
    local = next(iter(found[True] or found[False]))
    whole = next(iter(found[False] or found[True]))
    both = with_values == {False}
    if local != whole and not both:
        raise ModelLoadError(
            f"{header.path}: {local} and {whole} heads of keys are read only where keys are values too"
        )
    return {
        "num_key_value_heads": local,
        "attention_k_eq_v": both,
        **({"num_global_key_value_heads": whole} if both else {}),
    }


RECENT: dict[str, Adjust] = {
    "deepseek32": picked,
    "glm-dsa": picked,
    "kimi-linear": kimi_linear,
    "exaone-moe": exaone_moe,
    "jamba": jamba,
    "qwen35": qwen35,
    "qwen35moe": qwen35,
}
"""By `general.architecture`."""
