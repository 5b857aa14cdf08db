"""Encoders: BERT, RoBERTa, XLM-R, DistilBERT, ModernBERT; tokens see each other both ways.

They have no output matrix; what stands above them is `models.head_layers`. BERT's kin with gates or experts are
`architectures.bert_kin`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, dense
from quire.models.hf_encoder import SKIPPED, after_sums, bert_rules, both_ways, heads_of_all
from quire.models.hf_modern import MODERN_RULES, modern_layers
from quire.models.name_parts import LAYER, joined_heads
from quire.models.names import Rule, WeightMap
from quire.models.spec import DecoderSpec, Dense


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
        token_types=hf.int_("type_vocab_size", 2, minimum=0),
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


def modern_bert(hf: HfConfig) -> DecoderSpec:
    """`ModernBertModel`: rotary positions, gates, local and global layers. Source: arXiv 2412.13663."""
    spec = modern_layers(hf, window=hf.int_("local_attention", 128) // 2 + 1, both_ways=True)
    return replace(spec, tie_head=True)


def _bert_names(prefix: str, *, skip: int = 0) -> WeightMap:
    positions = f"{prefix}embeddings.position_embeddings.weight"
    rules = bert_rules(
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
        *bert_rules(
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

MODERN_NAMES = WeightMap(
    (*MODERN_RULES, *joined_heads(f"{LAYER}.attn.Wqkv")), optional_prefix="model."
)

ARCHITECTURES = {
    "BertModel": Architecture(bert, BERT_NAMES),
    "RobertaModel": Architecture(roberta, ROBERTA_NAMES),
    "XLMRobertaModel": Architecture(roberta, ROBERTA_NAMES),
    "CamembertModel": Architecture(roberta, ROBERTA_NAMES),
    "DistilBertModel": Architecture(distilbert, DISTILBERT_NAMES),
    "ModernBertModel": Architecture(modern_bert, MODERN_NAMES),
}
