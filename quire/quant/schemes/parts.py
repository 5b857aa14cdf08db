"""Pieces that the schemes of quantized checkpoints share: names, groups, shapes that must agree."""

from __future__ import annotations

import hashlib
import re
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from quire.quant.formats import PLAIN, Format
from quire.quant.stored import StoredTensor, TensorInfo, plain

Infos = Mapping[str, TensorInfo]
Read = Callable[[str], bytes]
"""The bytes of a small tensor by its name, for what shapes do not tell."""

_OF_THE_CACHE = ("k_scale", "v_scale", "q_scale", "prob_scale", "prob_output_scale")
_OF_INPUTS = ("input_scale", "output_scale", "input_zero_point", "input_global_scale")
LEFT_OUT = (*_OF_THE_CACHE, *_OF_INPUTS, "k_zero_point", "v_zero_point", "activation_scale")
"""Ends of names that are no weights: scales of a cache, which are measured here as numbers come, and of
inputs, which are used where rows are rounded to 8 bits."""


def collect(infos: Infos, weights: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The weights that a scheme has found, and beside them all tensors that belong to none of them."""
    used = {member for weight in weights.values() for member in weight.members.values()}
    found = dict(weights)
    for name, info in infos.items():
        if name not in used and name.rpartition(".")[2] not in LEFT_OUT:
            found[name] = plain(name, info.shape)
    return found


def stems(infos: Infos, ending: str) -> list[str]:
    """What stands before `.ending` in the names that have it."""
    return [name.removesuffix(f".{ending}") for name in infos if name.endswith(f".{ending}")]


def member(infos: Infos, name: str, shape: tuple[int, ...], elements: Iterable[str]) -> str:
    """The name itself. Raises ValueError if no such tensor is there, of this shape and an element type."""
    info, elements = infos.get(name), tuple(elements)
    if info is None:
        raise ValueError(f"the checkpoint lacks the tensor {name!r}, a part of a quantized weight")
    if info.shape != shape or info.element not in elements:
        raise ValueError(
            f"tensor {name!r} is {info.element} {list(info.shape)}; as its settings say it must be "
            f"{' or '.join(elements)} {list(shape)}"
        )
    return name


def one_number(infos: Infos, read: Read, name: str) -> float:
    """The only number of a small tensor. Raises ValueError if it has others, or a type that is not known."""
    info = infos[name]
    kinds = {
        "F32": "<f",
        "F16": "<e",
        "BF16": "<f",
        "U8": "<B",
        "BOOL": "<B",
        "I8": "<b",
        "I32": "<i",
        "I64": "<q",
    }
    if prod(info.shape) != 1 or info.element not in kinds:
        raise ValueError(
            f"tensor {name!r} is {info.element} {list(info.shape)}; one number is needed"
        )
    data = b"\0\0" * (info.element == "BF16") + read(name)
    return float(struct.unpack(kinds[info.element], data)[0])


def group_of(depth: int, size: int) -> int | None:
    """The group of a format for scales of `size` neighbours each: 0 is all of them; None if there is none."""
    if size <= 0 or size >= depth:
        return 0
    return next((group for group in (128, 64, 32) if size % group == 0), None)


def integer_format(bits: int, depth: int, size: int, *, has_zeros: bool) -> Format:
    """What integers of so many bits, with scales of `size` neighbours, are kept as."""
    group = group_of(depth, size)
    if group is None:
        return PLAIN
    if bits == 8:
        return Format("int8", group, has_zeros=has_zeros)
    return Format("int4", group, has_zeros=has_zeros and bits == 4)


def ordered(infos: Infos, read: Read, name: str, format: Format, size: int) -> tuple[Format, str]:
    """A format and what tells its order of inputs from others', for the group of each input in a tensor.

    The format has no order where groups are neighbours, and is plain where they are not `size` inputs each.
    """
    element, (depth,) = infos[name].element, infos[name].shape
    data = read(name)
    if len(data) != depth * (8 if element == "I64" else 4):
        raise ValueError(f"tensor {name!r} is cut short")
    index = array("q" if element == "I64" else "i", data)
    step = size if 0 < size < depth else depth
    if list(index) == [place // step for place in range(depth)]:
        return format, ""
    counts = Counter(index)
    whole_groups = range(-(-depth // step))
    if any(counts[group] != min(step, depth - group * step) for group in whole_groups):
        return PLAIN, ""
    if format.bits is None or not format.group:
        return PLAIN, ""
    return replace(format, has_order=True), hashlib.sha256(index.tobytes()).hexdigest()


def whole(settings: Mapping[str, Any], names: Iterable[str], default: int | None = None) -> int:
    """A whole number of the settings under the first of `names` that is there. Raises ValueError."""
    for name in names:
        if settings.get(name) is not None:
            value = settings[name]
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(
                    f"quantization_config: {name} is {value!r}; it must be a whole number"
                )
            return value
    if default is None:
        raise ValueError(f"quantization_config lacks {next(iter(names))}")
    return default


def names_layer(pattern: str, stem: str) -> bool:
    """Whether a pattern of the settings means a layer: its name, a part of it, or `re:` and an expression.

    Raises ValueError for an expression that is none.
    """
    if pattern.startswith("re:"):
        try:
            return re.match(pattern.removeprefix("re:"), stem) is not None
        except re.error as error:
            raise ValueError(
                f"quantization_config: {pattern!r} is no regular expression: {error}"
            ) from None
    return stem == pattern or f".{stem}.".find(f".{pattern}.") >= 0
