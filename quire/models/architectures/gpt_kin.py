"""JAIS, BioGPT, XGLM, the first GPT and the Japanese GPT-NeoX: GPT-2's blocks with a gate, other norms or fewer biases.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, shared_width, ungated
from quire.models.hf_parts import ACTIVATIONS, demand
from quire.models.name_parts import (
    ALL_HEADS,
    GPT_LAYER,
    MEGATRON_PARTS,
    joined_heads,
    ours,
    pair,
    separate_heads,
    transformer_map,
    with_head,
)
from quire.models.names import Rule, WeightMap
from quire.models.spec import DecoderSpec, Dense, LayerSpec

_HEADS = {
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
}
"""Keys about heads for other tasks."""


def jais(hf: HfConfig) -> DecoderSpec:
    """`JAISLMHeadModel`: SwiGLU, scores that fall with the distance, and factors by width. Source: arXiv 2308.16149.

    Older files name the factors without `mup_`, and that of the logits is one number there.
    """
    hf.skip(*_HEADS, "n_ctx", "reorder_and_upcast_attn")
    hf.choice("activation_function", {"swiglu": None})
    hf.choice("position_embedding_type", {"alibi": None}, "learned")
    demand(hf, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    width, heads = hf.int_("n_embd", 768), hf.int_("n_head", 12)
    one = shared_width(
        hf,
        width,
        heads,
        keys=("n_embd", "n_head"),
        rope=None,
        alibi=1.0,
        qkv_bias=True,
        out_bias=True,
    )
    if hf.bool_("scale_qk_dot_by_d", hf.bool_("mup_scale_qk_dot_by_d", False)):
        one = replace(one, scale=1 / one.head_size)
    by_width = hf.positive("mup_width_scale", 1.0) * hf.positive("mup_output_alpha", 1.0)
    layer = LayerSpec(
        mixer=one,
        feed_forward=Dense(width=hf.optional_int("n_inner") or 4 * width, bias=True),
        norm="layer",
        norm_eps=hf.positive("layer_norm_epsilon", 1e-5),
    )
    return decoder(
        hf,
        [layer] * hf.int_("n_layer", 12),
        tie=True,
        vocab_size=hf.int_("vocab_size", 50_257),
        hidden_size=width,
        max_position_embeddings=hf.int_("n_positions", 1024),
        embedding_scale=hf.positive("embeddings_scale", hf.positive("mup_embeddings_scale", 1.0)),
        logit_scale=hf.positive("width_scale", by_width),
    )


def biogpt(hf: HfConfig) -> DecoderSpec:
    """`BioGptForCausalLM`; defaults as in BioGptConfig. Source: arXiv 2210.10341."""
    hf.skip("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout")
    hf.skip("layerdrop", "layer_norm_eps")  # its code leaves eps as torch has it
    width, heads = hf.int_("hidden_size", 1024), hf.int_("num_attention_heads", 16)
    act = hf.choice("hidden_act", ACTIVATIONS, "gelu")
    inner = hf.int_("intermediate_size", 4096)
    layer = LayerSpec(
        mixer=shared_width(hf, width, heads, rope=None, qkv_bias=True, out_bias=True),
        feed_forward=Dense(width=inner, activation=act, bias=True, gated=False),
        norm="layer",
        norm_eps=1e-5,
    )
    scale = width**0.5 if hf.bool_("scale_embedding", True) else 1.0
    count = hf.int_("num_hidden_layers", 24)
    return decoder(
        hf,
        [layer] * count,
        tie=True,
        learned=True,
        max_len=1024,
        hidden_size=width,
        embedding_scale=scale,
    )


def xglm(hf: HfConfig) -> DecoderSpec:
    """`XGLMForCausalLM`: positions are sines and cosines. Defaults as in XGLMConfig. Source: arXiv 2112.10668."""
    hf.skip("dropout", "activation_dropout", "layerdrop", "init_std", "decoder_start_token_id")
    if (hf.optional_int("pad_token_id", 1, minimum=0) or 0) > 1:
        raise hf.refuse(
            "pad_token_id", "it takes away the position of that row; only 0 and 1 have none"
        )
    width, heads = hf.int_("d_model", 1024), hf.int_("attention_heads", 16)
    keys = ("d_model", "attention_heads")
    layer = LayerSpec(
        mixer=shared_width(hf, width, heads, keys=keys, rope=None, qkv_bias=True, out_bias=True),
        feed_forward=ungated(hf, hf.int_("ffn_dim", 4096), "gelu"),
        norm="layer",
        norm_eps=1e-5,
    )
    return decoder(
        hf,
        [layer] * hf.int_("num_layers", 24),
        tie=True,
        hidden_size=width,
        vocab_size=hf.int_("vocab_size", 256_008),
        embedding_scale=width**0.5 if hf.bool_("scale_embedding", True) else 1.0,
        wave_positions=hf.int_("max_position_embeddings", 2048),
    )


def first_gpt(hf: HfConfig) -> DecoderSpec:
    """`OpenAIGPTLMHeadModel`: norms after the sums, and no last one. Defaults as in OpenAIGPTConfig."""
    hf.skip(*_HEADS, "n_ctx", "n_special", "predict_special_tokens")
    width, heads = hf.int_("n_embd", 768), hf.int_("n_head", 12)
    kinds = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
    act = hf.choice("afn", kinds, "gelu")
    one = shared_width(
        hf, width, heads, keys=("n_embd", "n_head"), rope=None, qkv_bias=True, out_bias=True
    )
    layer = LayerSpec(
        mixer=one,
        feed_forward=Dense(width=4 * width, activation=act, bias=True, gated=False),
        placement="after_sums",
        norm="layer",
        norm_eps=hf.positive("layer_norm_epsilon", 1e-5),
    )
    return decoder(
        hf,
        [layer] * hf.int_("n_layer", 12),
        tie=True,
        learned=True,
        norm="none",
        norm_eps=DecoderSpec.norm_eps,
        vocab_size=hf.int_("vocab_size", 40_478),
        hidden_size=width,
        max_position_embeddings=hf.int_("n_positions", 512),
    )


def neox_japanese(hf: HfConfig) -> DecoderSpec:
    """`GPTNeoXJapaneseForCausalLM`: no biases but in norms and in the output of the last layer's attention."""
    hf.skip("rotary_emb_dropout")
    share, theta = ("rotary_pct", 1.0), ("rotary_emb_base", 10_000.0)
    one = attention(hf, bias=None, heads=32, part=share, theta=theta)
    width = int(hf.positive("intermediate_multiple_size", 4) * hf.int_("hidden_size", 2560))
    layer = LayerSpec(
        mixer=one,
        feed_forward=dense(hf, default="gelu", width=width, gated=False),
        norm="layer",
        norm_eps=hf.positive("layer_norm_eps", 1e-5),
    )
    last = replace(layer, mixer=replace(one, out_bias=True))
    layers = [layer] * (hf.int_("num_hidden_layers", 32) - 1)
    return decoder(hf, [*layers, last], tie=True)


def _in_out(*names: tuple[str, str]) -> tuple[Rule, ...]:
    """Pairs of rules for matrices that stand as [in, out]."""
    return ours(GPT_LAYER, *names, transpose=True)


JAIS_NAMES = transformer_map(
    *pair(f"{GPT_LAYER}.attn.c_attn", "layers.{layer}.mixer.qkv", parts=ALL_HEADS, transpose=True),
    *_in_out(("attn.c_proj", "mixer.out"), ("mlp.c_proj", "feed_forward.down")),
    *ours(GPT_LAYER, ("ln_1", "norm_before_mixer"), ("ln_2", "norm_before_feed_forward")),
    *(
        rule
        for part, name in enumerate(("c_fc2", "c_fc"))
        for rule in pair(
            f"{GPT_LAYER}.mlp.{name}",
            "layers.{layer}.feed_forward.gate_up",
            parts=(part,),
            transpose=True,
        )
    ),
    ignored=(
        "transformer.relative_pe.slopes",
        f"{GPT_LAYER}.attn.bias",
        f"{GPT_LAYER}.attn.masked_bias",
    ),
    optional_prefix="transformer.",
)

_FAIRSEQ_PARTS = (
    ("self_attn_layer_norm", "norm_before_mixer"),
    ("self_attn.out_proj", "mixer.out"),
    ("final_layer_norm", "norm_before_feed_forward"),
    ("fc1", "feed_forward.up"),
    ("fc2", "feed_forward.down"),
)
"""What stands below a layer in fairseq's names."""

_BIO = "biogpt.layers.{layer}"
BIOGPT_NAMES = WeightMap(
    rules=(
        Rule("biogpt.embed_tokens.weight", "embedding.weight"),
        Rule("biogpt.embed_positions.weight", "positions.weight", skip=2),
        *separate_heads(_BIO, *(f"self_attn.{name}_proj" for name in "qkv")),
        *ours(_BIO, *_FAIRSEQ_PARTS),
        *pair("biogpt.layer_norm", "final_norm"),
        Rule("output_projection.weight", "head.weight"),
    ),
    ignored_if_tied=("output_projection.weight",),
)

_XGLM = "model.layers.{layer}"
XGLM_NAMES = with_head(
    Rule("model.embed_tokens.weight", "embedding.weight"),
    *separate_heads(_XGLM, *(f"self_attn.{name}_proj" for name in "qkv")),
    *ours(_XGLM, *_FAIRSEQ_PARTS),
    *pair("model.layer_norm", "final_norm"),
    ignored=("model.embed_positions.weights",),
)

_FIRST = "transformer.h.{layer}"
FIRST_GPT_NAMES = with_head(
    Rule("transformer.tokens_embed.weight", "embedding.weight"),
    Rule("transformer.positions_embed.weight", "positions.weight"),
    *pair(f"{_FIRST}.attn.c_attn", "layers.{layer}.mixer.qkv", parts=ALL_HEADS, transpose=True),
    *_in_out(("attn.c_proj", "mixer.out"), ("mlp.c_fc", "feed_forward.up")),
    *_in_out(("mlp.c_proj", "feed_forward.down")),
    *ours(GPT_LAYER, ("ln_1", "norm_after_mixer"), ("ln_2", "norm_after_feed_forward")),
    ignored=(f"{_FIRST}.attn.bias",),
    optional_prefix="transformer.",
)

_JAPANESE = "gpt_neox_japanese.layers.{layer}"
JAPANESE_NAMES = WeightMap(
    rules=(
        Rule("gpt_neox_japanese.embed_in.weight", "embedding.weight"),
        *joined_heads(f"{_JAPANESE}.attention.query_key_value", fold="gather_heads"),
        *ours(
            _JAPANESE,
            *MEGATRON_PARTS,
            ("attention.dense", "mixer.out"),
            ("mlp.dense_h_to_4h", "feed_forward.up"),
        ),
        Rule(f"{_JAPANESE}.attention.dense_bias", "layers.{layer}.mixer.out.bias"),
        *pair("gpt_neox_japanese.final_layer_norm", "final_norm"),
        Rule("embed_out.weight", "head.weight"),
    ),
    ignored_if_tied=("embed_out.weight",),
)
JAPANESE_NAMES = JAPANESE_NAMES.without_source(f"{_JAPANESE}.attention.dense.bias")

ARCHITECTURES = {
    "JAISLMHeadModel": Architecture(jais, JAIS_NAMES),
    "BioGptForCausalLM": Architecture(biogpt, BIOGPT_NAMES),
    "XGLMForCausalLM": Architecture(xglm, XGLM_NAMES),
    "OpenAIGPTLMHeadModel": Architecture(first_gpt, FIRST_GPT_NAMES),
    "GPTNeoXJapaneseForCausalLM": Architecture(neox_japanese, JAPANESE_NAMES),
}
