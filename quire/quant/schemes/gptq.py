"""GPTQ, AWQ and AutoRound checkpoints: packed words of 32 bits, zero points, and an order of columns.

Unpacking is `quant.decoders.integers`'. Sources: the layouts of AutoGPTQ (both versions of its zero
points), of AutoAWQ's "gemm" kernels, and of AutoRound's exports, which are these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quire.quant.schemes import sparse
from quire.quant.schemes.float8 import float8
from quire.quant.schemes.parts import (
    Infos,
    Read,
    collect,
    integer_format,
    member,
    ordered,
    stems,
    whole,
)
from quire.quant.stored import StoredTensor

_FLOATS = ("F16", "BF16", "F32")


def gptq(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of a GPTQ checkpoint of 2, 3, 4 or 8 bits, each with its own by its shapes.

    With an order of inputs (`desc_act`) groups are no neighbours: codes are put into it, and rows as they come.
    """
    version = settings.get("checkpoint_format", "gptq")
    if stems(infos, "B_24"):
        return _two_of_four(settings, infos)
    if version not in ("gptq", "gptq_v2"):
        raise ValueError(
            f"quantization_config: checkpoint_format {version!r} is not read; gptq, gptq_v2 and marlin_24 are"
        )
    found = {}
    for stem in stems(infos, "qweight"):
        own_settings = {**settings, **_settings_of(stem, settings)}
        bits, size = whole(own_settings, ("bits",)), whole(own_settings, ("group_size",), -1)
        symmetric = own_settings.get("sym", True) is not False
        words, columns = _matrix(infos, f"{stem}.qweight")
        own, depth = bits, words * 32 // bits
        index = infos.get(f"{stem}.g_idx")
        if index is not None and len(index.shape) == 1 and index.shape[0]:
            depth = index.shape[0]
            own = words * 32 // depth
        if own not in (2, 3, 4, 8) or depth * own != words * 32:
            raise ValueError(
                f"tensor {stem + '.qweight'!r} {[words, columns]} is not {depth} numbers of {own} bits a "
                "column; 2, 3, 4 and 8 bits are read"
            )
        groups, _ = _matrix(infos, f"{stem}.scales")
        group_size = size if own == bits and groups == _groups(depth, size) else depth // groups
        if groups != _groups(depth, group_size):
            raise ValueError(f"tensor {stem + '.scales'!r} has {groups} groups for {depth} inputs")
        members = {
            "codes": member(infos, f"{stem}.qweight", (words, columns), ("I32",)),
            "scales": member(infos, f"{stem}.scales", (groups, columns), _FLOATS),
            "zeros": member(infos, f"{stem}.qzeros", (groups, columns * own // 32), ("I32",)),
        }
        if index is not None:
            members["order"] = member(infos, f"{stem}.g_idx", (depth,), ("I32", "I64"))
        format = integer_format(own, depth, group_size, has_zeros=not symmetric)
        options: dict[str, Any] = {"bits": own, "add": int(version == "gptq")}
        if index is not None and groups > 1:
            name = f"{stem}.g_idx"
            format, options["order"] = ordered(infos, read, name, format, group_size)
        found[f"{stem}.weight"] = StoredTensor(
            (columns, depth), members, decoder="gptq", options=options, format=format
        )
    return collect(infos, found)


def _two_of_four(settings: Mapping[str, Any], infos: Infos) -> dict[str, StoredTensor]:
    """2:4 sparse weights in the layout of Marlin's kernels."""
    bits, size = whole(settings, ("bits",)), whole(settings, ("group_size",), -1)
    found = {}
    for stem in stems(infos, "B_24"):
        names = (f"{stem}.B_24", f"{stem}.B_meta", f"{stem}.s")
        found[f"{stem}.weight"] = sparse.marlin_24(infos, names, bits, size, from_groups_of=1)
    left = {name: info for name, info in infos.items() if not name.endswith(".workspace")}
    return collect(left, found)


def awq(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of an AWQ checkpoint of 4 bits in the layout "gemm"."""
    version = str(settings.get("version", "gemm")).lower()
    if version not in ("gemm", "marlin"):
        raise ValueError(
            f"quantization_config: version {version!r} of AWQ is not read; gemm is, convert it"
        )
    bits = whole(settings, ("bits", "w_bit"))
    if bits != 4:
        raise ValueError(f"quantization_config: AWQ of {bits} bits is not read; 4 bits are")
    size = whole(settings, ("group_size", "q_group_size"), -1)
    found = {}
    for stem in stems(infos, "qweight"):
        depth, words = _matrix(infos, f"{stem}.qweight")
        groups = _groups(depth, size)
        columns = words * 8
        members = {
            "codes": member(infos, f"{stem}.qweight", (depth, words), ("I32",)),
            "scales": member(infos, f"{stem}.scales", (groups, columns), _FLOATS),
        }
        has_zeros = f"{stem}.qzeros" in infos
        if has_zeros:
            members["zeros"] = member(infos, f"{stem}.qzeros", (groups, words), ("I32",))
        found[f"{stem}.weight"] = StoredTensor(
            (columns, depth),
            members,
            decoder="awq",
            options={"bits": 4},
            format=integer_format(4, depth, size, has_zeros=has_zeros),
        )
    return collect(infos, found)


def auto_round(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of an AutoRound export, whose packing_format says whose layout it has.

    "auto_round" alone is GPTQ's with zero points as they are; with "gptq" they are less one. Floats of 8 bits,
    NVFP4 and the microscaling formats are as compressed-tensors has them.
    """
    packing = str(settings.get("packing_format", "auto_round:gptq"))
    kind = str(settings.get("data_type", "int"))
    if "fp" in kind and "v2" not in kind and not settings.get("rotation_config"):
        return float8(settings, infos, read)  # inputs keep their bits
    if settings.get("act_bits", 16) not in (None, 16) or settings.get("rotation_config"):
        raise ValueError(
            f"quantization_config: AutoRound's {kind} with {settings.get('act_bits', 16)} bits of inputs, "
            "or turned ones, is not read"
        )
    if "awq" in packing:
        return awq({**settings, "version": "gemm"}, infos, read)
    version = "gptq_v2" if "gptq" not in packing or "gptqmodel" in packing else "gptq"
    if packing.partition(":")[0] != "auto_round":
        raise ValueError(
            f"quantization_config: packing_format {packing!r} is not read; auto_round is, with gptq or awq"
        )
    return gptq({**settings, "checkpoint_format": version}, infos, read)


def _settings_of(stem: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What AutoRound says of a layer of its own, by its name or an expression for it."""
    for name, one in (settings.get("extra_config") or {}).items():
        try:
            is_meant = name == stem or re.fullmatch(name, stem) is not None
        except re.error as error:
            raise ValueError(
                f"quantization_config.extra_config: {name!r} is neither a layer nor an expression ({error})"
            ) from None
        if is_meant and isinstance(one, dict):
            return {key: value for key, value in one.items() if value is not None}
    return _dynamic(stem, settings)


def _dynamic(stem: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What GPTQModel says of layers whose names begin as an expression says; `-:` ones are not quantized."""
    dynamic = settings.get("dynamic") or {}
    if not isinstance(dynamic, dict):
        raise ValueError(
            f"quantization_config.dynamic: {dynamic!r} must be an object of expressions"
        )
    for name, one in dynamic.items():
        try:
            is_meant = re.match(name.removeprefix("+:").removeprefix("-:"), stem) is not None
        except re.error as error:
            raise ValueError(
                f"quantization_config.dynamic: {name!r} is no expression for layers ({error})"
            ) from None
        if is_meant:
            return one if isinstance(one, dict) and not name.startswith("-:") else {}
    return {}


def _groups(depth: int, size: int) -> int:
    return 1 if size <= 0 else -(-depth // size)


def _matrix(infos: Infos, name: str) -> tuple[int, int]:
    """The shape of a tensor that must be there and have two axes."""
    info = infos.get(name)
    if info is None or len(info.shape) != 2 or min(info.shape) < 1:
        what = "is not there" if info is None else f"has the shape {list(info.shape)}"
        raise ValueError(f"tensor {name!r} {what}; a matrix is needed")
    return info.shape[0], info.shape[1]
