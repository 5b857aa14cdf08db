"""Pieces of a description that most config.json files spell alike: RoPE, activations, layer kinds.

Everything that belongs to one family stays in its file in `models.architectures`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from quire.models.hf_config import HfConfig
from quire.models.spec import (
    Activation,
    DynamicScaling,
    FeedForward,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Moe,
    ProportionalScaling,
    Rope,
    RopeScaling,
    Temperature,
    YarnScaling,
)

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}

LAYER_KINDS = {"full_attention": False, "sliding_attention": True}


def head_counts(
    hf: HfConfig, *, default_heads: int | None = None, default_kv_heads: int | None = None
) -> tuple[int, int]:
    """Query heads and key/value heads; the first must be a multiple of the second."""
    heads = hf.optional_int("num_attention_heads", default_heads)
    if heads is None:
        raise hf.refuse("num_attention_heads", "it must be a whole number")
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


def moe_layers(hf: HfConfig, part: Moe, dense: FeedForward | None) -> list[FeedForward | None]:
    """The feed-forward part of each layer: every `decoder_sparse_step`-th one has experts, but for
    `mlp_only_layers`."""
    step = hf.int_("decoder_sparse_step", 1)
    plain = set(hf.integers("mlp_only_layers"))
    return [
        part if index not in plain and (index + 1) % step == 0 else dense
        for index in range(hf.int_("num_hidden_layers"))
    ]


def sliding_layers(hf: HfConfig, default: Callable[[int], bool]) -> list[bool]:
    """For each layer whether it has a window: as `layer_types` says, else `default(layer)`."""
    kinds = ("full_attention", "sliding_attention")
    names = layer_kinds(hf, kinds, lambda index: kinds[default(index)])
    return [LAYER_KINDS[name] for name in names]


def windows(
    hf: HfConfig, default: Callable[[int], bool], size: int | None = 4096
) -> list[tuple[bool, int | None]]:
    """For each layer whether it is one with a window, as in `sliding_layers`, and how long that is.

    size  default of `sliding_window`, which may be null.
    """
    found = hf.optional_int("sliding_window", size)
    return [(slides, found if slides else None) for slides in sliding_layers(hf, default)]


def turning_layers(hf: HfConfig, num_layers: int) -> list[bool]:
    """For each layer whether it has positions: as `no_rope_layers` says, else all but every fourth or so."""
    every = hf.int_("no_rope_layer_interval", 4)
    turns = hf.integers("no_rope_layers") or [(index + 1) % every for index in range(num_layers)]
    if len(turns) < num_layers:
        raise hf.refuse("no_rope_layers", f"it must have num_hidden_layers {num_layers} entries")
    return [bool(turn) for turn in turns[:num_layers]]


def demand(hf: HfConfig, why: str | None = None, **wanted: bool) -> None:
    """Refuses a file in which one of these keys has not the value that is the only one described."""
    for key, value in wanted.items():
        if hf.bool_(key, value) is not value:
            raise hf.refuse(key, why or f"only {str(value).lower()} is supported")


def demand_each(hf: HfConfig, **wanted: int) -> None:
    """The same of numbers that may be lists of one for each layer."""
    for key, value in wanted.items():
        if hf.each_layer(key, value) != value:
            raise hf.refuse(key, f"this architecture is described for {value} only")


def layer_kinds(hf: HfConfig, kinds: tuple[str, ...], default: Callable[[int], str]) -> list[str]:
    """The kind of each layer, one of `kinds`: as `layer_types` says, else `default(layer)`."""
    num_layers = hf.int_("num_hidden_layers")
    names = hf.strings("layer_types") or [default(index) for index in range(num_layers)]
    if set(names) - set(kinds):
        raise hf.refuse("layer_types", f"this architecture has {', '.join(kinds)} layers only")
    if len(names) != num_layers:
        raise hf.refuse("layer_types", f"it must have num_hidden_layers {num_layers} entries")
    return names


def rope(
    hf: HfConfig,
    *,
    head_size: int,
    sliding: bool = False,
    theta: tuple[str, float] = ("rope_theta", 10_000.0),
    part: tuple[str, float] | None = None,
) -> Rope:
    """Rotary positions of one kind of layer, in any spelling.

    Old: `rope_theta` beside `rope_scaling` with `type` or `rope_type`. New: `rope_parameters` with
    all of it, or with one object for each of `full_attention` and `sliding_attention`.

    theta  the old key of the base and its default.
    part   the old key of the part of a head that turns and its default; None: whole heads only.
    """
    base = hf.positive(*theta)
    fraction = 1.0 if part is None else hf.positive(*part)
    parent = "rope_scaling" if hf.has("rope_scaling") else "rope_parameters"
    section = hf.section(parent)
    if section is None or section.is_empty():
        return Rope(dim=_rope_dim(hf, head_size, fraction), theta=base)
    kinds = [key for key in section.names() if key in LAYER_KINDS]
    if kinds:
        section.skip(*kinds)
        section = section.section("sliding_attention" if sliding else "full_attention")
        if section is None:
            raise hf.refuse(
                parent, "it names some kinds of layers and leaves out one that the model has"
            )
    base = section.positive("rope_theta", base)
    if part is not None:
        fraction = section.positive("partial_rotary_factor", fraction)
    dim = _rope_dim(hf, head_size, fraction)
    return Rope(dim=dim, theta=base, scaling=_scaling(hf, section, dim))


def growth_of(hf: HfConfig) -> Temperature | None:
    """How queries grow with each trained length that they stand behind, as Mistral's files say it among positions."""
    section = hf.section("rope_parameters")
    if section is None:
        raise hf.refuse("rope_parameters", "it must be stated for this architecture")
    section.skip("max_position_embeddings")
    beta = section.float_("llama_4_scaling_beta")
    if not beta:
        return None
    return Temperature(scale=beta, interval=section.int_("original_max_position_embeddings"))


def own_ropes(hf: HfConfig, dim: int) -> list[Rope | None]:
    """Positions of layers without a window and of those with one; None where a kind is said to have none."""
    positions = hf.section("rope_parameters")
    if positions is None or positions.is_empty():
        raise hf.refuse("rope_parameters", "it must state positions for each kind of layer")
    positions.skip("rope_theta", "rope_type")  # which some files state beside the kinds
    return [
        None if own is None else section_rope(hf, own, dim=dim, theta=10_000.0, interleaved=False)
        for own in (positions.section(f"{kind}_attention") for kind in ("full", "sliding"))
    ]


def section_rope(
    hf: HfConfig, section: HfConfig, *, dim: int, theta: float, interleaved: bool
) -> Rope:
    """Rotary positions of `dim` numbers as one object says; theta: where it does not have the base."""
    base, scaling = section.positive("rope_theta", theta), _scaling(hf, section, dim)
    return Rope(dim=dim, theta=base, scaling=scaling, interleaved=interleaved)


def _rope_dim(hf: HfConfig, head_size: int, fraction: float) -> int:
    dim = int(head_size * fraction)
    if dim % 2 or not 0 < dim <= head_size:
        raise hf.refuse(
            "head_dim",
            f"rotary positions turn {dim} of the {head_size} numbers of a head; "
            "it must be an even number of them",
        )
    return dim


def _scaling(hf: HfConfig, section: HfConfig, dim: int) -> RopeScaling | None:
    spelling = "rope_type" if section.has("rope_type") else "type"
    readers: dict[str, Callable[[HfConfig, HfConfig], RopeScaling | None]] = {
        "default": _default,
        "linear": _linear,
        "dynamic": _dynamic,
        "llama3": _llama3,
        "yarn": _yarn,
        "deepseek_yarn": _yarn,
        "mrope": _default,
        "longrope": partial(_longrope, dim),
        "su": partial(_longrope, dim),
        "proportional": partial(_proportional, dim),
    }
    # Three positions a token, of which each turns some pairs: of a token of text all three are one.
    section.skip("rope_type", "type", "mrope_section", "mrope_interleaved")
    reader: Callable[[HfConfig, HfConfig], RopeScaling | None] = section.choice(
        spelling, readers, "default"
    )
    return reader(hf, section)


def _default(hf: HfConfig, section: HfConfig) -> None:
    return None


def _linear(hf: HfConfig, section: HfConfig) -> LinearScaling:
    return LinearScaling(factor=section.positive("factor"))


def _proportional(dim: int, hf: HfConfig, section: HfConfig) -> ProportionalScaling:
    turning = int(section.positive("partial_rotary_factor", 1.0) * dim // 2)
    if turning > dim // 2:
        raise section.refuse("partial_rotary_factor", "it must be at most 1")
    return ProportionalScaling(turning=turning, factor=section.positive("factor", 1.0))


def _dynamic(hf: HfConfig, section: HfConfig) -> DynamicScaling:
    section.skip("original_max_position_embeddings")  # Transformers reads the outer key alone
    return DynamicScaling(
        factor=section.positive("factor"), original_len=hf.int_("max_position_embeddings")
    )


def _original_len(hf: HfConfig, section: HfConfig) -> int:
    outer = hf.optional_int("original_max_position_embeddings")
    inner = section.int_("original_max_position_embeddings", hf.int_("max_position_embeddings"))
    return outer or inner


def _llama3(hf: HfConfig, section: HfConfig) -> Llama3Scaling:
    low, high = section.positive("low_freq_factor"), section.positive("high_freq_factor")
    if high < low:
        raise section.refuse("high_freq_factor", f"it must not be below low_freq_factor {low}")
    return Llama3Scaling(
        factor=section.positive("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_len=_original_len(hf, section),
    )


def _longrope(dim: int, hf: HfConfig, section: HfConfig) -> LongRopeScaling:
    original = _original_len(hf, section)
    if original < 2:
        raise section.refuse(
            "original_max_position_embeddings", "LongRoPE needs more than one token"
        )
    factor = section.optional_positive("factor") or hf.int_("max_position_embeddings") / original
    attention_factor = section.optional_positive("attention_factor")
    if attention_factor is None:
        growth = 1.0 if factor <= 1 else 1.0 + math.log(factor) / math.log(original)
        attention_factor = math.sqrt(growth)
    factors = {key: section.numbers(key) for key in ("short_factor", "long_factor")}
    for key, values in factors.items():
        if len(values) != dim // 2:
            raise section.refuse(key, f"it must have {dim // 2} numbers, one for each pair")
    return LongRopeScaling(**factors, original_len=original, attention_factor=attention_factor)


def _yarn(hf: HfConfig, section: HfConfig) -> YarnScaling:
    original = _original_len(hf, section)
    factor = section.optional_positive("factor") or hf.int_("max_position_embeddings") / original
    mscale, mscale_all = (
        section.float_(key, 0.0) if section.has(key) else 0.0
        for key in ("mscale", "mscale_all_dim")
    )
    attention_factor = section.optional_positive("attention_factor")
    if attention_factor is None and mscale and mscale_all:
        attention_factor = yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all)
    elif attention_factor is None:
        attention_factor = yarn_magnitude(factor, 1.0)
    return YarnScaling(
        factor=factor,
        original_len=original,
        attention_factor=attention_factor,
        beta_fast=section.optional_positive("beta_fast") or 32.0,
        beta_slow=section.optional_positive("beta_slow") or 1.0,
        truncate=section.bool_("truncate", True),
    )


def yarn_magnitude(factor: float, mscale: float) -> float:
    """The growth of scores with a longer context. Source: arXiv 2309.00071, section 3.4."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
