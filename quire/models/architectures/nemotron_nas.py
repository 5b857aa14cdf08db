"""Llama-Nemotron (DeciLM): layers of Llama with sizes of their own, some without one of the two parts.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder
from quire.models.names import LLAMA_NAMES
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Placement

_STEP = 256  # what the width of a feed-forward part is rounded up to
_HEAD_KEYS = ("num_sink_tokens", "sparsify", "unshifted_sink", "window_length")


def decilm(hf: HfConfig) -> DecoderSpec:
    """`DeciLMForCausalLM`: `block_configs` has each layer's parts. Source: arXiv 2411.19146."""
    hf.skip("intermediate_size", "num_key_value_heads")
    blocks = hf.sections("block_configs")
    count = hf.int_("num_hidden_layers")
    if len(blocks) != count:
        raise hf.refuse("block_configs", f"it must have num_hidden_layers {count} entries")
    return decoder(hf, [_layer(hf, block) for block in blocks], max_len=2048)


def _layer(hf: HfConfig, block: HfConfig) -> LayerSpec:
    mixer, part = _mixer(hf, block), _part(hf, block)
    if mixer is None and part is None:
        raise hf.refuse("block_configs", "a layer must have attention or a feed-forward part")
    eps = hf.positive("rms_norm_eps", 1e-6)
    if mixer is None:
        return LayerSpec(mixer=None, feed_forward=part, placement="feed_forward_only", norm_eps=eps)
    placement: Placement = "mixer_only" if part is None else "pre"
    return LayerSpec(mixer=mixer, feed_forward=part, placement=placement, norm_eps=eps)


def _own(block: HfConfig, name: str) -> HfConfig | None:
    """The settings of one part; None if the layer has none."""
    own = block.section(name)
    if own is None:
        raise block.refuse(name, "it must be an object")
    if own.bool_("replace_with_linear", False):
        raise own.refuse("replace_with_linear", "a product in place of a part is not described")
    if not own.bool_("no_op", False):
        return own
    own.skip(*own.names())
    return None


def _mixer(hf: HfConfig, block: HfConfig) -> Attention | None:
    own = _own(block, "attention")
    if own is None:
        return None
    own.skip("use_prefill_window_in_sink_attention")
    for key in _HEAD_KEYS:
        if own.has(key) and own.bool_(key, False):
            raise own.refuse(key, "it is not described for this architecture")
    heads, group = hf.int_("num_attention_heads"), own.int_("n_heads_in_group")
    if heads % group:
        raise own.refuse("n_heads_in_group", f"num_attention_heads {heads} must be a multiple")
    return attention(hf, num_kv_heads=heads // group)


def _part(hf: HfConfig, block: HfConfig) -> Dense | None:
    own = _own(block, "ffn")
    if own is None:
        return None
    own.skip("sparsify")
    width = int(2 * own.positive("ffn_mult") * hf.int_("hidden_size") / 3)
    return Dense(
        width=-(-width // _STEP) * _STEP,
        activation=activation(hf),
        bias=hf.bool_("mlp_bias", False),
    )


ARCHITECTURES = {"DeciLMForCausalLM": Architecture(decilm, LLAMA_NAMES)}
