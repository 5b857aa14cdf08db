"""What a name in `architectures` says that a model was made for, and which decoder stands below it.

What a checkpoint pools is read in `models.pooling`.
"""

from __future__ import annotations

from typing import Literal

from quire.models.instructions import GRIT

Role = Literal[
    "generate",
    "embed",
    "classify",
    "token_classify",
    "reward",
    "late_interaction",
    "weigh",
    "sparse",
]
"""What an architecture's name says that it was made for."""

_ENDINGS: tuple[tuple[str, Role], ...] = (
    ("ForSequenceClassification", "classify"),
    ("ForTokenClassification", "token_classify"),
    ("ForRewardModel", "reward"),
    ("ForProcessRewardModel", "reward"),
    ("ForMaskedLM", "embed"),
    ("TextModel", "embed"),
    ("Model", "embed"),
)
_LATE = {"ColBERT": "BertModel", "HF_ColBERT": "BertModel", "ColBERTModel": "BertModel"}
_LATE["ColBERTModernBertModel"] = "ModernBertModel"
_LATE["ColBERTJinaRobertaModel"] = "JinaEmbeddingsV3Model"

NOT_THE_DECODERS = frozenset(
    (
        *("sentence_transformers", "sbert_ce_default_activation_function", "num_labels"),
        *("_num_labels", "classifier_dropout", "is_matryoshka", "matryoshka_dimensions"),
        *("classifier_from_token", "method", "is_original_qwen3_reranker", "classifier_pooling"),
        *("classifier_activation", "classifier_bias", "summary_type", "score_bias"),
        *(
            "step_tag_id",
            "label_rows",
            "finetuning_task",
            "emb_pooler",
            "colbert_dim",
            "add_pooling_layer",
            "seq_classif_dropout",
        ),
    )
)
"""Keys of config.json that speak of heads only."""


def base_names(name: str) -> tuple[Role, tuple[str, ...]]:
    """What a name of an architecture that is not known itself stands for: a role, and known names to try."""
    if name in _LATE:
        return "late_interaction", (_LATE[name],)
    if name == "BgeM3EmbeddingModel":
        return "weigh", ("XLMRobertaModel",)
    if name == "BertSpladeSparseEmbeddingModel":
        return "sparse", ("BertModel",)
    if name == GRIT:
        return "generate", ("MistralForCausalLM",)
    for ending, role in _ENDINGS:
        if name.endswith(ending):
            stem = name.removesuffix(ending)
            return role, (f"{stem}ForCausalLM", f"{stem}Model", f"{stem}LMHeadModel")
    return "generate", ()
