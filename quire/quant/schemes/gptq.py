"""GPTQ and AWQ checkpoints: packed words of 32 bits, zero points, and an order of columns.

Unpacking is `quant.decoders.integers`'. Sources: the layouts of AutoGPTQ (both versions of its zero
points) and of AutoAWQ's "gemm" kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.quant.formats import PLAIN
from quire.quant.schemes.parts import Infos, Read, collect, integer_format, member, stems, whole
from quire.quant.stored import StoredTensor

_FLOATS = ("F16", "BF16", "F32")


def gptq(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of a GPTQ checkpoint of 2, 3, 4 or 8 bits, each with its own by its shapes.

    With an order of columns (`desc_act`) groups are no neighbours, and weights become floats.
    """
    version = settings.get("checkpoint_format", "gptq")
    if version not in ("gptq", "gptq_v2"):
        raise ValueError(
            f"quantization_config: checkpoint_format {version!r} is not read; gptq and gptq_v2 are"
        )
    bits, size = whole(settings, ("bits",)), whole(settings, ("group_size",), -1)
    symmetric = settings.get("sym", True) is not False
    in_order = not settings.get("desc_act")
    found = {}
    for stem in stems(infos, "qweight"):
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
        found[f"{stem}.weight"] = StoredTensor(
            (columns, depth),
            members,
            decoder="gptq",
            options={"bits": own, "add": int(version == "gptq")},
            format=format if in_order or groups == 1 else PLAIN,
        )
    return collect(infos, found)


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


def _groups(depth: int, size: int) -> int:
    return 1 if size <= 0 else -(-depth // size)


def _matrix(infos: Infos, name: str) -> tuple[int, int]:
    """The shape of a tensor that must be there and have two axes."""
    info = infos.get(name)
    if info is None or len(info.shape) != 2 or min(info.shape) < 1:
        what = "is not there" if info is None else f"has the shape {list(info.shape)}"
        raise ValueError(f"tensor {name!r} {what}; a matrix is needed")
    return info.shape[0], info.shape[1]
