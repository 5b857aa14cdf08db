"""What a checkpoint pools, and by which head: read from config.json and the files of sentence-transformers.

Without torch; the head's weights are read by `models.heads`, requests are pooled by `worker.pooling`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quire.models import word_weights
from quire.models.head_layers import HEAD_FOLDER, HeadLayer, head_of, label_rows
from quire.models.instructions import grits, instruction_marks
from quire.models.names import WeightMap
from quire.models.pooling_roles import Role
from quire.models.sentence_modules import SentenceModules, read_modules
from quire.models.sparse_head import sparse_head
from quire.models.spec import Attention, DecoderSpec
from quire.protocol.errors import ModelLoadError, SettingsError
from quire.protocol.pooler import ClassActivation, Pooler, SequencePooling

_POOLINGS: dict[str, SequencePooling] = {"CLS": "cls", "LAST": "last", "MEAN": "mean"}
_METHODS = ("from_2_way_softmax", "no_post_processing")


@dataclass(frozen=True, kw_only=True)
class PoolingWish:
    """What the user asks for: --runner, --convert, --pooler-config."""

    runner: str = "auto"
    convert: str = "auto"
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PoolingDescription:
    """How a model pools.

    head     layers on top of the decoder, in order; their numbers are float32.
    heads    those of tasks that have some of their own.
    ignored  tensors of the checkpoint that the decoder leaves unread.
    """

    pooler: Pooler
    head: tuple[HeadLayer, ...] = ()
    heads: Mapping[str, tuple[HeadLayer, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def names(self, names: WeightMap) -> WeightMap:
        """Where the decoder's weights stand: checkpoints of bare models leave out the first name."""
        prefix = names.optional_prefix
        if not prefix and all(
            rule.source.startswith("model.") or rule.target.startswith("head.")
            for rule in names.rules
        ):
            prefix = "model."
        return replace(names, optional_prefix=prefix, ignored=(*names.ignored, *self.ignored))


def pools(role: Role, wish: PoolingWish, folder: Path) -> bool:
    """Whether the model shall pool; `role` is of its architecture's name. Raises SettingsError."""
    if role != "generate":
        if wish.runner == "generate":
            raise SettingsError(
                "runner is generate, but this checkpoint was made for pooling; use --runner pooling or auto"
            )
        return True
    if wish.runner == "auto":
        return wish.convert in ("embed", "classify") or (folder / "modules.json").is_file()
    if wish.runner == "generate" and wish.convert in ("embed", "classify"):
        raise SettingsError(f"convert {wish.convert} needs --runner pooling; runner is generate")
    if wish.runner == "pooling" and wish.convert == "none":
        raise SettingsError(
            "runner is pooling, but convert is none; use --convert embed or classify"
        )
    return wish.runner == "pooling"


def for_pooling(spec: DecoderSpec, values: Mapping[str, Any]) -> DecoderSpec:
    """The decoder without an output matrix of its own; tokens see both ways if config.json says so."""
    spec = replace(spec, tie_head=True, head_bias=False, head_act=None, head_act_bias=False)
    leaves_windows = grits(values)
    if (
        values.get("use_bidirectional_attention") is not True
        and values.get("is_causal") is not False
        and not leaves_windows
    ):
        return spec
    layers = []
    for layer in spec.layers:
        mixer = layer.mixer
        if not isinstance(mixer, Attention):
            raise ModelLoadError(
                "config.json asks for attention both ways in a layer that has no such form"
            )
        # A window of n tokens becomes half of them on either side.
        window = None if leaves_windows or mixer.window is None else mixer.window // 2 + 1
        layers.append(replace(layer, mixer=replace(mixer, window=window, bidirectional=True)))
    return replace(spec, layers=tuple(layers))


def describe_pooling(
    folder: Path,
    values: Mapping[str, Any],
    spec: DecoderSpec,
    role: Role,
    wish: PoolingWish,
    names: WeightMap,
    shapes: Mapping[str, tuple[int, ...]],
) -> PoolingDescription:
    """How the checkpoint in `folder` pools.

    values  config.json. names: where the decoder's weights stand. shapes: of all tensors, empty for dummy
            weights.
    Raises ModelLoadError or SettingsError with what is wrong.
    """
    modules = read_modules(folder)
    if role == "generate":
        role = "classify" if wish.convert == "classify" else "embed"
    elif role == "embed" and wish.convert == "classify":
        role = "classify"
    if role == "embed" and modules.late:
        role = "late_interaction"
    own: SequencePooling = "cls" if spec.sees_both_ways else "last"
    if grits(values) or values.get("emb_pooler") == "mean":
        own = "mean"
    pooling = modules.pooling or own
    if role == "sparse" or (role == "embed" and pooling == "splade"):
        role, pooling = "sparse", "splade"
    if role == "weigh":
        pooler, heads = word_weights.pooler_of(values, spec, modules, pooling)
        made = PoolingDescription(pooler=pooler, heads=heads)
    elif role == "sparse":
        pooler = Pooler(
            tasks=("embed",), pooling=pooling, width=spec.vocab_size, use_activation=False
        )
        head = sparse_head(values, spec, names, shapes)
        made = PoolingDescription(pooler=pooler, head=head)
    elif role in ("embed", "late_interaction"):
        made = _embedder(values, spec, role, pooling, modules, shapes)
        if grits(values) and pooling == "mean":
            made = replace(made, pooler=replace(made.pooler, instruction=instruction_marks(folder)))
    else:
        made = _classifier(folder, values, spec, role, pooling, names, shapes)
    if spec.program is not None and role != "embed":
        raise ModelLoadError(
            f"{folder}: {spec.program.architecture} runs from Transformers' code, which embeds; what stands above "
            "its states is not known here"
        )
    used = {name for layer in made.head if not layer.folder for name in layer.tensors}
    unread = [name for name in shapes if _is_head(name) or name in used]
    if spec.program is not None:
        unread += above(spec.program.prefix, shapes)
    return replace(made, pooler=with_config(made.pooler, wish.config), ignored=tuple(unread))


def above(prefix: str, names: Iterable[str]) -> list[str]:
    """Tensors beside those of a model whose names begin with `prefix`, if some do, and its pooler's."""
    has_prefix = any(name.startswith(prefix) for name in names)
    start = f"{prefix}pooler" if has_prefix else "pooler"
    return [
        name
        for name in names
        if name.startswith(start) or (has_prefix and not name.startswith(prefix))
    ]


def _is_head(name: str) -> bool:
    """Whether a tensor stands above the decoder: what a model was trained by, and heads."""
    return (
        re.match(
            r"((bert|roberta|xlm-roberta|model|nomic_bert)\.)?pooler\.|(cls|lm_head|vocab_\w+|head|classifier|decoder)\.|"
            r"score\.|pre_classifier\.|linear\.|embeddings\.position_ids|\w+\.embeddings\.position_ids",
            name,
        )
        is not None
    )


def _embedder(
    values: Mapping[str, Any],
    spec: DecoderSpec,
    role: Role,
    pooling: SequencePooling,
    modules: SentenceModules,
    shapes: Mapping[str, tuple[int, ...]],
) -> PoolingDescription:
    head = modules.dense
    if role == "late_interaction" and not head and "linear.weight" in shapes:
        rows, columns = shapes["linear.weight"]
        head = (HeadLayer(weight="linear.weight", in_size=columns, out_size=rows),)
    if head and head[0].in_size != spec.hidden_size:
        raise ModelLoadError(
            f"{modules.where}: the first Dense module takes {head[0].in_size} numbers, but the model gives "
            f"{spec.hidden_size}"
        )
    late = role == "late_interaction"
    pooler = Pooler(
        tasks=("token_embed",) if late else ("embed", "token_embed"),
        pooling=pooling,
        width=head[-1].out_size if head else spec.hidden_size,
        use_activation=modules.normalizes,
        matryoshka=_matryoshka(values),
        late_interaction=late,
    )
    return PoolingDescription(pooler=pooler, head=head)


def _matryoshka(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    listed = values.get("matryoshka_dimensions")
    if listed is None:
        return () if values.get("is_matryoshka") is True else None
    if not isinstance(listed, list) or not all(type(one) is int and one > 0 for one in listed):
        raise ModelLoadError(
            f"config.json: matryoshka_dimensions is {listed!r}; it must be a list of whole numbers"
        )
    return tuple(listed)


def _classifier(
    folder: Path,
    values: Mapping[str, Any],
    spec: DecoderSpec,
    role: Role,
    pooling: SequencePooling,
    names: WeightMap,
    shapes: Mapping[str, tuple[int, ...]],
) -> PoolingDescription:
    tokens = values.get("classifier_from_token")
    if tokens is not None:
        default = "from_2_way_softmax" if values.get("is_original_qwen3_reranker") else _METHODS[1]
        method = values.get("method", default)
        if method not in _METHODS:
            raise ModelLoadError(f"config.json: method is {method!r}; it must be one of {_METHODS}")
        head = label_rows(folder, tokens, method == _METHODS[0], spec, names, shapes)
    else:
        head = head_of(values, spec, shapes, wants_labels=_num_labels(values))
        if (folder / HEAD_FOLDER).is_dir():
            head = tuple(replace(layer, folder=HEAD_FOLDER) for layer in head)
        if isinstance(
            values.get("label_rows"), list
        ):  # of two classes, what one is above the other
            rows = tuple(values["label_rows"])
            head = (replace(head[0], rows=rows, subtract=True, out_size=1),)
    labels = _labels(values, head[-1].out_size)
    by_role: dict[str, tuple[str, ...]] = {
        "classify": ("classify", "token_classify") if len(head) == 1 else ("classify",),
    }
    chosen = values.get("classifier_pooling")
    if chosen in ("cls", "mean"):
        pooling = chosen
    pooler = Pooler(
        tasks=by_role.get(role, ("token_classify",)),
        pooling=pooling,
        width=spec.hidden_size,
        labels=labels,
        use_activation=role != "reward" or len(labels) > 1,
        activation=_activation(values, len(labels)),
        step_tag_id=_step_tag(values),
    )
    return PoolingDescription(pooler=pooler, head=head)


def _step_tag(values: Mapping[str, Any]) -> int | None:
    tag = values.get("step_tag_id")
    return tag if type(tag) is int else None


def _num_labels(values: Mapping[str, Any]) -> int:
    given = values.get("num_labels")
    named = values.get("id2label")
    return given if type(given) is int else len(named) if isinstance(named, dict) else 2


def _labels(values: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The classes' names in their order; LABEL_n where config.json has none."""
    named = values.get("id2label")
    found = {str(key): str(name) for key, name in named.items()} if isinstance(named, dict) else {}
    return tuple(found.get(str(place), f"LABEL_{place}") for place in range(count))


def _activation(values: Mapping[str, Any], num_labels: int) -> ClassActivation:
    inner = values.get("sentence_transformers")
    named = inner.get("activation_fn") if isinstance(inner, Mapping) else None
    named = named or values.get("sbert_ce_default_activation_function")
    if isinstance(named, str):
        known: dict[str, ClassActivation] = {
            "Identity": "none",
            "Sigmoid": "sigmoid",
            "Softmax": "softmax",
        }
        short = named.rsplit(".", 1)[-1]
        if short not in known:
            raise ModelLoadError(
                f"config.json: the activation {named!r} is not known; known are {', '.join(known)}"
            )
        return known[short]
    kind = values.get("problem_type")
    if kind == "regression":
        return "none"
    if kind == "multi_label_classification" or (kind is None and num_labels == 1):
        return "sigmoid"
    return "softmax" if num_labels > 1 else "sigmoid"


_CONFIG_KEYS = {
    "task": str, "pooling_type": str, "seq_pooling_type": str, "tok_pooling_type": str,
    "use_activation": bool, "normalize": bool, "activation": bool, "softmax": bool, "dimensions": int,
    "enable_chunked_processing": bool, "max_embed_len": int, "logit_mean": float, "logit_bias": float,
    "logit_sigma": float, "step_tag_id": int, "returned_token_ids": list,
}  # fmt: skip
_ACTIVATIONS = ("use_activation", "normalize", "activation", "softmax")


def with_config(pooler: Pooler, config: Mapping[str, Any]) -> Pooler:
    """The pooler with --pooler-config over it. Raises SettingsError for a key or value that cannot be."""
    for key, value in config.items():
        kind = _CONFIG_KEYS.get(key)
        if kind is None:
            raise SettingsError(
                f"pooler_config has the unknown key {key!r}; known are {', '.join(_CONFIG_KEYS)}"
            )
        fits = type(value) is kind or (kind is float and type(value) is int)
        if value is not None and not fits:
            raise SettingsError(
                f"pooler_config.{key} is {value!r}; it must be of type {kind.__name__}"
            )
    given = {key: value for key, value in config.items() if value is not None}
    changes: dict[str, Any] = {}
    for key in ("pooling_type", "seq_pooling_type"):
        if key in given:
            changes |= _pooling_change(pooler, key, given[key])
    for key in _ACTIVATIONS:
        if key in given:
            changes["use_activation"] = given[key]
    for key in ("dimensions", "max_embed_len", "step_tag_id"):
        if given.get(key) is not None:
            if given[key] < (0 if key == "step_tag_id" else 1):
                raise SettingsError(f"pooler_config.{key} is {given[key]}; it is too small")
            changes[key] = given[key]
    if "returned_token_ids" in given:
        changes["returned_token_ids"] = _class_places(pooler, given["returned_token_ids"])
    changes |= _calibration(given)
    if "enable_chunked_processing" in given:
        changes["chunked"] = given["enable_chunked_processing"]
    if "task" in given:
        if given["task"] not in pooler.tasks:
            raise SettingsError(
                f"pooler_config.task is {given['task']!r}; this model serves {', '.join(pooler.tasks)}"
            )
        changes["tasks"] = (given["task"],)
    return replace(pooler, **changes)


def _pooling_change(pooler: Pooler, key: str, name: str) -> dict[str, Any]:
    if name.upper() in ("ALL", "STEP"):
        tasks = tuple(task for task in pooler.tasks if task.startswith("token_"))
        if not tasks:
            raise SettingsError(
                f"pooler_config.{key} is {name}; this model's head reads whole texts only"
            )
        return {"tasks": tasks}
    if name.lower() == "auto":
        return {}
    if name.upper() not in _POOLINGS:
        known = ", ".join((*_POOLINGS, "ALL", "STEP", "auto"))
        raise SettingsError(f"pooler_config.{key} is {name!r}; it must be one of {known}")
    return {"pooling": _POOLINGS[name.upper()]}


def _calibration(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("logit_sigma") == 0:
        raise SettingsError("pooler_config.logit_sigma is 0; it must be another number")
    changes = {key: float(given[key]) for key in ("logit_mean", "logit_sigma") if key in given}
    if "logit_bias" in given:
        changes["logit_mean"] = float(given["logit_bias"])
    return changes


def _class_places(pooler: Pooler, ids: list[Any]) -> tuple[int, ...]:
    for one in ids:
        if type(one) is not int or not 0 <= one < max(len(pooler.labels), 1):
            raise SettingsError(
                f"pooler_config.returned_token_ids has {one!r}; it must be below {len(pooler.labels)}, the "
                "number of classes"
            )
    return tuple(ids)
