"""torchao: tensors that Transformers has taken apart to keep them in safetensors files.

Numbers are made in `quant.decoders`. Source: the attributes of the library's tensor classes. Which class a
weight has follows from its parts and the layer's settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quire.quant.formats import PLAIN, Format
from quire.quant.schemes.parts import Infos, Read, collect, group_of, member, stems
from quire.quant.stored import StoredTensor

_FLOATS = ("F16", "BF16", "F32")
_END = "_weight_qdata"


def torchao(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of a checkpoint: integers of up to 8 bits in bytes, packed ones of 4, and floats of 8 bits."""
    found = {}
    for stem in stems(infos, _END):
        if f"{stem}._weight_act_pre_scale" in infos:
            raise ValueError(f"{stem}: inputs that are scaled before the product are not computed")
        element = infos[f"{stem}.{_END}"].element
        if element == "F8_E4M3":
            found[f"{stem}.weight"] = _floats(infos, stem)
        elif element == "I32" and f"{stem}._weight_scale_and_zero" in infos:
            found[f"{stem}.weight"] = _tiles(infos, stem)
        elif element in ("I8", "U8") and _is_packed(infos, stem):
            found[f"{stem}.weight"] = _nibbles(infos, stem)
        elif element == "I8" and f"{stem}._weight_scale" in infos:
            found[f"{stem}.weight"] = _integers(infos, stem, _config_of(stem, settings))
        else:
            raise ValueError(
                f"tensor {f'{stem}.{_END}'!r} is {element}: of int4 the packing formats plain and "
                "tile_packed_to_4d are read, and IntxWeightOnlyConfig(weight_dtype=torch.int4)"
            )
    return collect(infos, found)


def _config_of(stem: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a layer as it is written: {"_type": ..., "_data": ...}."""
    kinds = settings.get("quant_type")
    config = kinds.get("default") if isinstance(kinds, dict) else None
    if not isinstance(config, dict):
        raise ValueError("quantization_config: quant_type names no torchao configuration")
    data = config.get("_data")
    by_name = next(
        (
            data[key]
            for key in ("fqn_to_config", "module_fqn_to_config")
            if isinstance(data, dict) and isinstance(data.get(key), dict)
        ),
        None,
    )
    if by_name is None:
        return config
    for name, one in by_name.items():
        pattern = name.removeprefix("re:")
        places = (stem, f"{stem}.weight")
        if name in places or (
            name != pattern and any(re.fullmatch(pattern, place) for place in places)
        ):
            return one or {}
    return by_name.get("_default") or {}


def _integers(infos: Infos, stem: str, config: Mapping[str, Any]) -> StoredTensor:
    rows, depth, groups = _sizes(infos, stem)
    if depth % groups:
        raise ValueError(f"{stem}: {groups} groups do not divide {depth} inputs")
    group = group_of(depth, depth // groups)
    data = config.get("_data") or {}
    mapping = (data.get("act_mapping_type") or {}).get("_data", "SYMMETRIC")
    is_rounded = config.get("_type") == "Int8DynamicActivationInt8WeightConfig" and not group
    is_rounded = is_rounded and not data.get("reduce_range")
    members = {"codes": f"{stem}.{_END}", "scales": f"{stem}._weight_scale"}
    zeros = f"{stem}._weight_zero_point"
    if zeros in infos:
        members["zeros"] = member(infos, zeros, infos[members["scales"]].shape, ("I8",))
    is_wide = "int8" in str(data.get("weight_dtype")) and "ASYMMETRIC" in str(
        data.get("mapping_type")
    )
    return StoredTensor(
        (rows, depth),
        members,
        decoder="bytes",
        options={"bits": 8},
        format=PLAIN
        if group is None or is_wide  # less their zero points, codes need 9 bits
        else Format(
            "int8",
            group,
            inputs=("row" if mapping == "SYMMETRIC" else "row_zp") if is_rounded else "",
        ),
    )


def _is_packed(infos: Infos, stem: str) -> bool:
    """Whether codes are two to a byte: scales and zero points stand by groups, and are floats."""
    zeros = infos.get(f"{stem}._weight_zero_point")
    return zeros is not None and zeros.element in _FLOATS and len(zeros.shape) == 2


def _nibbles(infos: Infos, stem: str) -> StoredTensor:
    """`plain` int4: [N, K / 2], the low half first; scales and zero points [groups, N] are floats."""
    shape = infos[f"{stem}.{_END}"].shape
    groups, rows = infos[f"{stem}._weight_zero_point"].shape
    if len(shape) != 2 or shape[0] != rows or not groups or 2 * shape[1] % groups:
        raise ValueError(
            f"{stem}: int4 codes {list(shape)} with zero points {[groups, rows]} are not read; a matrix and "
            "groups of its rows are needed"
        )
    members = {"codes": f"{stem}.{_END}"}
    for role, name in (("scales", "scale"), ("zeros", "zero_point")):
        members[role] = member(infos, f"{stem}._weight_{name}", (groups, rows), _FLOATS)
    return _middled((rows, 2 * shape[1]), groups, members, "nibbles")


def _tiles(infos: Infos, stem: str) -> StoredTensor:
    """`tile_packed_to_4d` int4: [N / 8, K / 128, 32, 4] words; scales and zero points [groups, N, 2].

    Rows are filled up to whole 1,024 inputs; how many there are is in the file's notes.
    """
    shape, meant = infos[f"{stem}.{_END}"].shape, infos[f"{stem}.{_END}"].meant
    if len(shape) != 4 or shape[2:] != (32, 4):
        raise ValueError(
            f"{stem}: int4 tiles {list(shape)} are not read; [N / 8, K / 128, 32, 4] are needed"
        )
    rows, depth = 8 * shape[0], 128 * shape[1]
    pairs = f"{stem}._weight_scale_and_zero"
    groups = infos[pairs].shape[0]
    member(infos, pairs, (groups, rows, 2), _FLOATS)
    if not groups or depth % groups:
        raise ValueError(f"{stem}: {groups} groups do not divide {depth} inputs")
    size = depth // groups
    if len(meant) == 2 and meant[0] <= rows and 0 < meant[1] <= depth and meant[1] % size == 0:
        rows, depth, groups = *meant, meant[1] // size
    members = {"codes": f"{stem}.{_END}", "pairs": pairs}
    return _middled((rows, depth), groups, members, "tiles")


def _middled(
    shape: tuple[int, int], groups: int, members: dict[str, str], form: str
) -> StoredTensor:
    """Codes of four bits, of which eight stands for a zero point that is a float: 8 bits hold them nearly."""
    group = group_of(shape[1], shape[1] // groups)
    return StoredTensor(
        shape,
        members,
        decoder="middled",
        options={"form": form},
        format=PLAIN if group is None else Format("int8", group),
        is_exact=False,
    )


def _floats(infos: Infos, stem: str) -> StoredTensor:
    rows, depth, groups = _sizes(infos, stem)
    if groups != 1:
        raise ValueError(f"{stem}: float8 with scales of {groups} groups in a row is not read")
    return StoredTensor(
        (rows, depth),
        {"codes": f"{stem}.{_END}", "scales": f"{stem}._weight_scale"},
        decoder="float8",
        options={"block": None},
        format=Format("fp8"),
    )


def _sizes(infos: Infos, stem: str) -> tuple[int, int, int]:
    """Rows and inputs of a weight, and how many scales a row has."""
    shape, scale = infos[f"{stem}.{_END}"].shape, f"{stem}._weight_scale"
    given = infos[scale].shape if scale in infos else ()
    rows = shape[0] if len(shape) == 2 else 0
    if len(shape) != 2 or len(given) != 2 or given[0] not in (1, rows) or given[1] < 1:
        raise ValueError(
            f"{stem}: codes of the shape {list(shape)} with scales {list(given)} are not read; a matrix and "
            "its scales by row are needed"
        )
    member(infos, scale, given, _FLOATS)
    return rows, shape[1], given[1]
