"""What `--kv-cache-dtype` means: the stored form of keys and values, and a checkpoint's scales for it.

What a form is byte for byte is in `ops.formats`. Scales of a token and head are measured as it is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from quire.protocol.errors import SettingsError
from quire.quant.formats import DTYPE_BYTES
from quire.quant.schemes.parts import Infos, Read, one_number
from quire.quant.schemes.turned import turns_keys

STORED = {
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8_e5m2",
    "fp8_per_token_head": "fp8_per_token_head",
    "int8": "int8_per_token_head",
    "int8_per_token_head": "int8_per_token_head",
}
"""Names in the settings and the form they mean. fp8 alone has the checkpoint's scales for each layer, or none,
as in vLLM without calibration: then numbers beyond 448 are clipped and those below 2^-6 lose bits. fp8_e5m2
has three bits of a number, from 2^-14 to 57,344, and no scales."""

_SCALE = re.compile(
    r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)\.(?:\w+\.)*?(?:(k|v|kv)_scale|([kv])_proj\.output_scale)"
)
"""Names that scales of a cache have: compressed-tensors' and modelopt's, and those of the tools before them
and of Quark, for which they are the scales of what k_proj and v_proj give."""


def cache_scales(
    settings: Mapping[str, Any], infos: Infos, read: Read
) -> dict[int, tuple[float, float]]:
    """The scales of an fp8 cache that a checkpoint has; of another cache, of single heads, and of turned
    keys, none.

    Raises ValueError for a scale that is not a number above zero.
    """
    scheme = settings.get("kv_cache_scheme")
    if isinstance(scheme, dict) and (
        scheme.get("type", "float") != "float" or scheme.get("num_bits", 8) != 8
    ):
        return {}
    if turns_keys(settings):
        return {}
    found: dict[int, dict[str, float]] = {}
    for name, info in infos.items():
        match = _SCALE.fullmatch(name)
        if (
            match is None
            or math.prod(info.shape) != 1
            or info.element not in ("F32", "F16", "BF16")
        ):
            continue
        scale = one_number(infos, read, name)
        if not 0.0 < scale < math.inf:
            raise ValueError(f"tensor {name!r} is {scale}; a scale must be a number above zero")
        found.setdefault(int(match[1]), {})[match[2] or match[3]] = scale
    return {
        layer: (one.get("k", one.get("kv", 1.0)), one.get("v", one.get("kv", 1.0)))
        for layer, one in found.items()
    }


def cache_storage(name: str, *, dtype: str, device: str) -> str:
    """The stored form of a setting's name: the model's dtype, or a key of `ops.formats.CACHE_FORMATS`.

    Raises SettingsError, with the names there are, for one that is not stored for this dtype or device.
    """
    if name in ("auto", dtype):
        return dtype
    if name in DTYPE_BYTES:
        raise SettingsError(
            f"kv_cache_dtype {name!r} is not the model's {dtype}, which floats of the cache must have: "
            f"use auto, or give --dtype {name} too"
        )
    if name not in STORED:
        raise SettingsError(
            f"kv_cache_dtype {name!r} is not stored by this version; use one of: auto, {', '.join(STORED)}"
        )
    if device != "cpu":
        raise SettingsError(f"kv_cache_dtype {name!r} works on cpu only: give --device cpu")
    return STORED[name]
