"""A description as JSON, for people and for stored copies that are compared; it is not read back.

What the fields mean is told in `models.spec`.
"""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any

from quire.models.recurrent import Recurrent
from quire.models.spec import (
    Compressed,
    DecoderSpec,
    HyperStreams,
    LayerSpec,
    Mla,
    Moe,
    RopeScaling,
)


def to_json(spec: DecoderSpec) -> dict[str, Any]:
    """The description as plain JSON values, without what is as in the plain layer.

    Equal layers are told once, with all their numbers; a part of several kinds says which it is.
    """
    kinds: dict[LayerSpec, list[int]] = {}
    for index, layer in enumerate(spec.layers):
        kinds.setdefault(layer, []).append(index)
    data = _plain(replace(spec, layers=()))
    data["layers"] = [
        {"numbers": " ".join(map(str, numbers)), **_plain(layer)}
        for layer, numbers in kinds.items()
    ]
    return data


def _plain(part: Any) -> dict[str, Any]:
    """The fields of a part that differ from their defaults; sizes have none and are always there."""
    data: dict[str, Any] = {}
    if isinstance(part, Moe | Mla | Compressed | HyperStreams | Recurrent | RopeScaling):
        data["kind"] = type(part).__name__
    for field in fields(part):
        value = getattr(part, field.name)
        if field.default is MISSING or value != field.default:
            data[field.name] = _value(value)
    return data


def _value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value(one) for one in value]
    return _plain(value) if is_dataclass(value) else value
