"""SPLADE: how much each word of the vocabulary says about a text, by the head that a model was pretrained with.

For each word, the largest of log(1 + relu(logit)) over a text's tokens. Which models do so is told in
`models.pooling`, the arithmetic is `worker.pooling`'s. Sources: arXiv 2109.10086, sentence-transformers' SpladePooling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.models.head_layers import HeadActivation, HeadLayer
from quire.models.names import WeightMap
from quire.models.spec import DecoderSpec
from quire.protocol.errors import ModelLoadError

_ACTIVATIONS: dict[str, HeadActivation] = {"gelu": "gelu", "relu": "relu", "silu": "silu"}
_FORMS = (
    ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head"),
    ("head.dense", "head.norm", "decoder"),
)
"""A product, a norm, and what holds the words' biases, and their rows where they are not the embedding: of BERT,
DistilBERT, RoBERTa and ModernBERT."""


def sparse_head(
    values: Mapping[str, Any],
    spec: DecoderSpec,
    names: WeightMap,
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[HeadLayer, ...]:
    """The layers from a token's state to its logits [V]. Raises ModelLoadError for a head that is not known."""
    form = next((one for one in _FORMS if f"{one[0]}.weight" in shapes), None)
    if form is None:
        known = ", ".join(first for first, *_ in _FORMS)
        raise ModelLoadError(
            f"the checkpoint has no head of words, which SPLADE needs; known begin with {known}"
        )
    dense, norm, words = form
    named = values.get("hidden_act", values.get("activation", values.get("classifier_activation")))
    if str(named or "gelu") not in _ACTIVATIONS:
        raise ModelLoadError(
            f"config.json: the activation {named!r} of the head of words is not known; known are "
            f"{', '.join(_ACTIVATIONS)}"
        )
    size = spec.hidden_size
    rows = _rows(words, names, shapes)
    if f"{norm}.weight" not in shapes or shapes[rows] != (spec.vocab_size, size):
        raise ModelLoadError(
            f"the head of words needs {norm}.weight, and {rows} of [{spec.vocab_size}, {size}]"
        )
    ends = (f"{words}.bias", f"{words}.decoder.bias")
    return (
        HeadLayer(
            weight=f"{dense}.weight",
            bias=_there(f"{dense}.bias", shapes),
            in_size=size,
            out_size=size,
            activation=_ACTIVATIONS[str(named or "gelu")],
        ),
        HeadLayer(
            weight=f"{norm}.weight",
            bias=_there(f"{norm}.bias", shapes),
            in_size=size,
            out_size=size,
            kind="norm",
            eps=spec.norm_eps if words != "lm_head" else float(values.get("layer_norm_eps", 1e-12)),
        ),
        HeadLayer(
            weight=rows,
            bias=next((name for name in ends if name in shapes), None),
            in_size=size,
            out_size=spec.vocab_size,
        ),
    )


def _there(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    return name if name in shapes else None


def _rows(words: str, names: WeightMap, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The tensor of a row for each word: the head's own, else the embedding."""
    for own in (f"{words}.decoder.weight", f"{words}.weight"):
        if own in shapes:
            return own
    embedding = next(rule.source for rule in names.rules if rule.target == "embedding.weight")
    if embedding in shapes:
        return embedding
    return embedding.removeprefix(names.optional_prefix)
