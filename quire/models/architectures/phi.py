"""Phi: parts of heads turned; from 3 on q, k, v and gate, up as one tensor each, and LongRoPE.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, plain
from quire.models.hf_parts import demand
from quire.models.name_parts import (
    GATE_UP_RULE,
    LAYER,
    OURS,
    joined_heads,
    ours,
    pair,
    separate_heads,
)
from quire.models.names import LLAMA_NAMES, Rule, WeightMap
from quire.models.spec import Attention, DecoderSpec, LayerSpec


def phi3(hf: HfConfig) -> DecoderSpec:
    """`Phi3ForCausalLM`; defaults as in Phi3Config. Source: arXiv 2404.14219, 2503.01743."""
    never = ("attention_bias", "mlp_bias", "lm_head_bias")
    demand(hf, "this architecture has no biases", **dict.fromkeys(never, False))
    for key in ("full_attn_mod", "interpolate_factor"):
        if hf.int_(key, 1) != 1:
            raise hf.refuse(key, "only 1, which changes nothing, is supported")
    hf.skip("original_max_position_embeddings")  # read with LongRoPE; without it, it says nothing
    mixer = attention(
        hf,
        bias=None,
        part=("partial_rotary_factor", 1.0),
        window=hf.optional_int("sliding_window"),
    )
    return plain(hf, mixer, dense(hf), eps=1e-5, max_len=4096)


def phi(hf: HfConfig) -> DecoderSpec:
    """`PhiForCausalLM` (Phi 1, 1.5 and 2): both parts of a layer read one LayerNorm; biases throughout.

    Defaults as in PhiConfig. Source: arXiv 2309.05463.
    """
    eps = hf.positive("layer_norm_eps", 1e-5)
    has_norm = hf.bool_("qk_layernorm", False)
    mixer = attention(
        hf,
        bias=None,
        part=("partial_rotary_factor", 0.5),
        qkv_bias=True,
        out_bias=True,
        qk_norm="layer" if has_norm else "none",
        norm_eps=eps if has_norm else Attention.norm_eps,
    )
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=dense(hf, default="gelu_new", gated=False, bias=True),
        placement="parallel_shared",
        norm="layer",
        norm_eps=eps,
    )
    return decoder(hf, layer, head_bias=True)


PHI3_NAMES = LLAMA_NAMES.without(f"{OURS}.mixer.qkv", f"{OURS}.feed_forward.gate_up").with_rules(
    *joined_heads(f"{LAYER}.self_attn.qkv_proj"), GATE_UP_RULE
)

PHI_NAMES = WeightMap(
    rules=(
        Rule("model.embed_tokens.weight", "embedding.weight"),
        *separate_heads(LAYER, *(f"self_attn.{name}_proj" for name in "qkv")),
        *ours(
            LAYER,
            ("input_layernorm", "norm_before_parts"),
            ("self_attn.q_layernorm", "mixer.q_norm"),
            ("self_attn.k_layernorm", "mixer.k_norm"),
            ("self_attn.dense", "mixer.out"),
            ("mlp.fc1", "feed_forward.up"),
            ("mlp.fc2", "feed_forward.down"),
        ),
        *pair("model.final_layernorm", "final_norm"),
        *pair("lm_head", "head"),
    ),
    ignored_if_tied=("lm_head.weight", "lm_head.bias"),
)

ARCHITECTURES = {
    "PhiForCausalLM": Architecture(phi, PHI_NAMES),
    "Phi3ForCausalLM": Architecture(phi3, PHI3_NAMES),
}
