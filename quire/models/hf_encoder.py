"""What encoders of several families have in common: their attention, norms after sums, keys that say nothing.

The families are `architectures.bert`, `architectures.bert_kin` and `architectures.bert_rope`.
"""

from __future__ import annotations

from typing import Any

from quire.models.hf_config import HfConfig
from quire.models.hf_parts import default_head_size, head_counts
from quire.models.name_parts import ours, pair, separate_heads
from quire.models.names import Rule
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Rope

SKIPPED = (
    *("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "dropout"),
    *("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"),
    *("pooler_size_per_head", "pooler_type", "tie_word_embeddings", "qa_dropout", "tie_weights_"),
    *("embedding_dropout", "mlp_dropout", "initializer_cutoff_factor", "decoder_bias"),
    *("deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index"),
    *(
        "reference_compile",
        "repad_logits_with_grad",
        "cls_token_id",
        "sep_token_id",
        "mask_token_id",
    ),
    *("sinusoidal_pos_embds", "output_past", "activation_dropout", "causal_mask"),
)
"""Keys of training, of heads for pre-training, and of other implementations."""


EMBEDDING_RULES = (
    Rule("embeddings.word_embeddings.weight", "embedding.weight"),
    Rule("embeddings.token_type_embeddings.weight", "token_types.weight"),
)
"""BERT's names of what stands below the first norm, but for learned positions."""


def bert_rules(prefix: str, layer: str, *names: str, rest: dict[str, str]) -> tuple[Rule, ...]:
    """Embeddings in BERT's names below `prefix`, q, k and v as `names` below `layer`, and its other parts."""
    embeddings = f"{prefix}embeddings"
    return (
        Rule(f"{embeddings}.word_embeddings.weight", "embedding.weight"),
        Rule(f"{embeddings}.token_type_embeddings.weight", "token_types.weight"),
        *pair(f"{embeddings}.LayerNorm", "embedding_norm"),
        *separate_heads(layer, *names),
        *ours(layer, *rest.items()),
    )


def both_ways(heads: int, head_size: int, *, bias: bool, rope: Rope | None = None) -> Attention:
    """Heads of which each has its own k and v, and each token sees all others. bias: of all four products."""
    return Attention(
        num_heads=heads,
        num_kv_heads=heads,
        head_size=head_size,
        rope=rope,
        qkv_bias=bias,
        out_bias=bias,
        bidirectional=True,
    )


def heads_of_all(hf: HfConfig, **fields: Any) -> Attention:
    """The same with `num_attention_heads` heads that share `hidden_size`."""
    return both_ways(head_counts(hf)[0], default_head_size(hf), **fields)


def after_sums(
    hf: HfConfig,
    attention: Attention,
    dense: Dense,
    num_layers: int,
    width: int,
    *,
    eps: str = "layer_norm_eps",
) -> DecoderSpec:
    """Norms after the sums and of the embedding; the last norm belongs to the last layer."""
    epsilon = hf.positive(eps, 1e-12)
    layer = LayerSpec(
        mixer=attention, feed_forward=dense, placement="after_sums", norm="layer", norm_eps=epsilon
    )
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=width,
        max_position_embeddings=1,
        layers=(layer,) * num_layers,
        norm="none",
        norm_eps=epsilon,
        embedding_norm="layer",
        tie_head=True,
    )
