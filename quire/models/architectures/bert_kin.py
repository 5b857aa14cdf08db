"""BERT's kin: Jina v2, with gates and scores that fall with the distance, and Nomic, with gates or experts.

BERT itself and ModernBERT are in `architectures.bert`.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, with_parts
from quire.models.hf_encoder import (
    EMBEDDING_RULES,
    SKIPPED,
    after_sums,
    bert_rules,
    both_ways,
    heads_of_all,
)
from quire.models.hf_parts import rope
from quire.models.name_parts import for_placement, joined_heads, ours, pair
from quire.models.names import Rule, WeightMap
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Moe

_NOMIC_TRAINING = (
    *(
        "dense_seq_output",
        "fused_bias_fc",
        "fused_dropout_add_ln",
        "use_flash_attn",
        "use_xentropy",
    ),
    *(
        "pad_vocab_size_multiple",
        "parallel_block_tied_norm",
        "reorder_and_upcast_attn",
        "n_positions",
    ),
    *("summary_activation",),
    *("rotary_scaling_factor", "scale_attn_by_inverse_layer_idx", "scale_attn_weights"),
    *("summary_first_dropout", "summary_proj_to_labels", "summary_use_proj"),
    *("max_position_embeddings", "moe_impl", "moe_resid_pdrop", "router_aux_loss_coef"),
)


def jina_v2(hf: HfConfig) -> DecoderSpec:
    """`JinaBertModel`: BERT with gates, whose scores fall with the distance. Source: arXiv 2310.19923."""
    hf.skip(*SKIPPED, "hidden_act", "attn_implementation", "model_max_length")
    hf.choice("position_embedding_type", {"alibi": None}, "absolute")
    act = hf.choice("feed_forward_type", {"geglu": "gelu", "reglu": "relu"}, "original")
    part = Dense(width=hf.int_("intermediate_size"), activation=act, down_bias=True)
    attention = replace(heads_of_all(hf, bias=True), alibi=1.0)
    spec = after_sums(hf, attention, part, hf.int_("num_hidden_layers"), hf.int_("hidden_size"))
    max_len, types = hf.int_("max_position_embeddings", 512), hf.int_("type_vocab_size", 2)
    return replace(spec, max_position_embeddings=max_len, token_types=types)


def _jina_by_tensors(spec: DecoderSpec, names: Container[str]) -> DecoderSpec:
    """jina-embeddings-v2-base-code has norms of q and k, and norms anew; its config.json does not say so."""

    def has(name: str) -> bool:
        return any(f"{start}encoder.layer.0.{name}.weight" in names for start in ("", "bert."))

    def changed(layer: LayerSpec) -> LayerSpec:
        if has("layer_norm_1"):
            layer = replace(layer, placement="after_sums_twice")
        if isinstance(layer.mixer, Attention) and has("attention.self.layer_norm_q"):
            mixer = replace(layer.mixer, qk_norm="layer_full", norm_eps=layer.norm_eps)
            layer = replace(layer, mixer=mixer)
        return layer

    return replace(spec, layers=tuple(changed(layer) for layer in spec.layers))


def nomic_bert(hf: HfConfig) -> DecoderSpec:
    """`NomicBertModel`: BERT with rotary positions, gates or experts. Sources: arXiv 2402.01613, 2502.07972.

    config.json spells sizes as GPT-2's did where it was published with code, else as BERT's.
    """
    hf.skip(*SKIPPED, *_NOMIC_TRAINING)
    published = hf.has("n_embd")
    form = "only the form of nomic-embed-text is supported"
    for key in ("prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved"):
        if published and hf.has(key) and hf.bool_(key):
            raise hf.refuse(key, form)
    if hf.positive("rotary_emb_fraction", 1.0) != 1.0:
        raise hf.refuse("rotary_emb_fraction", form)
    if hf.has("rotary_emb_scale_base"):
        raise hf.refuse("rotary_emb_scale_base", form)
    width = hf.int_("n_embd" if published else "hidden_size")
    heads = hf.int_("n_head" if published else "num_attention_heads")
    if width % heads:
        raise hf.refuse("n_embd" if published else "hidden_size", f"{heads} heads must divide it")
    hf.skip("head_dim")
    bias = published and hf.bool_("qkv_proj_bias", False)
    base = hf.positive("rotary_emb_base", 1000.0) if published else 1000.0
    turns = rope(hf, head_size=width // heads, theta=("rope_theta", base))
    part = _nomic_part(hf, published)
    num_layers = hf.int_("n_layer" if published else "num_hidden_layers")
    spec = after_sums(
        hf,
        both_ways(heads, width // heads, bias=bias, rope=turns),
        part,
        num_layers,
        width,
        eps="layer_norm_epsilon" if published else "layer_norm_eps",
    )
    # Longer texts would need the dynamic base of its own code.
    length = hf.int_("max_trained_positions" if published else "max_position_embeddings", 2048)
    types = hf.int_("type_vocab_size", 2)
    spec = replace(spec, max_position_embeddings=length, token_types=types)
    every = hf.int_("moe_every_n_layers", 0, minimum=0) if published else 0
    if not every:
        return spec
    experts = _nomic_experts(hf, part)
    return with_parts(spec, *(experts if i % every == 1 else part for i in range(num_layers)))


def _nomic_part(hf: HfConfig, published: bool) -> Dense:
    width = hf.int_("n_inner" if published else "intermediate_size")
    if not published:
        return Dense(width=width, activation=activation(hf))
    act = hf.choice("activation_function", {"swiglu": "silu", "gelu": "gelu"}, "gelu")
    biases = [hf.bool_(f"mlp_fc{place}_bias", act == "gelu") for place in (1, 2)]
    if biases[0] != biases[1] or (act == "silu" and biases[0]):
        raise hf.refuse(
            "mlp_fc1_bias", "both or none of mlp_fc1_bias and mlp_fc2_bias, none with gates"
        )
    return Dense(width=width, activation=act, bias=biases[0], gated=act == "silu")


def _nomic_experts(hf: HfConfig, part: Dense) -> Moe:
    """Experts without biases, weighed by their share of all; one bias of all of them."""
    for key in ("expert_choice_router", "moe_normalize_expert_weights"):
        if hf.has(key) and hf.bool_(key):
            raise hf.refuse(key, "only the form of nomic-embed-text-v2-moe is supported")
    if hf.int_("num_shared_experts", 0, minimum=0) or hf.int_("ffn_div", 1) != 1:
        raise hf.refuse("num_shared_experts", "there must be none, and ffn_div must be 1")
    if part.gated:
        raise hf.refuse("activation_function", "experts have no gates")
    return Moe(
        num_experts=hf.int_("num_experts"),
        top_k=hf.int_("moe_top_k"),
        width=part.width,
        activation=part.activation,
        gated=False,
        normalize=False,
        sum_bias=True,
    )


_JINA = "bert.encoder.layer.{layer}"
_GATES = "layers.{layer}.feed_forward.gate_up.weight"
JINA_NAMES = WeightMap(
    (
        *bert_rules(
            "bert.",
            _JINA,
            *(f"attention.self.{name}" for name in ("query", "key", "value")),
            rest={
                "attention.output.dense": "mixer.out",
                "attention.output.LayerNorm": "norm_after_mixer",
                "attention.self.layer_norm_q": "mixer.q_norm",
                "attention.self.layer_norm_k": "mixer.k_norm",
            },
        ),
        *for_placement(
            "after_sums",
            (
                Rule(f"{_JINA}.mlp.gated_layers.weight", _GATES, parts=(0, 1)),
                *ours(
                    _JINA,
                    ("mlp.wo", "feed_forward.down"),
                    ("mlp.layernorm", "norm_after_feed_forward"),
                ),
            ),
        ),
        *for_placement(
            "after_sums_twice",
            (
                Rule(f"{_JINA}.mlp.up_gated_layer.weight", _GATES, (0, 1), fold="swap_halves"),
                *ours(
                    _JINA,
                    ("layer_norm_1", "norm_again"),
                    ("mlp.down_layer", "feed_forward.down"),
                    ("layer_norm_2", "norm_after_feed_forward"),
                ),
            ),
        ),
    ),
    optional_prefix="bert.",
)

_NOMIC, _PART = "encoder.layers.{layer}", "layers.{layer}.feed_forward"
_EXPERT = f"{_PART}.experts.{{expert}}"
NOMIC_NAMES = WeightMap(
    (
        *EMBEDDING_RULES,
        *pair("emb_ln", "embedding_norm"),
        *joined_heads(f"{_NOMIC}.attn.Wqkv"),
        *ours(
            _NOMIC,
            ("attn.out_proj", "mixer.out"),
            ("norm1", "norm_after_mixer"),
            ("mlp.fc1", "feed_forward.up"),
            ("mlp.fc2", "feed_forward.down"),
            ("norm2", "norm_after_feed_forward"),
        ),
        Rule(f"{_NOMIC}.mlp.fc12.weight", _GATES, parts=(0,)),
        Rule(f"{_NOMIC}.mlp.fc11.weight", _GATES, parts=(1,)),
        Rule(f"{_NOMIC}.mlp.router.layer.weight", f"{_PART}.router.weight"),
        Rule(f"{_NOMIC}.mlp.experts.mlp.w1", f"{_EXPERT}.up.weight", flat=True),
        Rule(f"{_NOMIC}.mlp.experts.mlp.w2", f"{_EXPERT}.down.weight", transpose=True, flat=True),
        Rule(f"{_NOMIC}.mlp.experts.bias", f"{_PART}.bias"),
    ),
)

ARCHITECTURES = {
    "JinaBertModel": Architecture(jina_v2, JINA_NAMES, told_by_tensors=_jina_by_tensors),
    "NomicBertModel": Architecture(nomic_bert, NOMIC_NAMES),
}
