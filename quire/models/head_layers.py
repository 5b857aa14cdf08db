"""The layers that stand above a decoder in pooling models, told from the tensors that a checkpoint has.

Their numbers are read by `models.heads`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quire.models.loading.tokenizer_files import tokenizer_file
from quire.models.names import WeightMap
from quire.models.spec import DecoderSpec
from quire.protocol.errors import ModelLoadError

HEAD_FOLDER = "head"
"""Where the tensors of a head of classes are if they have a folder of their own."""

HeadActivation = Literal["none", "tanh", "relu", "gelu", "silu", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class HeadLayer:
    """A product with bias, or a norm; then an activation. All in float32.

    weight, bias  names of tensors; `folder` is the module's own below the checkpoint's, "" for none.
    file       a pickle of this layer's weights alone, in the checkpoint's folder; "" for none.
    residual   name of a second weight, which is added to the first; None for none.
    kind       "linear", or "norm": a LayerNorm with `eps`.
    rows       the weight's rows that are taken; all if empty. subtract: the first from the second.
    """

    weight: str
    in_size: int
    out_size: int
    bias: str | None = None
    folder: str = ""
    file: str = ""
    residual: str | None = None
    kind: Literal["linear", "norm"] = "linear"
    activation: HeadActivation = "none"
    eps: float = 1e-5
    rows: tuple[int, ...] = ()
    subtract: bool = False

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


_FORMS: tuple[tuple[tuple[str, HeadActivation], ...], ...] = (
    (("score.0", "relu"), ("score.2", "none")),
    (("score", "none"),),
    (("v_head", "none"),),
    (("classifier.dense", "tanh"), ("classifier.out_proj", "none")),
    (("pre_classifier", "relu"), ("classifier", "none")),
    (("head.dense", "gelu"), ("head.norm", "none"), ("classifier", "none")),
    (("bert.pooler.dense", "tanh"), ("classifier", "none")),
    (("pooler.dense", "tanh"), ("classifier", "none")),
    (("gte.pooler.dense", "tanh"), ("classifier", "none")),
    (("new.pooler.dense", "tanh"), ("classifier", "none")),
    (("classifier", "none"),),
)
"""Heads by the names of their layers, the longer forms before what they contain."""


def head_of(
    values: Mapping[str, Any],
    spec: DecoderSpec,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    wants_labels: int,
) -> tuple[HeadLayer, ...]:
    """The classification head of a checkpoint with these tensors; without any, one product as for dummies.

    Raises ModelLoadError if there is none.
    """
    if not shapes:
        return (HeadLayer(weight="score.weight", in_size=spec.hidden_size, out_size=wants_labels),)
    for form in _FORMS:
        if all(f"{name}.weight" in shapes for name, _ in form):
            layers = [_layer(name, act, values, spec, shapes) for name, act in form]
            sizes = [spec.hidden_size, *(layer.out_size for layer in layers)]
            if [layer.in_size for layer in layers] != sizes[:-1]:
                raise ModelLoadError(
                    f"the head's tensors {', '.join(layer.weight for layer in layers)} do not fit behind "
                    f"hidden states of {spec.hidden_size} numbers"
                )
            return tuple(layers)
    known = ", ".join(" with ".join(name for name, _ in form) for form in _FORMS)
    raise ModelLoadError(
        f"the checkpoint has no head that makes classes; known are {known}. For a model that was made for "
        "text, give --convert embed, or name the labels' tokens with --hf-overrides "
        '\'{"classifier_from_token": ["no", "yes"]}\''
    )


def _layer(
    name: str,
    activation: HeadActivation,
    values: Mapping[str, Any],
    spec: DecoderSpec,
    shapes: Mapping[str, tuple[int, ...]],
) -> HeadLayer:
    shape = shapes[f"{name}.weight"]
    bias = f"{name}.bias" if f"{name}.bias" in shapes else None
    if len(shape) == 1:
        eps = values.get("norm_eps", spec.norm_eps)
        size = shape[0]
        return HeadLayer(
            weight=f"{name}.weight",
            bias=bias,
            in_size=size,
            out_size=size,
            kind="norm",
            eps=float(eps),
        )
    return HeadLayer(
        weight=f"{name}.weight",
        bias=bias,
        in_size=shape[1],
        out_size=shape[0],
        activation=activation,
    )


def label_rows(
    folder: Path,
    tokens: Any,
    subtract: bool,
    spec: DecoderSpec,
    names: WeightMap,
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[HeadLayer, ...]:
    """A head of the output matrix's rows of some tokens, which the model would answer with.

    subtract  one class: how much likelier the second of two tokens is than the first.
    Raises ModelLoadError for tokens that are not in the vocabulary.
    """
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise ModelLoadError(
            f"config.json: classifier_from_token is {tokens!r}; it must be a list of tokens"
        )
    if subtract and len(tokens) != 2:
        raise ModelLoadError(
            f"config.json: classifier_from_token has {len(tokens)} tokens; from_2_way_softmax takes two"
        )
    rows = token_ids(folder, tokens, "classifier_from_token has")
    sources = {rule.target: rule.source for rule in names.rules}
    weight = sources.get("head.weight", "")
    if weight not in shapes:
        weight = sources["embedding.weight"]
        if weight not in shapes:
            weight = weight.removeprefix("model.")
    return (
        HeadLayer(
            weight=weight,
            in_size=spec.hidden_size,
            out_size=1 if subtract else len(tokens),
            rows=rows,
            subtract=subtract,
        ),
    )


def token_ids(folder: Path, tokens: Sequence[str], who: str) -> tuple[int, ...]:
    """The ids of tokens by their names. Raises ModelLoadError for one that is not in the vocabulary."""
    path = tokenizer_file(folder)
    try:
        tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    found: list[int] = []
    for token in tokens:
        number = tokenizer.token_to_id(token)
        if number is None:
            raise ModelLoadError(
                f"config.json: {who} {token!r}, which is no token of the vocabulary"
            )
        found.append(number)
    return tuple(found)
