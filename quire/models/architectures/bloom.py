"""BLOOM, Falcon and MPT: scores that fall with the distance, or a whole head turned; no gate.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from typing import Any

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, head_share, shared_width
from quire.models.hf_parts import ACTIVATIONS, rope
from quire.models.name_parts import (
    GPT_LAYER,
    MEGATRON_PARTS,
    for_placement,
    joined_heads,
    ours,
    pair,
    with_head,
)
from quire.models.names import Rule
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Placement


def bloom(hf: HfConfig) -> DecoderSpec:
    """`BloomForCausalLM`: a norm of the embedding, biases throughout. Source: arXiv 2211.05100."""
    if hf.bool_("apply_residual_connection_post_layernorm", False):
        raise hf.refuse("apply_residual_connection_post_layernorm", "only sums before the norm")
    width = hf.int_("hidden_size", hf.optional_int("n_embed") or 64)
    heads = hf.int_("n_head", hf.optional_int("num_attention_heads") or 8)
    # Sizes under other names, and how the reference splits its sums.
    hf.skip("n_embed", "num_attention_heads", "offset_alibi", "seq_length", "slow_but_exact")
    hf.skip(
        "skip_bias_add", "skip_bias_add_qkv", "attention_softmax_in_fp32", "masked_softmax_fusion"
    )
    hf.skip("bias_dropout_fusion", "unk_token_id")
    mixer = shared_width(hf, width, heads, rope=None, alibi=1.0, qkv_bias=True, out_bias=True)
    layers = _layers(hf, mixer, _plain(4 * width, "gelu_tanh", bias=True), "n_layer", 2)
    return decoder(
        hf,
        layers,
        tie=True,
        hidden_size=width,
        max_position_embeddings=hf.optional_int("seq_length") or 2048,
        embedding_norm="layer",
    )


def falcon(hf: HfConfig) -> DecoderSpec:
    """`FalconForCausalLM`: one head of k and v, or a few; both parts of a layer in parallel.

    The first files, `RWForCausalLM`, have GPT-2's keys, and few heads are told by `n_head_kv` alone.
    Slopes stand under the root that divides the scores. Defaults as in FalconConfig.
    Source: arXiv 2311.16867.
    """
    width = hf.int_("hidden_size", hf.optional_int("n_embed") or 4544)
    heads = hf.int_("num_attention_heads", hf.optional_int("n_head") or 71)
    size = head_share(hf, width, heads)
    grouped = hf.bool_("new_decoder_architecture", hf.has("n_head_kv"))
    kv_heads = hf.optional_int("num_kv_heads", hf.optional_int("n_head_kv")) or heads
    if not grouped and hf.bool_("multi_query", True):
        kv_heads = 1
    hf.skip("multi_query", "num_kv_heads", "n_embed", "n_head", "ff_factor")
    if hf.bool_("apply_residual_connection_post_layernorm", False):
        raise hf.refuse("apply_residual_connection_post_layernorm", "only sums before the norm")
    bias, alibi = hf.bool_("bias", False), hf.bool_("alibi", False)
    if alibi:
        hf.skip("rope_parameters", "rope_scaling", "rope_theta")
    mixer = shared_width(
        hf,
        width,
        heads,
        num_kv_heads=kv_heads,
        rope=None if alibi else rope(hf, head_size=size),
        alibi=size**-0.5 if alibi else 0.0,
        qkv_bias=bias,
        out_bias=bias,
    )
    part = _plain(
        hf.optional_int("ffn_hidden_size") or 4 * width,
        hf.choice("activation", ACTIVATIONS, "gelu"),
        bias=bias,
    )
    count, norms = hf.optional_int("n_layer") or 32, _falcon_norms(hf, grouped)
    layers = _layers(hf, mixer, part, "num_hidden_layers", count, placement=norms)
    return decoder(hf, layers, tie=True, hidden_size=width)


def _falcon_norms(hf: HfConfig, grouped: bool) -> Placement:
    """Two norms, or one, of the parts in parallel."""
    norms = hf.optional_int("num_ln_in_parallel_attn") or (2 if grouped else 1)
    if not hf.bool_("parallel_attn", True):
        if grouped:
            raise hf.refuse("parallel_attn", "new_decoder_architecture has its parts in parallel")
        return "pre"
    return "parallel" if norms == 2 else "parallel_shared"


def mpt(hf: HfConfig) -> DecoderSpec:
    """`MptForCausalLM`: LayerNorm and products without biases. Defaults as in MptConfig."""
    width, heads = hf.int_("d_model", 2048), hf.int_("n_heads", 16)
    section = hf.section("attn_config") or HfConfig({})
    for key, wanted in (("alibi", True), ("qk_ln", False), ("prefix_lm", False)):
        if section.bool_(key, wanted) is not wanted:
            raise section.refuse(key, f"only {str(wanted).lower()} is supported")
    if section.int_("alibi_bias_max", 8) != 8:
        raise section.refuse("alibi_bias_max", "only slopes that begin at 2^(-8/heads)")
    section.skip("attn_impl", "attn_pdrop", "attn_type", "attn_uses_sequence_id")
    if not hf.bool_("no_bias", True):
        raise hf.refuse("no_bias", "biases are not supported")
    if hf.float_("embedding_fraction", 1.0) != 1.0:
        raise hf.refuse("embedding_fraction", "only 1, which changes nothing, is supported")
    # Training; learned positions are of models without slopes; the rest is for other code.
    hf.skip("emb_pdrop", "init_config", "init_device", "learned_pos_emb", "norm_type", "verbose")
    hf.skip("tokenizer_name", "resid_pdrop", "ffn_config", "use_pad_tok_in_ffn")
    mixer = shared_width(
        hf,
        width,
        heads,
        keys=("d_model", "n_heads"),
        rope=None,
        alibi=1.0,
        scale=section.optional_positive("softmax_scale"),
        clip=section.optional_positive("clip_qkv") or 0.0,
    )
    part = _plain(hf.int_("expansion_ratio", 4) * width, "gelu", bias=False)
    layers = _layers(hf, mixer, part, "n_layers", 24, norm="layer_unbiased")
    return decoder(
        hf,
        layers,
        tie=True,
        hidden_size=width,
        vocab_size=hf.int_("vocab_size", 50_368),
        max_position_embeddings=hf.int_("max_seq_len", 2048),
    )


def _plain(width: int, activation: Any, *, bias: bool) -> Dense:
    return Dense(width=width, activation=activation, bias=bias, gated=False)


def _layers(
    hf: HfConfig, mixer: Attention, part: Dense, key: str, default: int, **fields: Any
) -> list[LayerSpec]:
    """Equal layers, as many as `key` says; with a LayerNorm with bias unless `fields` say otherwise."""
    values: dict[str, Any] = {
        "norm": "layer",
        "norm_eps": hf.positive("layer_norm_epsilon", 1e-5),
        **fields,
    }
    layer = LayerSpec(mixer=mixer, feed_forward=part, **values)
    return [layer] * hf.int_(key, default)


_BLOCK = "transformer.blocks.{layer}"

BLOOM_NAMES = with_head(
    Rule("transformer.word_embeddings.weight", "embedding.weight"),
    *pair("transformer.word_embeddings_layernorm", "embedding_norm"),
    *joined_heads(f"{GPT_LAYER}.self_attention.query_key_value", fold="gather_heads"),
    *ours(
        GPT_LAYER,
        *MEGATRON_PARTS,
        ("self_attention.dense", "mixer.out"),
        ("mlp.dense_h_to_4h", "feed_forward.up"),
    ),
    *pair("transformer.ln_f", "final_norm"),
    ignored=(f"{GPT_LAYER}.self_attention.rotary_emb.inv_freq",),
    optional_prefix="transformer.",
)

FALCON_NAMES = BLOOM_NAMES.with_rules(
    *for_placement("pre", ours(GPT_LAYER, ("input_layernorm", "norm_before_mixer"))),
    *for_placement(
        "pre", ours(GPT_LAYER, ("post_attention_layernorm", "norm_before_feed_forward"))
    ),
    *ours(GPT_LAYER, ("input_layernorm", "norm_before_parts")),
    *for_placement("parallel", ours(GPT_LAYER, ("ln_attn", "norm_before_mixer"))),
    *for_placement("parallel", ours(GPT_LAYER, ("ln_mlp", "norm_before_feed_forward"))),
)

MPT_NAMES = with_head(
    Rule("transformer.wte.weight", "embedding.weight"),
    *joined_heads(f"{_BLOCK}.attn.Wqkv"),
    *ours(
        _BLOCK,
        ("norm_1", "norm_before_mixer"),
        ("attn.out_proj", "mixer.out"),
        ("norm_2", "norm_before_feed_forward"),
        ("ffn.up_proj", "feed_forward.up"),
        ("ffn.down_proj", "feed_forward.down"),
    ),
    Rule("transformer.norm_f.weight", "final_norm.weight"),
)

ARCHITECTURES = {
    "BloomForCausalLM": Architecture(bloom, BLOOM_NAMES),
    "FalconForCausalLM": Architecture(falcon, FALCON_NAMES),
    "MptForCausalLM": Architecture(mpt, MPT_NAMES),
}
