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
    """The weights of a checkpoint: integers of up to 8 bits in bytes, and floats of 8 bits."""
    found = {}
    for stem in stems(infos, _END):
        if f"{stem}._weight_act_pre_scale" in infos:
            raise ValueError(f"{stem}: inputs that are scaled before the product are not computed")
        element = infos[f"{stem}.{_END}"].element
        if element == "F8_E4M3":
            found[f"{stem}.weight"] = _floats(infos, stem)
        elif element == "I8" and f"{stem}._weight_scale" in infos:
            found[f"{stem}.weight"] = _integers(infos, stem, _config_of(stem, settings))
        else:
            raise ValueError(
                f"tensor {f'{stem}.{_END}'!r} is {element}: int4 packed for the kernels of one device is not "
                "read; save it as IntxWeightOnlyConfig(weight_dtype=torch.int4), or in int8 or float8"
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
