"""Pieces of a description that most config.json files spell alike: RoPE, activations, layer kinds.

Everything that belongs to one family stays in its file in `models.architectures`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from quire.models.hf_config import HfConfig
from quire.models.spec import (
    Activation,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    Rope,
    RopeScaling,
    YarnScaling,
)

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}

LAYER_KINDS = {"full_attention": False, "sliding_attention": True}


def head_counts(hf: HfConfig, *, default_kv_heads: int | None = None) -> tuple[int, int]:
    """Query heads and key/value heads; the first must be a multiple of the second."""
    heads = hf.int_("num_attention_heads")
    kv_heads = hf.optional_int("num_key_value_heads", default_kv_heads or heads) or heads
    if heads % kv_heads:
        raise hf.refuse(
            "num_key_value_heads", f"num_attention_heads {heads} must be a multiple of it"
        )
    return heads, kv_heads


def default_head_size(hf: HfConfig) -> int:
    """The head size of configs that do not state it: width over heads."""
    width, heads = hf.int_("hidden_size"), hf.int_("num_attention_heads")
    if width % heads:
        raise hf.refuse("hidden_size", f"it must be a multiple of num_attention_heads {heads}")
    return width // heads


def sliding_layers(hf: HfConfig, default: Callable[[int], bool]) -> list[bool]:
    """For each layer whether it has a window: as `layer_types` says, else `default(layer)`."""
    num_layers = hf.int_("num_hidden_layers")
    names = hf.strings("layer_types")
    if names is None:
        return [default(index) for index in range(num_layers)]
    unknown = sorted(set(names) - LAYER_KINDS.keys())
    if unknown:
        raise hf.refuse(
            "layer_types", f"this architecture has {', '.join(LAYER_KINDS)} layers only"
        )
    if len(names) != num_layers:
        raise hf.refuse("layer_types", f"it must have num_hidden_layers {num_layers} entries")
    return [LAYER_KINDS[name] for name in names]


def rope(hf: HfConfig, *, head_size: int, sliding: bool = False) -> Rope:
    """Rotary positions of one kind of layer, in any spelling.

    Old: `rope_theta` beside `rope_scaling` with `type` or `rope_type`. New: `rope_parameters` with
    all of it, or with one object for each of `full_attention` and `sliding_attention`.
    """
    if head_size % 2:
        raise hf.refuse("head_dim", "rotary positions need an even head size")
    theta = hf.positive("rope_theta", 10_000.0)
    parent = "rope_scaling" if hf.has("rope_scaling") else "rope_parameters"
    section = hf.section(parent)
    if section is None or section.is_empty():
        return Rope(dim=head_size, theta=theta)
    kinds = [key for key in section.names() if key in LAYER_KINDS]
    if kinds:
        section.skip(*kinds)
        section = section.section("sliding_attention" if sliding else "full_attention")
        if section is None:
            raise hf.refuse(
                parent, "it names some kinds of layers and leaves out one that the model has"
            )
    theta = section.positive("rope_theta", theta)
    scaling = _scaling(hf, section)
    return Rope(dim=head_size, theta=theta, scaling=scaling)


def _scaling(hf: HfConfig, section: HfConfig) -> RopeScaling | None:
    spelling = "rope_type" if section.has("rope_type") else "type"
    readers: dict[str, Callable[[HfConfig, HfConfig], RopeScaling | None]] = {
        "default": _default,
        "linear": _linear,
        "dynamic": _dynamic,
        "llama3": _llama3,
        "yarn": _yarn,
    }
    section.skip("rope_type", "type")
    reader: Callable[[HfConfig, HfConfig], RopeScaling | None] = section.choice(
        spelling, readers, "default"
    )
    return reader(hf, section)


def _default(hf: HfConfig, section: HfConfig) -> None:
    return None


def _linear(hf: HfConfig, section: HfConfig) -> LinearScaling:
    return LinearScaling(factor=section.positive("factor"))


def _dynamic(hf: HfConfig, section: HfConfig) -> DynamicScaling:
    return DynamicScaling(
        factor=section.positive("factor"), original_len=hf.int_("max_position_embeddings")
    )


def _original_len(hf: HfConfig, section: HfConfig) -> int:
    outer = hf.optional_int("original_max_position_embeddings")
    inner = section.int_("original_max_position_embeddings", hf.int_("max_position_embeddings"))
    return outer or inner


def _llama3(hf: HfConfig, section: HfConfig) -> Llama3Scaling:
    low, high = section.positive("low_freq_factor"), section.positive("high_freq_factor")
    if high <= low:
        raise section.refuse("high_freq_factor", f"it must be above low_freq_factor {low}")
    return Llama3Scaling(
        factor=section.positive("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_len=_original_len(hf, section),
    )


def _yarn(hf: HfConfig, section: HfConfig) -> YarnScaling:
    original = _original_len(hf, section)
    factor = section.optional_positive("factor") or hf.int_("max_position_embeddings") / original
    mscale, mscale_all = (
        section.optional_positive("mscale"),
        section.optional_positive("mscale_all_dim"),
    )
    attention_factor = section.optional_positive("attention_factor")
    if attention_factor is None and mscale and mscale_all:
        attention_factor = _yarn_magnitude(factor, mscale) / _yarn_magnitude(factor, mscale_all)
    elif attention_factor is None:
        attention_factor = _yarn_magnitude(factor, 1.0)
    return YarnScaling(
        factor=factor,
        original_len=original,
        attention_factor=attention_factor,
        beta_fast=section.optional_positive("beta_fast") or 32.0,
        beta_slow=section.optional_positive("beta_slow") or 1.0,
        truncate=section.bool_("truncate", True),
    )


def _yarn_magnitude(factor: float, mscale: float) -> float:
    """The growth of scores with a longer context. Source: arXiv 2309.00071, section 3.4."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
