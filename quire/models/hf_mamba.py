"""State-space mixers as config.json and checkpoints tell of them, for the families that have them.

What the numbers mean is in `models.recurrent`; each family's own keys stay in its file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from quire.models.hf_config import HfConfig
from quire.models.name_parts import LAYER, OURS, pair
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.recurrent import HeadMamba, Mamba1, Mamba2
from quire.models.spec import DecoderSpec

STATE_LEN = 32_768
"""Longest sequence of models whose files name none: nothing in them grows with it."""

_TRAINING = (
    "residual_in_fp32",
    "rescale_prenorm_residual",
    "time_step_min",
    "time_step_max",
    "time_step_floor",
    "time_step_scale",
    "time_step_init_scheme",
    "chunk_size",
    "use_mambapy",
    "use_falcon_mambapy",
    "use_associative_scan",
    "fused_add_norm",
    "pad_vocab_size_multiple",
    "use_mamba_kernels",
    "mamba_chunk_size",
)
"""What says how weights began, which kernels were meant, or in which pieces a scan is cut."""


def skip_training(hf: HfConfig) -> None:
    """Leaves unread what changes no number of inference."""
    hf.skip(*_TRAINING)


def step_rank(hf: HfConfig, key: str = "time_step_rank") -> int:
    """The rank of the product that makes steps: a number, or a sixteenth of the width."""
    return hf.int_or(key, "auto", math.ceil(hf.int_("hidden_size") / 16))


def silu_only(hf: HfConfig, key: str = "hidden_act") -> None:
    """Refuses another activation than silu behind the convolution."""
    hf.choice(key, {"silu": "silu", "swish": "silu"}, "silu")


def mamba1(hf: HfConfig, prefix: str = "", **fields: Any) -> Mamba1:
    """`expand`, `state_size` and so on; with prefix "mamba_" Jamba's spellings."""
    state, conv = ("d_state", "d_conv") if prefix else ("state_size", "conv_kernel")
    rank = "dt_rank" if prefix else "time_step_rank"
    bias = ("proj_bias", "conv_bias") if prefix else ("use_bias", "use_conv_bias")
    inner = hf.int_(f"{prefix}expand", 2) * hf.int_("hidden_size")
    if not prefix:
        inner = hf.optional_int("intermediate_size", inner) or inner
    return Mamba1(
        inner=inner,
        state_size=hf.int_(f"{prefix}{state}", 16),
        step_rank=step_rank(hf, f"{prefix}{rank}"),
        kernel=hf.int_(f"{prefix}{conv}", 4),
        bias=hf.bool_(f"{prefix}{bias[0]}", False),
        conv_bias=hf.bool_(f"{prefix}{bias[1]}", True),
        **fields,
    )


def mamba2(hf: HfConfig, inner: int | None = None, *, eps: float, **fields: Any) -> Mamba2:
    """`mamba_n_heads`, `mamba_d_state` and so on, as hybrids spell them.

    inner  numbers a token that pass the state; None: `mamba_expand` times the width.
    eps    of the norm that the gate is part of, which is over each group's heads.
    """
    skip_training(hf)
    silu_only(hf)
    heads, expand = hf.int_("mamba_n_heads", 128), hf.int_("mamba_expand", 2)
    inner = inner or expand * hf.int_("hidden_size")
    size = hf.int_or("mamba_d_head", "auto", inner // heads)
    if heads * size != inner:
        raise hf.refuse("mamba_n_heads", f"times mamba_d_head {size} it must be {inner}")
    groups = hf.int_("mamba_n_groups", 1)
    values: dict[str, Any] = {
        "num_heads": heads,
        "head_size": size,
        "state_size": hf.int_("mamba_d_state", 256),
        "num_groups": groups,
        "kernel": hf.int_("mamba_d_conv", 4),
        "conv_bias": hf.bool_("mamba_conv_bias", True),
        "bias": hf.bool_("mamba_proj_bias", False),
        "norm_groups": groups,
        "norm_eps": eps,
        "step_limit": hf.span("time_step_limit"),
    }
    return Mamba2(**{**values, **fields})


def with_mixers(
    spec: DecoderSpec, mixer: Mamba1 | Mamba2 | HeadMamba, attends: Callable[[int], bool]
) -> DecoderSpec:
    """The same decoder with `mixer` in the layers that do not attend."""
    layers = [
        layer if attends(index) else replace(layer, mixer=mixer)
        for index, layer in enumerate(spec.layers)
    ]
    return replace(spec, layers=tuple(layers))


def mamba_rules(block: str, target: str = "mixer") -> tuple[Rule, ...]:
    """Rules for a mixer with one decay a head below `block` in Mamba's names."""
    mixer = f"{OURS}.{target}"
    return (
        *pair(f"{block}.in_proj", f"{mixer}.in", parts=(0, 1, 2)),
        *pair(f"{block}.conv1d", f"{mixer}.conv"),
        Rule(f"{block}.dt_bias", f"{mixer}.step_bias"),
        Rule(f"{block}.A_log", f"{mixer}.decay", fold="minus_exp"),
        Rule(f"{block}.D", f"{mixer}.skip"),
        Rule(f"{block}.norm.weight", f"{mixer}.norm.weight"),
        *pair(f"{block}.out_proj", f"{mixer}.back"),
    )


def mamba1_rules(block: str) -> tuple[Rule, ...]:
    """The same for a mixer with a decay of each number."""
    mixer = f"{OURS}.mixer"
    return (
        *pair(f"{block}.in_proj", f"{mixer}.in", parts=(0, 1)),
        *pair(f"{block}.conv1d", f"{mixer}.conv"),
        Rule(f"{block}.x_proj.weight", f"{mixer}.made.weight", parts=(0, 1, 2)),
        Rule(f"{block}.dt_proj.weight", f"{mixer}.step.weight"),
        Rule(f"{block}.dt_proj.bias", f"{mixer}.step_bias"),
        Rule(f"{block}.A_log", f"{mixer}.decay", fold="minus_exp"),
        Rule(f"{block}.D", f"{mixer}.skip"),
        *pair(f"{block}.out_proj", f"{mixer}.back"),
    )


_FEED_FORWARD = f"{LAYER}.feed_forward"
HYBRID_NAMES = LLAMA_NAMES.without(
    "layers.{layer}.norm_before_feed_forward",
    "layers.{layer}.feed_forward.gate_up",
    "layers.{layer}.feed_forward.down",
    "final_norm",
).with_rules(
    Rule("model.final_layernorm.weight", "final_norm.weight"),
    Rule(f"{LAYER}.pre_ff_layernorm.weight", f"{OURS}.norm_before_feed_forward.weight"),
    *pair(f"{_FEED_FORWARD}.gate_proj", f"{OURS}.feed_forward.gate_up", parts=(0,)),
    *pair(f"{_FEED_FORWARD}.up_proj", f"{OURS}.feed_forward.gate_up", parts=(1,)),
    *pair(f"{_FEED_FORWARD}.down_proj", f"{OURS}.feed_forward.down"),
)
"""Llama's names as hybrids of Mamba and attention changed them."""
