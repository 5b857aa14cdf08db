"""Nemotron, Jais 2 and Persimmon: LayerNorm with bias, a feed-forward part of squared ReLU without gate.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.name_parts import (
    LAYER,
    MEGATRON_PARTS,
    NORM_BIAS_RULES,
    PLAIN_MLP_RULES,
    joined_heads,
    ours,
    pair,
)
from quire.models.names import LLAMA_NAMES, Rule, WeightMap
from quire.models.spec import Attention, DecoderSpec, LayerSpec


def nemotron(hf: HfConfig) -> DecoderSpec:
    """`NemotronForCausalLM`: parts of heads turned, norms of 1 + w. Source: arXiv 2402.16819."""
    return _decoder(
        hf,
        attention(hf, part=("partial_rotary_factor", 0.5)),
        bias=hf.bool_("mlp_bias", False),
        eps=hf.positive("norm_eps", 1e-5),
        max_len=4096,
    )


def jais2(hf: HfConfig) -> DecoderSpec:
    """`Jais2ForCausalLM`."""
    return _decoder(
        hf,
        attention(hf, bias=True),
        bias=hf.bool_("mlp_bias", True),
        eps=hf.positive("layer_norm_eps", 1e-5),
        max_len=8192,
    )


def persimmon(hf: HfConfig) -> DecoderSpec:
    """`PersimmonForCausalLM`: a LayerNorm over each head of q and k, biases throughout.

    Defaults as in PersimmonConfig.
    """
    eps = hf.positive("layer_norm_eps", 1e-5)
    has_norm = hf.bool_("qk_layernorm", True)
    mixer = attention(
        hf,
        bias=None,
        theta=("rope_theta", 10_000.0),
        part=("partial_rotary_factor", 0.5),
        qkv_bias=True,
        out_bias=True,
        qk_norm="layer" if has_norm else "none",
        norm_eps=eps if has_norm else Attention.norm_eps,
    )
    return _decoder(hf, mixer, bias=True, eps=eps, max_len=16_384)


def _decoder(
    hf: HfConfig, mixer: Attention, *, bias: bool, eps: float, max_len: int
) -> DecoderSpec:
    part = dense(hf, default="relu2", gated=False, bias=bias)
    layer = LayerSpec(mixer=mixer, feed_forward=part, norm="layer", norm_eps=eps)
    return decoder(hf, layer, max_len=max_len)


JAIS2_NAMES = LLAMA_NAMES.with_rules(*PLAIN_MLP_RULES, *NORM_BIAS_RULES)


NEMOTRON_NAMES = JAIS2_NAMES.folded(
    "add_one",
    f"{LAYER}.input_layernorm.weight",
    f"{LAYER}.post_attention_layernorm.weight",
    "model.norm.weight",
)

PERSIMMON_NAMES = WeightMap(
    rules=(
        Rule("model.embed_tokens.weight", "embedding.weight"),
        *joined_heads(f"{LAYER}.self_attn.query_key_value", fold="gather_heads"),
        *ours(
            LAYER,
            *MEGATRON_PARTS,
            ("self_attn.q_layernorm", "mixer.q_norm"),
            ("self_attn.k_layernorm", "mixer.k_norm"),
            ("self_attn.dense", "mixer.out"),
            ("mlp.dense_h_to_4h", "feed_forward.up"),
        ),
        *pair("model.final_layernorm", "final_norm"),
        Rule("lm_head.weight", "head.weight"),
    ),
    ignored=(f"{LAYER}.self_attn.rotary_emb.inv_freq",),
    ignored_if_tied=("lm_head.weight",),
)

ARCHITECTURES = {
    "NemotronForCausalLM": Architecture(nemotron, NEMOTRON_NAMES),
    "Jais2ForCausalLM": Architecture(jais2, JAIS2_NAMES),
    "PersimmonForCausalLM": Architecture(persimmon, PERSIMMON_NAMES),
}
