"""GPT-2, OPT and GPT-NeoX: LayerNorm with bias, a feed-forward part without gate, biases throughout.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    attention,
    decoder,
    dense,
    head_share,
    shared_width,
    ungated,
    with_attention,
)
from quire.models.hf_parts import head_counts
from quire.models.name_parts import (
    ALL_HEADS,
    pair,
    separate_heads,
    transformer_map,
    with_head,
)
from quire.models.names import Rule, WeightMap
from quire.models.spec import DecoderSpec, LayerSpec


def gpt2(hf: HfConfig, *, activation: str = "gelu_new") -> DecoderSpec:
    """`GPT2LMHeadModel`: learned positions; defaults as in GPT2Config."""
    width, heads = hf.int_("n_embd", 768), hf.int_("n_head", 12)
    eps = hf.positive("layer_norm_epsilon", 1e-5)
    size = head_share(hf, width, heads, ("n_embd", "n_head"))
    scale = size**-0.5 if hf.bool_("scale_attn_weights", True) else 1.0
    by_layer = hf.bool_("scale_attn_by_inverse_layer_idx", False)
    # n_ctx repeats n_positions; the order of scaling is a matter of rounding; the rest are heads
    # for other tasks and defaults of pipelines.
    hf.skip("n_ctx", "reorder_and_upcast_attn", "task_specific_params", "predict_special_tokens")
    hf.skip("summary_activation", "summary_first_dropout", "summary_proj_to_labels")
    hf.skip("summary_type", "summary_use_proj", "_num_labels", "output_past")
    part = ungated(hf, hf.optional_int("n_inner") or 4 * width, activation)
    layers = tuple(
        LayerSpec(
            mixer=shared_width(
                hf,
                width,
                heads,
                keys=("n_embd", "n_head"),
                rope=None,
                scale=scale / (index + 1 if by_layer else 1),
                qkv_bias=True,
                out_bias=True,
            ),
            feed_forward=part,
            norm="layer",
            norm_eps=eps,
        )
        for index in range(hf.int_("n_layer", 12))
    )
    return decoder(
        hf,
        layers,
        tie=True,
        learned=True,
        vocab_size=hf.int_("vocab_size", 50_257),
        hidden_size=width,
        max_position_embeddings=hf.int_("n_positions", 1024),
    )


def gpt_bigcode(hf: HfConfig) -> DecoderSpec:
    """`GPTBigCodeForCausalLM` (SantaCoder, StarCoder): GPT-2 with one head of k and v.

    Defaults as in GPTBigCodeConfig. Source: arXiv 2301.03988.
    """
    # Where the reference rounds, and what it plans with.
    hf.skip("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner")
    hf.skip("max_batch_size", "max_sequence_length", "pad_key_length", "pre_allocate_kv_cache")
    hf.skip("validate_runner_input", "num_key_value_heads")
    spec = gpt2(hf, activation="gelu_pytorch_tanh")
    if not hf.bool_("multi_query", True):
        return spec
    return with_attention(spec, lambda index, mixer: replace(mixer, num_kv_heads=1))


def opt(hf: HfConfig) -> DecoderSpec:
    """`OPTForCausalLM`: learned positions; defaults as in OPTConfig. Source: arXiv 2205.01068."""
    width = hf.int_("hidden_size", 768)
    heads, _ = head_counts(hf)
    if not hf.bool_("do_layer_norm_before", True):
        raise hf.refuse("do_layer_norm_before", "norms after the sums are not supported")
    if hf.bool_("_remove_final_layer_norm", False):
        raise hf.refuse("_remove_final_layer_norm", "a model without a final norm is not supported")
    if not hf.bool_("layer_norm_elementwise_affine", True):
        raise hf.refuse("layer_norm_elementwise_affine", "norms without weights are not supported")
    if (hf.optional_int("word_embed_proj_dim") or width) != width:
        raise hf.refuse("word_embed_proj_dim", f"only hidden_size {width} is supported")
    bias = hf.bool_("enable_bias", True)
    # Training, and what a pipeline puts before a prompt.
    hf.skip("activation_dropout", "dropout", "init_std", "layerdrop", "prefix", "output_projection")
    layer = LayerSpec(
        mixer=shared_width(hf, width, heads, rope=None, qkv_bias=bias, out_bias=bias),
        feed_forward=ungated(hf, hf.int_("ffn_dim", 3072), "relu", bias=bias),
        norm="layer",
        norm_eps=1e-5,
    )
    layers = [layer] * hf.int_("num_hidden_layers", 12)
    return decoder(hf, layers, tie=True, learned=True, hidden_size=width)


def gpt_neox(hf: HfConfig) -> DecoderSpec:
    """`GPTNeoXForCausalLM` (Pythia too): parts of heads turned, both parts of a layer in parallel.

    Defaults as in GPTNeoXConfig. Source: arXiv 2204.06745.
    """
    hf.skip("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout")
    layer = LayerSpec(
        mixer=attention(
            hf, bias=True, theta=("rotary_emb_base", 10_000.0), part=("rotary_pct", 0.25)
        ),
        feed_forward=dense(hf, default="gelu", bias=True, gated=False),
        placement="parallel" if hf.bool_("use_parallel_residual", True) else "pre",
        norm="layer",
        norm_eps=hf.positive("layer_norm_eps", 1e-5),
    )
    return decoder(hf, layer)


_OURS = "layers.{layer}"
_GPT2 = "transformer.h.{layer}"

GPT2_NAMES = transformer_map(
    Rule("transformer.wpe.weight", "positions.weight"),
    *pair(f"{_GPT2}.ln_1", f"{_OURS}.norm_before_mixer"),
    *pair(f"{_GPT2}.attn.c_attn", f"{_OURS}.mixer.qkv", parts=ALL_HEADS, transpose=True),
    *pair(f"{_GPT2}.attn.c_proj", f"{_OURS}.mixer.out", transpose=True),
    *pair(f"{_GPT2}.ln_2", f"{_OURS}.norm_before_feed_forward"),
    *pair(f"{_GPT2}.mlp.c_fc", f"{_OURS}.feed_forward.up", transpose=True),
    *pair(f"{_GPT2}.mlp.c_proj", f"{_OURS}.feed_forward.down", transpose=True),
    ignored=(f"{_GPT2}.attn.bias", f"{_GPT2}.attn.masked_bias"),
    optional_prefix="transformer.",
)
"""Matrices stand as [in, out]; the masks of old files are left unread."""

BIGCODE_NAMES = replace(
    GPT2_NAMES,
    rules=tuple(
        replace(rule, transpose=False, fold="gather_heads" if ".c_attn." in rule.source else "none")
        for rule in GPT2_NAMES.rules
    ),
)
"""Matrices stand as [out, in]; each head of k and v stands behind the heads of q that share it."""

_OPT = "model.decoder.layers.{layer}"

OPT_NAMES = with_head(
    Rule("model.decoder.embed_tokens.weight", "embedding.weight"),
    Rule("model.decoder.embed_positions.weight", "positions.weight", skip=2),
    *pair(f"{_OPT}.self_attn_layer_norm", f"{_OURS}.norm_before_mixer"),
    *separate_heads(_OPT, *(f"self_attn.{name}_proj" for name in "qkv")),
    *pair(f"{_OPT}.self_attn.out_proj", f"{_OURS}.mixer.out"),
    *pair(f"{_OPT}.final_layer_norm", f"{_OURS}.norm_before_feed_forward"),
    *pair(f"{_OPT}.fc1", f"{_OURS}.feed_forward.up"),
    *pair(f"{_OPT}.fc2", f"{_OURS}.feed_forward.down"),
    *pair("model.decoder.final_layer_norm", "final_norm"),
    optional_prefix="model.",
)
"""The first two rows of the table of positions were for padding."""

_NEOX = "gpt_neox.layers.{layer}"

NEOX_NAMES = WeightMap(
    rules=(
        Rule("gpt_neox.embed_in.weight", "embedding.weight"),
        *pair(f"{_NEOX}.input_layernorm", f"{_OURS}.norm_before_mixer"),
        *pair(
            f"{_NEOX}.attention.query_key_value",
            f"{_OURS}.mixer.qkv",
            parts=ALL_HEADS,
            fold="gather_heads",
        ),
        *pair(f"{_NEOX}.attention.dense", f"{_OURS}.mixer.out"),
        *pair(f"{_NEOX}.post_attention_layernorm", f"{_OURS}.norm_before_feed_forward"),
        *pair(f"{_NEOX}.mlp.dense_h_to_4h", f"{_OURS}.feed_forward.up"),
        *pair(f"{_NEOX}.mlp.dense_4h_to_h", f"{_OURS}.feed_forward.down"),
        *pair("gpt_neox.final_layer_norm", "final_norm"),
        Rule("embed_out.weight", "head.weight"),
    ),
    ignored=(
        f"{_NEOX}.attention.bias",
        f"{_NEOX}.attention.masked_bias",
        f"{_NEOX}.attention.rotary_emb.inv_freq",
    ),
    ignored_if_tied=("embed_out.weight",),
)
"""q, k and v of one head stand together."""

ARCHITECTURES = {
    "GPT2LMHeadModel": Architecture(gpt2, GPT2_NAMES),
    "GPTBigCodeForCausalLM": Architecture(gpt_bigcode, BIGCODE_NAMES),
    "OPTForCausalLM": Architecture(opt, OPT_NAMES),
    "GPTNeoXForCausalLM": Architecture(gpt_neox, NEOX_NAMES),
}
