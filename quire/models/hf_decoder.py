"""The plain layer as most config.json files spell it; a family says what differs by naming fields.

Positions, activations and kinds of layers are read by `models.hf_parts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, default_head_size, head_counts, rope
from quire.models.spec import (
    Activation,
    Attention,
    DecoderSpec,
    Dense,
    FeedForward,
    LayerSpec,
    Mla,
    Moe,
    Placement,
)


def attention(
    hf: HfConfig,
    *,
    bias: bool | None = False,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    theta: tuple[str, float] = ("rope_theta", 10_000.0),
    part: tuple[str, float] | None = None,
    interleaved: bool = False,
    normed: float | None = None,
    **fields: Any,
) -> Attention:
    """Heads, positions and biases.

    bias      default of `attention_bias`, which is for all four products; None: there is no such key.
    heads, kv_heads, head_dim   defaults of their keys; None: one is required, as many as heads, width over heads.
    theta, part  as in `hf_parts.rope`, which is asked unless `rope` is among the fields.
    interleaved  neighbours turn in pairs.
    normed    an RMS norm over each head of q and k, with `rms_norm_eps`, whose default this is.
    fields    of Attention, over what the file says.
    """
    num_heads, num_kv_heads = head_counts(hf, default_heads=heads, default_kv_heads=kv_heads)
    head_size = hf.optional_int("head_dim", head_dim) or default_head_size(hf)
    values: dict[str, Any] = {
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_size": head_size,
    }
    if "rope" not in fields:
        turned = rope(hf, head_size=head_size, theta=theta, part=part)
        values["rope"] = replace(turned, interleaved=interleaved)
    if bias is not None:
        values["qkv_bias"] = values["out_bias"] = hf.bool_("attention_bias", bias)
    if normed is not None:
        values["qk_norm"], values["norm_eps"] = "per_head", hf.positive("rms_norm_eps", normed)
    return Attention(**{**values, **fields})


def with_attention(spec: DecoderSpec, change: Callable[[int, Attention], Attention]) -> DecoderSpec:
    """The same decoder with `change(number of the layer, its mixer)` for each mixer."""
    layers = [
        replace(layer, mixer=change(index, layer.mixer))
        if isinstance(layer.mixer, Attention)
        else layer
        for index, layer in enumerate(spec.layers)
    ]
    return replace(spec, layers=tuple(layers))


def with_parts(spec: DecoderSpec, *parts: FeedForward | None) -> DecoderSpec:
    """The same decoder with these feed-forward parts, one for each layer or one for all."""
    chosen = parts * len(spec.layers) if len(parts) == 1 else parts
    pairs = zip(spec.layers, chosen, strict=True)
    return replace(spec, layers=tuple(replace(one, feed_forward=part) for one, part in pairs))


def with_placement(spec: DecoderSpec, placement: Placement) -> DecoderSpec:
    """The same decoder with the norms of all layers elsewhere."""
    return replace(spec, layers=tuple(replace(one, placement=placement) for one in spec.layers))


def plain(
    hf: HfConfig,
    mixers: Attention | Sequence[Attention],
    part: Dense,
    *,
    eps: float = 1e-6,
    placement: Placement = "pre",
    **fields: Any,
) -> DecoderSpec:
    """A decoder with RMS norms and these mixers, one for each layer or one for all.

    eps     default of `rms_norm_eps`.
    fields  as in `decoder`.
    """
    eps = hf.positive("rms_norm_eps", eps)
    count = 1
    if isinstance(mixers, Attention):
        mixers, count = (mixers,), hf.int_("num_hidden_layers")
    layers = [
        LayerSpec(mixer=mixer, feed_forward=part, placement=placement, norm_eps=eps)
        for mixer in mixers
    ]
    return decoder(hf, layers * count, **fields)


def layered(
    hf: HfConfig,
    mixer: Attention | Mla,
    parts: Sequence[FeedForward],
    *,
    eps: float = 1e-6,
    **fields: Any,
) -> DecoderSpec:
    """A decoder with RMS norms, one mixer in all layers and a feed-forward part for each.

    eps, fields  as in `plain`.
    """
    eps = hf.positive("rms_norm_eps", eps)
    layers = [LayerSpec(mixer=mixer, feed_forward=part, norm_eps=eps) for part in parts]
    return decoder(hf, layers, **fields)


def experts(
    hf: HfConfig, num_experts: int, top_k: int, *, key: str = "num_experts", **fields: Any
) -> Moe:
    """Experts of `intermediate_size` with `hidden_act`, unless the fields say otherwise.

    num_experts, top_k  defaults of `key` and of `num_experts_per_tok`.
    """
    values: dict[str, Any] = {
        "num_experts": hf.int_(key, num_experts),
        "top_k": hf.int_("num_experts_per_tok", top_k),
    }
    if "width" not in fields:
        values["width"] = hf.int_("intermediate_size")
    if "activation" not in fields:
        values["activation"] = activation(hf)
    return Moe(**values, **fields)


def head_share(
    hf: HfConfig,
    width: int,
    heads: int,
    keys: tuple[str, str] = ("hidden_size", "num_attention_heads"),
) -> int:
    """The size of each of `heads` heads that share `width`; `keys` is where the two come from."""
    if width % heads:
        raise hf.refuse(keys[0], f"it must be a multiple of {keys[1]} {heads}")
    return width // heads


def shared_width(
    hf: HfConfig,
    width: int,
    heads: int,
    *,
    keys: tuple[str, str] = ("hidden_size", "num_attention_heads"),
    **fields: Any,
) -> Attention:
    """Heads that share `width`; as many of k and v, or `num_kv_heads` of the fields.

    keys  as in `head_share`.
    """
    size, kv_heads = head_share(hf, width, heads, keys), fields.pop("num_kv_heads", heads)
    if heads % kv_heads:
        raise hf.refuse(keys[1], f"it must be a multiple of {kv_heads} heads of k and v")
    return Attention(num_heads=heads, num_kv_heads=kv_heads, head_size=size, **fields)


def activation(hf: HfConfig, default: str = "silu", *, key: str = "hidden_act") -> Activation:
    """What `hidden_act` or another key says."""
    chosen: Activation = hf.choice(key, ACTIVATIONS, default)
    return chosen


def ungated(hf: HfConfig, width: int, default: str, *, bias: bool = True) -> Dense:
    """A feed-forward part without gate, with `activation_function`, and its default."""
    act = activation(hf, default, key="activation_function")
    return Dense(width=width, activation=act, bias=bias, gated=False)


def dense(hf: HfConfig, *, default: str = "silu", **fields: Any) -> Dense:
    """A feed-forward part of `intermediate_size` with `hidden_act`, and its default."""
    values: dict[str, Any] = {}
    if "width" not in fields:
        values["width"] = hf.int_("intermediate_size")
    if "activation" not in fields:
        values["activation"] = activation(hf, default)
    return Dense(**{**values, **fields})


def decoder(
    hf: HfConfig,
    layers: LayerSpec | Sequence[LayerSpec],
    *,
    max_len: int = 2048,
    tie: bool = False,
    learned: bool = False,
    **fields: Any,
) -> DecoderSpec:
    """A decoder of these layers, or of `num_hidden_layers` of one kind; the final norm is as theirs.

    max_len, tie  defaults of `max_position_embeddings` and `tie_word_embeddings`.
    learned       each position has a vector of its own.
    fields        of DecoderSpec, over what the file says.
    """
    if isinstance(layers, LayerSpec):
        layers = (layers,) * hf.int_("num_hidden_layers")
    values: dict[str, Any] = {
        "layers": tuple(layers),
        "norm": layers[0].norm,
        "norm_eps": layers[0].norm_eps,
        "tie_head": hf.bool_("tie_word_embeddings", tie),
    }
    for name, key in (("vocab_size", "vocab_size"), ("hidden_size", "hidden_size")):
        if name not in fields:
            values[name] = hf.int_(key)
    if "max_position_embeddings" not in fields:
        values["max_position_embeddings"] = hf.int_("max_position_embeddings", max_len)
    spec = DecoderSpec(**{**values, **fields})
    return replace(spec, learned_positions=spec.max_position_embeddings) if learned else spec
