"""BART and mBART: learned positions, LayerNorms with biases, biases throughout, and one for the logits.

What encoder-decoder families share is in `models.hf_seq2seq`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation
from quire.models.hf_seq2seq import both_ways, check_width, looking, skip_common
from quire.models.name_parts import ours, pair, separate_heads
from quire.models.names import Rule, WeightMap
from quire.models.spec import (
    Attention,
    DecoderSpec,
    Dense,
    EncoderSpec,
    LayerSpec,
    NormKind,
    Placement,
)

_SKIPPED_ROWS = 2  # of the table of positions
_EPS = 1e-5
_HISTORY = ("normalize_before", "normalize_embedding", "add_final_layer_norm", "add_bias_logits")


def bart(hf: HfConfig) -> DecoderSpec:
    """`BartForConditionalGeneration`: norms after the sums. Source: arXiv 1910.13461."""
    for key, needed in zip(_HISTORY, (False, True, False, False), strict=True):
        if hf.bool_(key, needed) is not needed:
            raise hf.refuse(key, f"only {str(needed).lower()} is supported here")
    return _spec(hf, "after_sums")


def mbart(hf: HfConfig) -> DecoderSpec:
    """`MBartForConditionalGeneration`: norms before the parts, and at the end. Source: arXiv 2001.08210."""
    for key, needed in zip(_HISTORY[:3], (True, True, True), strict=True):
        if hf.bool_(key, needed) is not needed:
            raise hf.refuse(key, f"only {str(needed).lower()} is supported here")
    hf.skip("add_bias_logits")
    return _spec(hf, "pre")


def _spec(hf: HfConfig, placement: Placement) -> DecoderSpec:
    skip_common(hf, "num_hidden_layers", "extra_pos_embeddings", "output_past", "_num_labels")
    hf.skip("encoder_no_repeat_ngram_size", "force_bos_token_to_be_generated")
    for key in ("static_position_embeddings", "do_blenderbot_90_layernorm"):
        if hf.bool_(key, False):
            raise hf.refuse(key, "only false is supported here")
    width = hf.int_("d_model", 1024)
    act = activation(hf, "gelu", key="activation_function")
    length = hf.int_("max_position_embeddings", 1024)

    def layer(half: str) -> LayerSpec:
        key = f"{half}_attention_heads"
        heads = hf.int_(key, 16)
        mixer = Attention(
            num_heads=heads,
            num_kv_heads=heads,
            head_size=check_width(hf, key, width, heads),
            rope=None,
            qkv_bias=True,
            out_bias=True,
        )
        ffn = hf.int_(f"{half}_ffn_dim", 4096)
        part = Dense(width=ffn, activation=act, bias=True, gated=False)
        return LayerSpec(
            mixer=mixer, feed_forward=part, placement=placement, norm="layer", norm_eps=_EPS
        )

    first = layer("encoder")
    assert isinstance(first.mixer, Attention)
    first = replace(first, mixer=both_ways(first.mixer))
    norm: NormKind = "none" if placement == "after_sums" else "layer"
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=width,
        max_position_embeddings=length,
        layers=(looking(layer("decoder")),) * hf.int_("decoder_layers", 12),
        norm=norm,
        norm_eps=_EPS,
        embedding_norm="layer",
        embedding_scale=width**0.5 if hf.bool_("scale_embedding", False) else 1.0,
        learned_positions=length,
        head_bias=True,
        tie_head=hf.bool_("tie_word_embeddings", True),
        encoder=EncoderSpec(
            max_len=length,
            layers=(first,) * hf.int_("encoder_layers", 12),
            norm=norm,
            norm_eps=_EPS,
            embedding_norm="layer",
            learned_positions=length,
        ),
    )


_PARTS = (
    ("self_attn.out_proj", "mixer.out"),
    ("fc1", "feed_forward.up"),
    ("fc2", "feed_forward.down"),
)


def _stack(source: str, target: str, norms: dict[str, str]) -> tuple[Rule, ...]:
    """The rules of encoder or decoder below `source`; `norms` of a layer by our names."""
    layer = f"{source}.layers.{{layer}}"
    found = (
        *separate_heads(layer, *(f"self_attn.{name}_proj" for name in "qkv")),
        *ours(layer, *_PARTS, *((theirs, own) for own, theirs in norms.items())),
        Rule(f"{source}.embed_positions.weight", "positions.weight", skip=_SKIPPED_ROWS),
        *pair(f"{source}.layernorm_embedding", "embedding_norm"),
        *pair(f"{source}.layer_norm", "final_norm"),
    )
    return tuple(replace(rule, target=f"{target}{rule.target}") for rule in found)


def _names(where: str) -> WeightMap:
    """where  norms stand: "after" the sums or "before" the parts."""
    norms = {
        f"norm_{where}_mixer": "self_attn_layer_norm",
        f"norm_{where}_feed_forward": "final_layer_norm",
    }
    layer, cross = "model.decoder.layers.{layer}.encoder_attn", "layers.{layer}.cross"
    return WeightMap(
        (
            Rule("model.shared.weight", "embedding.weight"),
            *_stack("model.encoder", "encoder.", norms),
            *_stack(
                "model.decoder", "", norms | {f"norm_{where}_cross": "encoder_attn_layer_norm"}
            ),
            *pair(f"{layer}.q_proj", f"{cross}.q"),
            *pair(f"{layer}.k_proj", f"{cross}.kv", parts=(0,)),
            *pair(f"{layer}.v_proj", f"{cross}.kv", parts=(1,)),
            *pair(f"{layer}.out_proj", f"{cross}.out"),
            Rule("final_logits_bias", "head.bias", squeeze=True),
            Rule("lm_head.weight", "head.weight"),
        ),
        ignored=("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"),
        ignored_if_tied=("lm_head.weight",),
        optional=("final_logits_bias",),
        ones=("head.bias",),
    )


ARCHITECTURES = {
    "BartForConditionalGeneration": Architecture(bart, _names("after")),
    "MBartForConditionalGeneration": Architecture(mbart, _names("before")),
}
