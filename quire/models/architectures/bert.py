"""Encoders: BERT, RoBERTa, XLM-R, DistilBERT, Jina v2, ModernBERT, Nomic BERT; tokens see each other both ways.

They have no output matrix; what stands above them is `models.head_layers`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, dense
from quire.models.hf_encoder import EMBEDDING_RULES, SKIPPED, after_sums, both_ways, heads_of_all
from quire.models.hf_parts import ACTIVATIONS, default_head_size, rope
from quire.models.name_parts import joined_heads, ours, pair, separate_heads
from quire.models.names import Rule, WeightMap
from quire.models.spec import DecoderSpec, Dense, LayerSpec, NormKind, Rope

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
    *(
        "rotary_emb_fraction",
        "rotary_emb_interleaved",
        "rotary_emb_scale_base",
        "summary_activation",
    ),
    *("rotary_scaling_factor", "scale_attn_by_inverse_layer_idx", "scale_attn_weights"),
    *("summary_first_dropout", "summary_proj_to_labels", "summary_use_proj", "mlp_fc1_bias"),
    *("mlp_fc2_bias", "max_position_embeddings"),
)
_NOMIC_ACTS = {**ACTIVATIONS, "swiglu": "silu"}


def bert(hf: HfConfig) -> DecoderSpec:
    """`BertModel`: norms after the sums, learned positions, token types. Source: arXiv 1810.04805."""
    return _encoder(hf, first_position=0)


def roberta(hf: HfConfig) -> DecoderSpec:
    """`RobertaModel`, `XLMRobertaModel`: BERT whose positions begin behind that of the padding token."""
    return _encoder(hf, first_position=hf.int_("pad_token_id", 1, minimum=0) + 1)


def _encoder(hf: HfConfig, *, first_position: int) -> DecoderSpec:
    hf.skip(*SKIPPED)
    hf.choice("position_embedding_type", {"absolute": True}, "absolute")
    max_len = hf.int_("max_position_embeddings", 512) - first_position
    part = dense(hf, default="gelu", bias=True, gated=False)
    spec = after_sums(
        hf, heads_of_all(hf, bias=True), part, hf.int_("num_hidden_layers"), hf.int_("hidden_size")
    )
    return replace(
        spec,
        max_position_embeddings=max_len,
        learned_positions=max_len,
        token_types=hf.int_("type_vocab_size", 2),
    )


def distilbert(hf: HfConfig) -> DecoderSpec:
    """`DistilBertModel`: BERT without token types. Source: arXiv 1910.01108."""
    hf.skip(*SKIPPED)
    width, heads = hf.int_("dim", 768), hf.int_("n_heads", 12)
    if width % heads:
        raise hf.refuse("dim", f"it must be a multiple of n_heads {heads}")
    act = activation(hf, "gelu", key="activation")
    part = Dense(width=hf.int_("hidden_dim", 3072), activation=act, bias=True, gated=False)
    attention = both_ways(heads, width // heads, bias=True)
    spec = after_sums(hf, attention, part, hf.int_("n_layers", 6), width)
    max_len = hf.int_("max_position_embeddings", 512)
    return replace(spec, max_position_embeddings=max_len, learned_positions=max_len)


def jina_v2(hf: HfConfig) -> DecoderSpec:
    """`JinaBertModel`: BERT with gates, whose scores fall with the distance. Source: arXiv 2310.19923."""
    hf.skip(*SKIPPED, "hidden_act", "attn_implementation")
    hf.choice("position_embedding_type", {"alibi": None}, "absolute")
    act = hf.choice("feed_forward_type", {"geglu": "gelu", "reglu": "relu"}, "original")
    part = Dense(width=hf.int_("intermediate_size"), activation=act, down_bias=True)
    attention = replace(heads_of_all(hf, bias=True), alibi=1.0)
    spec = after_sums(hf, attention, part, hf.int_("num_hidden_layers"), hf.int_("hidden_size"))
    max_len, types = hf.int_("max_position_embeddings", 512), hf.int_("type_vocab_size", 2)
    return replace(spec, max_position_embeddings=max_len, token_types=types)


def nomic_bert(hf: HfConfig) -> DecoderSpec:
    """`NomicBertModel`: BERT with rotary positions and gates, without biases. Source: arXiv 2402.01613.

    config.json spells sizes as GPT-2's did where it was published with code, else as BERT's.
    """
    hf.skip(*SKIPPED, *_NOMIC_TRAINING)
    published = hf.has("n_embd")
    for key in ("prenorm", "parallel_block", "use_rms_norm", "qkv_proj_bias", "causal"):
        if published and hf.bool_(key, False):
            raise hf.refuse(key, "only the form of nomic-embed-text is supported")
    width = hf.int_("n_embd" if published else "hidden_size")
    heads = hf.int_("n_head" if published else "num_attention_heads")
    if width % heads:
        raise hf.refuse("n_embd" if published else "hidden_size", f"{heads} heads must divide it")
    hf.skip("head_dim")
    act = hf.choice("activation_function" if published else "hidden_act", _NOMIC_ACTS, "silu")
    part = Dense(width=hf.int_("n_inner" if published else "intermediate_size"), activation=act)
    base = hf.positive("rotary_emb_base", 1000.0) if published else 1000.0
    turns = rope(hf, head_size=width // heads, theta=("rope_theta", base))
    spec = after_sums(
        hf,
        both_ways(heads, width // heads, bias=False, rope=turns),
        part,
        hf.int_("n_layer" if published else "num_hidden_layers"),
        width,
        eps="layer_norm_epsilon" if published else "layer_norm_eps",
    )
    # Longer texts would need the dynamic base of its own code.
    length = hf.int_("max_trained_positions" if published else "max_position_embeddings", 2048)
    types = hf.int_("type_vocab_size", 2)
    return replace(spec, max_position_embeddings=length, token_types=types)


def modern_bert(hf: HfConfig) -> DecoderSpec:
    """`ModernBertModel`: rotary positions, gates, local and global layers. Source: arXiv 2412.13663."""
    hf.skip(*SKIPPED)
    size, bias = default_head_size(hf), hf.bool_("attention_bias", False)
    kind: NormKind = "layer" if hf.bool_("norm_bias", False) else "layer_unbiased"
    eps = hf.positive("norm_eps", 1e-5)
    act = activation(hf, "gelu", key="hidden_activation")
    part = dense(hf, activation=act, bias=hf.bool_("mlp_bias", False))
    window = hf.int_("local_attention", 128) // 2 + 1
    every = hf.int_("global_attn_every_n_layers", 3)
    num_layers = hf.int_("num_hidden_layers")
    named = hf.strings("layer_types")
    local = [
        named[index] == "sliding_attention" if named else index % every > 0
        for index in range(num_layers)
    ]
    layers = []
    for index, is_local in enumerate(local):
        mixer = heads_of_all(hf, bias=bias, rope=_modern_rope(hf, size, is_local))
        layers.append(
            LayerSpec(
                mixer=replace(mixer, window=window if is_local else None),
                feed_forward=part,
                # What enters the first layer was normed just before.
                placement="pre" if index else "pre_feed_forward",
                norm=kind,
                norm_eps=eps,
            )
        )
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=hf.int_("hidden_size"),
        max_position_embeddings=hf.int_("max_position_embeddings", 8192),
        layers=tuple(layers),
        norm=kind,
        norm_eps=eps,
        embedding_norm=kind,
        tie_head=True,
    )


def _modern_rope(hf: HfConfig, head_size: int, is_local: bool) -> Rope:
    """Two bases, in the older spelling or the newer one."""
    theta = ("local_rope_theta", 10_000.0) if is_local else ("global_rope_theta", 160_000.0)
    hf.skip("local_rope_theta", "global_rope_theta")
    return rope(hf, head_size=head_size, sliding=is_local, theta=theta)


def _rules(prefix: str, layer: str, *names: str, rest: dict[str, str]) -> tuple[Rule, ...]:
    """Embeddings in BERT's names below `prefix`, q, k and v as `names` below `layer`, and its other parts."""
    embeddings = f"{prefix}embeddings"
    return (
        Rule(f"{embeddings}.word_embeddings.weight", "embedding.weight"),
        Rule(f"{embeddings}.token_type_embeddings.weight", "token_types.weight"),
        *pair(f"{embeddings}.LayerNorm", "embedding_norm"),
        *separate_heads(layer, *names),
        *ours(layer, *rest.items()),
    )


def _bert_names(prefix: str, *, skip: int = 0) -> WeightMap:
    positions = f"{prefix}embeddings.position_embeddings.weight"
    rules = _rules(
        prefix,
        f"{prefix}encoder.layer.{{layer}}",
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        rest={
            "attention.output.dense": "mixer.out",
            "attention.output.LayerNorm": "norm_after_mixer",
            "intermediate.dense": "feed_forward.up",
            "output.dense": "feed_forward.down",
            "output.LayerNorm": "norm_after_feed_forward",
        },
    )
    return WeightMap(
        (*rules, Rule(positions, "positions.weight", skip=skip)), optional_prefix=prefix
    )


BERT_NAMES = _bert_names("bert.")
ROBERTA_NAMES = _bert_names("roberta.", skip=2)
"""The first two rows of the table of positions are for padding."""

DISTILBERT_NAMES = WeightMap(
    (
        *_rules(
            "distilbert.",
            "distilbert.transformer.layer.{layer}",
            *(f"attention.{name}_lin" for name in "qkv"),
            rest={
                "attention.out_lin": "mixer.out",
                "sa_layer_norm": "norm_after_mixer",
                "ffn.lin1": "feed_forward.up",
                "ffn.lin2": "feed_forward.down",
                "output_layer_norm": "norm_after_feed_forward",
            },
        ),
        Rule("distilbert.embeddings.position_embeddings.weight", "positions.weight"),
    ),
    optional_prefix="distilbert.",
)

_JINA = "bert.encoder.layer.{layer}"
JINA_NAMES = WeightMap(
    (
        *_rules(
            "bert.",
            _JINA,
            *(f"attention.self.{name}" for name in ("query", "key", "value")),
            rest={
                "attention.output.dense": "mixer.out",
                "attention.output.LayerNorm": "norm_after_mixer",
                "mlp.wo": "feed_forward.down",
                "mlp.layernorm": "norm_after_feed_forward",
            },
        ),
        Rule(
            f"{_JINA}.mlp.gated_layers.weight",
            "layers.{layer}.feed_forward.gate_up.weight",
            parts=(0, 1),
        ),
    ),
    optional_prefix="bert.",
)

_NOMIC = "encoder.layers.{layer}"
_GATES = "layers.{layer}.feed_forward.gate_up.weight"
NOMIC_NAMES = WeightMap(
    (
        *EMBEDDING_RULES,
        *pair("emb_ln", "embedding_norm"),
        *joined_heads(f"{_NOMIC}.attn.Wqkv"),
        *ours(_NOMIC, ("attn.out_proj", "mixer.out"), ("norm1", "norm_after_mixer")),
        Rule(f"{_NOMIC}.mlp.fc12.weight", _GATES, parts=(0,)),
        Rule(f"{_NOMIC}.mlp.fc11.weight", _GATES, parts=(1,)),
        *ours(_NOMIC, ("mlp.fc2", "feed_forward.down"), ("norm2", "norm_after_feed_forward")),
    ),
)

_MODERN = "model.layers.{layer}"
MODERN_NAMES = WeightMap(
    (
        Rule("model.embeddings.tok_embeddings.weight", "embedding.weight"),
        *pair("model.embeddings.norm", "embedding_norm"),
        *joined_heads(f"{_MODERN}.attn.Wqkv"),
        *pair(f"{_MODERN}.mlp.Wi", "layers.{layer}.feed_forward.gate_up", parts=(0, 1)),
        *ours(
            _MODERN,
            ("attn_norm", "norm_before_mixer"),
            ("attn.Wo", "mixer.out"),
            ("mlp_norm", "norm_before_feed_forward"),
            ("mlp.Wo", "feed_forward.down"),
        ),
        *pair("model.final_norm", "final_norm"),
    ),
    optional_prefix="model.",
)

ARCHITECTURES = {
    "BertModel": Architecture(bert, BERT_NAMES),
    "RobertaModel": Architecture(roberta, ROBERTA_NAMES),
    "XLMRobertaModel": Architecture(roberta, ROBERTA_NAMES),
    "CamembertModel": Architecture(roberta, ROBERTA_NAMES),
    "DistilBertModel": Architecture(distilbert, DISTILBERT_NAMES),
    "JinaBertModel": Architecture(jina_v2, JINA_NAMES),
    "NomicBertModel": Architecture(nomic_bert, NOMIC_NAMES),
    "ModernBertModel": Architecture(modern_bert, MODERN_NAMES),
}
