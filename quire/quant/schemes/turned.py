"""Layers whose inputs or outputs a checkpoint turns, compressed-tensors' `transform_config`: put into their weights.

(x V) W^T is x (W V^T)^T, so a turned layer is a plain one, of floats: `quant.decoders.turned` multiplies. Turns
that the tool has put into weights itself need nothing. Source: the description of the library's transforms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quire.quant.schemes.parts import Infos, names_layer
from quire.quant.stored import StoredTensor

_KINDS = ("hadamard", "random-hadamard", "random-matrix")
_DONE = ("weight_input", "weight_output")
_SIDES: dict[str, Literal["input", "output"]] = {"input": "input", "output": "output"}
_OF_ATTENTION = ("q_attn", "k_cache")
_TABLES = ("embed_tokens", "embed_in", "embed_positions", "wte", "wpe", "word_embeddings")
_FLOATS = ("F64", "F32", "BF16", "F16")


@dataclass(frozen=True)
class Turn:
    """A turn of a layer's inputs or outputs, in blocks of `size`.

    matrix  the role of the tensor [size, size]; "" is Sylvester's Hadamard matrix.
    order   the role of the tensor [size] that says which of its rows, and columns, comes where; "" is as they are.
    is_turned  whether it is the matrix's transpose. over_root  whether it is over the root of the size.
    """

    side: Literal["input", "output"]
    size: int
    matrix: str = ""
    order: str = ""
    is_turned: bool = False
    over_root: bool = True


def turned(
    config: Any, infos: Infos, weights: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint, with its turns in those that they are for.

    Raises ValueError for a turn that cannot be put into a weight.
    """
    groups = _groups(config)
    ends = tuple(
        f".{name}_{place}" for name in groups for place in (*_SIDES, *_DONE, *_OF_ATTENTION)
    )
    found = {
        name: stored
        for name, stored in weights.items()
        if not name.rpartition(".")[0].endswith(ends)
    }
    for name, group in groups.items():
        kind = group.get("type")
        if kind not in _KINDS:
            raise ValueError(
                f"quantization_config.transform_config: the type {kind!r} of {name} is not computed; "
                f"{', '.join(_KINDS)} are"
            )
        _check_attention(name, group)
        for args in group["apply"]:
            if args.get("location") in _SIDES:
                for stem in _layers(args, found):
                    _turn(found, infos, stem, name, group, args)
    return found


def turns_keys(settings: Mapping[str, Any]) -> bool:
    """Whether keys are turned before they are kept, so that scales of a cache are not those of plain keys."""
    config = settings.get("transform_config")
    applied = (
        args for group in (_groups(config) if config else {}).values() for args in group["apply"]
    )
    return any(args.get("location") == "k_cache" for args in applied)


def _groups(config: Any) -> dict[str, Mapping[str, Any]]:
    """The groups by name, each with a list `apply` of objects. Raises ValueError for another form."""
    groups = config.get("config_groups") if isinstance(config, Mapping) else None
    if not isinstance(groups, Mapping):
        raise ValueError("quantization_config: transform_config needs config_groups")
    found: dict[str, Mapping[str, Any]] = {}
    for name, group in groups.items():
        applied = group.get("apply") or [] if isinstance(group, Mapping) else None
        if not isinstance(applied, list) or not all(isinstance(one, Mapping) for one in applied):
            raise ValueError(
                f"quantization_config.transform_config: {name} must be an object with a list `apply` of objects"
            )
        found[name] = {**group, "apply": applied}
    return found


def _check_attention(name: str, group: Mapping[str, Any]) -> None:
    """Queries and keys that are turned alike have the same products as before. Raises ValueError for others."""
    sides: dict[str, list[Any]] = {place: [] for place in _OF_ATTENTION}
    for args in group["apply"]:
        place = args.get("location")
        if place in sides:
            how = (args.get("targets"), args.get("ignore") or [], bool(args.get("inverse")))
            sides[place].append(how)
        elif place not in _SIDES and place not in _DONE:
            raise ValueError(
                f"quantization_config.transform_config: {name} has the location {place!r}, which is not known"
            )
    queries, keys = (sorted(map(repr, sides[place])) for place in _OF_ATTENTION)
    if queries != keys or (queries and group["type"] == "random-matrix"):
        raise ValueError(
            f"quantization_config.transform_config: {name} turns queries and keys in ways that do not cancel, "
            "which is not computed"
        )


def _layers(args: Mapping[str, Any], weights: Mapping[str, StoredTensor]) -> Iterator[str]:
    """Names of the layers that a turn is for."""

    def is_meant(stem: str) -> bool:
        def among(patterns: Any) -> bool:
            given = [patterns] if isinstance(patterns, str) else patterns or []
            return any(one == "Linear" or names_layer(str(one), stem) for one in given)

        return among(args.get("targets")) and not among(args.get("ignore"))

    for name in list(weights):
        stem, _, kind = name.rpartition(".")
        if kind != "weight" or len(weights[name].shape) != 2 or not is_meant(stem):
            continue
        if not stem.endswith(_TABLES):
            yield stem
        elif "Linear" not in (args.get("targets") or ""):
            raise ValueError(f"transform_config turns {stem}, a table; only layers' sides are")
    if "lm_head.weight" not in weights and is_meant("lm_head"):
        raise ValueError("transform_config turns lm_head, which shares its weight with a table")


def _turn(
    found: dict[str, StoredTensor],
    infos: Infos,
    stem: str,
    name: str,
    group: Mapping[str, Any],
    args: Mapping[str, Any],
) -> None:
    """Puts one turn into a layer's weight, and of an output into its bias too."""
    weight, side = found[f"{stem}.weight"], _SIDES[args["location"]]
    width = weight.shape[1] if side == "input" else weight.shape[0]
    size, kind = group.get("head_dim") or width, group["type"]
    if not isinstance(size, int) or size < 1 or width % size:
        raise ValueError(f"transform_config: blocks of {size} do not divide the {width} of {stem}")
    count = len(weight.options.get("turns", ()))
    members, matrix, order = {}, "", ""
    is_inverse = bool(args.get("inverse"))
    if kind != "hadamard":
        matrix = f"turn{count}"
        wanted = is_inverse if kind == "random-matrix" else None
        members[matrix] = _tensor(infos, stem, (name, side), group, "weight", (size, size), wanted)
    elif size & (size - 1):
        raise ValueError(
            f"transform_config: {stem} has a Hadamard matrix of {size}, no power of two"
        )
    if group.get("randomize") and kind != "random-matrix":
        order = f"order{count}"
        members[order] = _tensor(infos, stem, (name, side), group, "perm", (size,), None)
    is_turned = is_inverse and kind == "random-hadamard"
    turn = Turn(side, size, matrix, order, is_turned, over_root=kind != "random-matrix")
    for end in ("weight", "bias") if side == "output" else ("weight",):
        if f"{stem}.{end}" in found:
            stored = found[f"{stem}.{end}"]
            found[f"{stem}.{end}"] = StoredTensor(
                stored.shape,
                {**stored.members, **members},
                decoder="turned",
                options={
                    "inner": stored.options.get("inner", stored),
                    "turns": (*stored.options.get("turns", ()), turn),
                },
            )


def _tensor(
    infos: Infos,
    stem: str,
    place: tuple[str, str],
    group: Mapping[str, Any],
    end: str,
    shape: tuple[int, ...],
    is_inverse: bool | None,
) -> str:
    """The layer's own tensor, or the one of another layer that all of a group share.

    is_inverse  of matrices with an inverse of their own, which of the two; None for others.
    """
    name, side = place
    own = f"{stem}.{name}_{side}.{end}"
    sides = {
        args["location"]
        for args in group["apply"]
        if is_inverse in (None, bool(args.get("inverse")))
    }
    ends = tuple(f".{name}_{one}.{end}" for one in sorted(sides))
    for candidate in (own, *sorted(one for one in infos if one.endswith(ends))):
        info = infos.get(candidate)
        if info is not None and info.shape == shape:
            wanted = ("I64", "I32") if end == "perm" else _FLOATS
            if info.element in wanted:
                return candidate
    raise ValueError(f"the checkpoint lacks the tensor {own!r} {list(shape)}, a turn of its layer")
