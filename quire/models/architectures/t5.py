"""T5, Flan-T5, mT5 and UMT5: RMS norms, no biases, learned scores of distances, scores that are not divided.

What encoder-decoder families share is in `models.hf_seq2seq`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_parts import ACTIVATIONS
from quire.models.hf_seq2seq import both_ways, looking, skip_common
from quire.models.name_parts import OURS
from quire.models.names import Rule, WeightMap
from quire.models.spec import Attention, DecoderSpec, Dense, Distances, EncoderSpec, LayerSpec

_ACTS = {"relu": ("relu", False), "gated-gelu": ("gelu_new", True), "gated-silu": ("silu", True)}
_FEED_FORWARD = {**_ACTS, "gelu": ("gelu", False), "gelu_new": ("gelu_new", False)}


_HEAD = "lm_head.weight"


def t5(hf: HfConfig, *, act: str = "relu", tie: bool = True) -> DecoderSpec:
    """`T5ForConditionalGeneration`; its later files have gates and a head of their own.

    Logits of a shared head are scaled; newer files say so apart from `tie_word_embeddings`.

    Source: arXiv 1910.10683; with gates, 2002.05202.
    """
    skip_common(hf, "dense_act_fn", "is_gated_act", "output_past", "n_ctx")
    width, heads = hf.int_("d_model", 512), hf.int_("num_heads", 8)
    name, gated = hf.choice("feed_forward_proj", _FEED_FORWARD, act)
    mixer = Attention(
        num_heads=heads,
        num_kv_heads=heads,
        head_size=hf.int_("d_kv", 64),
        rope=None,
        scale=1.0,
        distances=Distances(
            buckets=hf.int_("relative_attention_num_buckets", 32, minimum=4),
            farthest=hf.int_("relative_attention_max_distance", 128),
            both_ways=False,
        ),
    )
    part = Dense(width=hf.int_("d_ff", 2048), activation=ACTIVATIONS[name], gated=gated)
    eps = hf.positive("layer_norm_epsilon", 1e-6)
    layer = LayerSpec(mixer=mixer, feed_forward=part, norm_eps=eps)
    num_layers = hf.int_("num_layers", 6)
    num_decoder_layers = hf.optional_int("num_decoder_layers") or num_layers
    length = hf.int_("n_positions", 512)
    tied = hf.bool_("tie_word_embeddings", tie)
    scaled = hf.bool_("scale_decoder_outputs", tied)
    tied = tied and scaled
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size", 32_128),
        hidden_size=width,
        max_position_embeddings=length,
        layers=(looking(layer),) * num_decoder_layers,
        norm_eps=eps,
        logit_scale=width**-0.5 if scaled else 1.0,
        tie_head=tied,
        encoder=EncoderSpec(
            max_len=length,
            layers=(replace(layer, mixer=both_ways(mixer)),) * num_layers,
            norm_eps=eps,
        ),
    )


def mt5(hf: HfConfig) -> DecoderSpec:
    """`MT5ForConditionalGeneration`: gates, and a head of its own, without a scale. Source: arXiv 2010.11934."""
    return replace(t5(hf, act="gated-gelu", tie=False), tie_head=False, logit_scale=1.0)


def umt5(hf: HfConfig) -> DecoderSpec:
    """`UMT5ForConditionalGeneration`: gates, and scores of distances in every layer. Source: arXiv 2304.09151."""
    return t5(hf, act="gated-gelu", tie=False)


def _stack(source: str, target: str, *, cross: bool, each: bool) -> tuple[Rule, ...]:
    """The rules of encoder or decoder; with `each`, layers have scores of distances of their own."""
    block = f"{source}.block.{{layer}}.layer"
    layer = f"{target}{OURS}"
    last = 2 if cross else 1
    heads = [
        Rule(f"{block}.0.SelfAttention.{name}.weight", f"{layer}.mixer.qkv.weight", (part,))
        for part, name in enumerate("qkv")
    ]
    if cross:
        heads += [
            Rule(f"{block}.1.EncDecAttention.q.weight", f"{layer}.cross.q.weight"),
            Rule(f"{block}.1.EncDecAttention.k.weight", f"{layer}.cross.kv.weight", (0,)),
            Rule(f"{block}.1.EncDecAttention.v.weight", f"{layer}.cross.kv.weight", (1,)),
            Rule(f"{block}.1.EncDecAttention.o.weight", f"{layer}.cross.out.weight"),
            Rule(f"{block}.1.layer_norm.weight", f"{layer}.norm_before_cross.weight"),
        ]
    first = block if each else f"{source}.block.0.layer"
    part = f"{block}.{last}.DenseReluDense"
    return (
        *heads,
        Rule(f"{first}.0.SelfAttention.relative_attention_bias.weight", f"{layer}.mixer.distances"),
        Rule(f"{block}.0.SelfAttention.o.weight", f"{layer}.mixer.out.weight"),
        Rule(f"{block}.0.layer_norm.weight", f"{layer}.norm_before_mixer.weight"),
        Rule(f"{block}.{last}.layer_norm.weight", f"{layer}.norm_before_feed_forward.weight"),
        Rule(f"{part}.wi.weight", f"{layer}.feed_forward.up.weight"),
        Rule(f"{part}.wi_0.weight", f"{layer}.feed_forward.gate_up.weight", (0,)),
        Rule(f"{part}.wi_1.weight", f"{layer}.feed_forward.gate_up.weight", (1,)),
        Rule(f"{part}.wo.weight", f"{layer}.feed_forward.down.weight"),
        Rule(f"{source}.final_layer_norm.weight", f"{target}final_norm.weight"),
    )


def _names(*, each: bool = False) -> WeightMap:
    return WeightMap(
        (
            Rule("shared.weight", "embedding.weight"),
            *_stack("encoder", "encoder.", cross=False, each=each),
            *_stack("decoder", "", cross=True, each=each),
            Rule(_HEAD, "head.weight"),
        ),
        # Copies of the table, and scores of distances that early files have and nobody reads.
        ignored=(
            "encoder.embed_tokens.weight",
            "decoder.embed_tokens.weight",
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
        ),
        ignored_if_tied=(_HEAD,),
    )


ARCHITECTURES = {
    "T5ForConditionalGeneration": Architecture(t5, _names(), own_head=_HEAD),
    "MT5ForConditionalGeneration": Architecture(mt5, _names(), own_head=_HEAD),
    "UMT5ForConditionalGeneration": Architecture(umt5, _names(each=True), own_head=_HEAD),
}
