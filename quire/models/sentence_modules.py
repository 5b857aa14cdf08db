"""What sentence-transformers, or PyLate, wrote beside a checkpoint: its modules, how they pool, how long a text may be.

Sources: modules.json, N_Pooling/config.json, N_Dense/config.json, sentence_bert_config.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.models.head_layers import HeadActivation, HeadLayer
from quire.protocol.errors import ModelLoadError
from quire.protocol.pooler import SequencePooling

_MODES: dict[str, SequencePooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
_MODE_NAMES: dict[str, SequencePooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_ACTIVATIONS: dict[str, HeadActivation] = {
    "Identity": "none",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Sigmoid": "sigmoid",
}


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """What modules.json says; its defaults hold where there is none.

    pooling     None where nothing says it.
    max_length  longest text in tokens; None where nothing says it.
    late        texts are compared token by token: the modules are PyLate's.
    where       the file, for messages.
    """

    pooling: SequencePooling | None = None
    normalizes: bool = True
    dense: tuple[HeadLayer, ...] = ()
    max_length: int | None = None
    late: bool = False
    where: str = ""


def read_modules(folder: Path) -> SentenceModules:
    """The modules of a checkpoint. Raises ModelLoadError for one that is not known."""
    path = folder / "modules.json"
    if not path.is_file():
        return SentenceModules()
    listed = _read(path)
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ModelLoadError(f"{path} must hold a list of modules")
    pooling: SequencePooling | None = None
    # PyLate norms each token's vector without a module for it.
    late = any(str(one.get("type", "")).startswith("pylate.") for one in listed)
    normalizes = late
    dense: list[HeadLayer] = []
    for one in listed:
        kind = str(one.get("type", "")).rsplit(".", 1)[-1]
        inside = str(one.get("path", ""))
        if ".." in Path(inside).parts or Path(inside).is_absolute():
            raise ModelLoadError(
                f"{path} names {inside!r}, which is not a folder of this checkpoint"
            )
        if kind == "Pooling":
            pooling = _pooling(folder / inside / "config.json")
        elif kind == "Dense":
            dense.append(_dense(folder, inside, late=late))
        elif kind == "Normalize":
            normalizes = True
        elif kind == "SpladePooling":
            pooling = _splade(folder / inside / "config.json")
        elif kind not in ("Transformer", "MLMTransformer", "Dropout"):
            raise ModelLoadError(
                f"{path}: the module {one.get('type')!r} is not supported; known are Transformer, "
                "MLMTransformer, Pooling, SpladePooling, Dense, Dropout and Normalize"
            )
    return SentenceModules(
        pooling=pooling,
        normalizes=normalizes,
        dense=tuple(dense),
        max_length=_max_length(folder),
        late=late,
        where=str(path),
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def _settings(path: Path) -> dict[str, Any]:
    found = _read(path)
    if not isinstance(found, dict):
        raise ModelLoadError(f"{path} must hold a JSON object")
    return found


def _pooling(path: Path) -> SequencePooling:
    settings = _settings(path)
    on = [
        key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True
    ]
    if not on and isinstance(settings.get("pooling_mode"), str):
        found = _MODE_NAMES.get(settings["pooling_mode"])
        on = [settings["pooling_mode"]]
    else:
        found = _MODES.get(on[0]) if len(on) == 1 else None
    if found is None:
        raise ModelLoadError(
            f"{path} asks for {', '.join(on) or 'no pooling'}; known is one of {', '.join(_MODES)}"
        )
    return found


def _splade(path: Path) -> SequencePooling:
    settings = _settings(path)
    for key, only in (("pooling_strategy", "max"), ("activation_function", "relu")):
        if settings.get(key, only) != only:
            raise ModelLoadError(f"{path}: {key} is {settings[key]!r}; known is {only!r}")
    return "splade"


def _dense(folder: Path, inside: str, *, late: bool) -> HeadLayer:
    path = folder / inside / "config.json"
    settings = _settings(path)
    named = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(named.rsplit(".", 1)[-1])
    if late and activation != "none":
        raise ModelLoadError(
            f"{path}: activation_function is {named!r}; vectors of tokens have none (Identity)"
        )
    size_in, size_out = settings.get("in_features"), settings.get("out_features")
    if activation is None:
        raise ModelLoadError(
            f"{path}: the activation {named!r} is not known; known are {', '.join(_ACTIVATIONS)}"
        )
    if type(size_in) is not int or type(size_out) is not int or min(size_in, size_out) < 1:
        raise ModelLoadError(f"{path}: in_features and out_features must be whole numbers")
    return HeadLayer(
        weight="linear.weight",
        bias="linear.bias" if settings.get("bias", True) else None,
        folder=inside,
        residual="residual.weight" if late and settings.get("use_residual") else None,
        in_size=size_in,
        out_size=size_out,
        activation=activation,
    )


def _max_length(folder: Path) -> int | None:
    path = folder / "sentence_bert_config.json"
    if not path.is_file():
        return None
    length = _settings(path).get("max_seq_length")
    return length if type(length) is int and length > 0 else None
