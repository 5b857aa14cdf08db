"""Gated delta nets as config.json and checkpoints of several families spell them.

What they compute is `layers.delta_net`; the layers around them are the families' business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation
from quire.models.hf_parts import layer_kinds
from quire.models.name_parts import LAYER, OURS
from quire.models.names import Rule
from quire.models.recurrent import GatedDeltaNet
from quire.models.spec import Mixer

KINDS = ("linear_attention", "full_attention")


def delta_net(
    hf: HfConfig,
    *,
    heads: tuple[int, int] = (16, 32),
    sizes: tuple[int, int] = (128, 128),
    **fields: Any,
) -> GatedDeltaNet:
    """A mixer of `linear_*` keys; defaults of the heads of keys and values, and of their sizes.

    `linear_keys_in_turns` is said by GGUF files alone.
    """
    key_heads = hf.optional_int("linear_num_key_heads", heads[0]) or heads[0]
    num_heads = hf.optional_int("linear_num_value_heads", heads[1]) or heads[1]
    if num_heads % key_heads:
        raise hf.refuse("linear_num_value_heads", f"it must be a multiple of {key_heads} key heads")
    check_convolution(hf)
    return GatedDeltaNet(
        key_heads=key_heads,
        num_heads=num_heads,
        key_size=hf.optional_int("linear_key_head_dim", sizes[0]) or sizes[0],
        value_size=hf.optional_int("linear_value_head_dim", sizes[1]) or sizes[1],
        kernel=hf.int_("linear_conv_kernel_dim", 4, minimum=2),
        in_turns=hf.bool_("linear_keys_in_turns", False),
        **fields,
    )


def channel_net(
    hf: HfConfig, *, heads: int, size: int, kernel: int, **fields: Any
) -> GatedDeltaNet:
    """Kimi's, with sigmoid gates; the numbers are defaults of `linear_*` keys. Source: arXiv 2510.26692."""
    check_convolution(hf)
    heads = hf.int_("linear_num_heads", heads)
    size = hf.int_("linear_head_dim", size)
    return GatedDeltaNet(
        key_heads=heads,
        num_heads=heads,
        key_size=size,
        value_size=size,
        kernel=hf.int_("linear_conv_kernel_dim", kernel, minimum=2),
        gate="sigmoid",
        **fields,
    )


def check_convolution(hf: HfConfig) -> None:
    """The activation of the feed-forward parts stands behind the convolution too."""
    if activation(hf) != "silu":
        raise hf.refuse(
            "hidden_act", "the convolutions of this architecture are computed with silu"
        )


def every_fourth(hf: HfConfig, delta: Mixer, whole: Mixer) -> list[Mixer]:
    """The mixer of each layer: as `layer_types` says, else every `full_attention_interval`-th is `whole`."""
    interval = hf.int_("full_attention_interval", 4)
    default: Callable[[int], str] = lambda index: KINDS[(index + 1) % interval == 0]  # noqa: E731
    return [whole if kind == KINDS[1] else delta for kind in layer_kinds(hf, KINDS, default)]


_MIXER = f"{OURS}.mixer"


def state_rules(block: str) -> tuple[Rule, ...]:
    """Rules for what a delta net keeps in float32 beside its convolution, below `block` of a layer."""
    return (
        Rule(f"{LAYER}.{block}.A_log", f"{_MIXER}.rate", fold="exp", squeeze=True),
        Rule(f"{LAYER}.{block}.dt_bias", f"{_MIXER}.decay_bias"),
    )


def conv_rules(block: str, *names: str) -> tuple[Rule, ...]:
    """Rules for the convolution: of q, k and v in order in one tensor, or in one each."""
    parts = [(0, 1, 2)] if len(names) == 1 else [(0,), (1,), (2,)]
    return tuple(
        Rule(f"{LAYER}.{block}.{name}.weight", f"{_MIXER}.conv.weight", part, squeeze=True)
        for name, part in zip(names, parts, strict=True)
    )


def product_rules(block: str, *names: tuple[str, str, int]) -> tuple[Rule, ...]:
    """Rules for weights: (name below `block`, our product, which part of it)."""
    return tuple(
        Rule(f"{LAYER}.{block}.{name}.weight", f"{_MIXER}.{target}.weight", (part,))
        for name, target, part in names
    )
