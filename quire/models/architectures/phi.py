"""Phi-3 and Phi-4-mini: q, k, v and gate, up as one tensor each, LongRoPE, parts of heads turned.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS, default_head_size, head_counts, rope
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec


def phi3(hf: HfConfig) -> DecoderSpec:
    """`Phi3ForCausalLM`; defaults as in Phi3Config. Source: arXiv 2404.14219, 2503.01743."""
    heads, kv_heads = head_counts(hf)
    head_size = hf.optional_int("head_dim") or default_head_size(hf)
    eps = hf.positive("rms_norm_eps", 1e-5)
    for key in ("attention_bias", "mlp_bias", "lm_head_bias"):
        if hf.bool_(key, False):
            raise hf.refuse(key, "this architecture has no biases")
    for key in ("full_attn_mod", "interpolate_factor"):
        if hf.int_(key, 1) != 1:
            raise hf.refuse(key, "only 1, which changes nothing, is supported")
    hf.skip("original_max_position_embeddings")  # read with LongRoPE; without it, it says nothing
    layer = LayerSpec(
        mixer=Attention(
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_size=head_size,
            rope=rope(hf, head_size=head_size, part=("partial_rotary_factor", 1.0)),
            window=hf.optional_int("sliding_window"),
        ),
        feed_forward=Dense(
            width=hf.int_("intermediate_size"),
            activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
        ),
        norm_eps=eps,
    )
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=hf.int_("hidden_size"),
        max_position_embeddings=hf.int_("max_position_embeddings", 4096),
        layers=(layer,) * hf.int_("num_hidden_layers"),
        norm_eps=eps,
        tie_head=hf.bool_("tie_word_embeddings", False),
    )


_LAYER, _OURS = "model.layers.{layer}", "layers.{layer}"

PHI3_NAMES = LLAMA_NAMES.without(f"{_OURS}.mixer.qkv", f"{_OURS}.feed_forward.gate_up").with_rules(
    Rule(f"{_LAYER}.self_attn.qkv_proj.weight", f"{_OURS}.mixer.qkv.weight", parts=(0, 1, 2)),
    Rule(f"{_LAYER}.mlp.gate_up_proj.weight", f"{_OURS}.feed_forward.gate_up.weight", parts=(0, 1)),
)

ARCHITECTURES = {"Phi3ForCausalLM": Architecture(phi3, PHI3_NAMES)}
