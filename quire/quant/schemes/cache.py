"""What `--kv-cache-dtype` means: the stored form of keys and values.

What a form is byte for byte is in `ops.formats`; the scale of a number's token and head is measured as it
is written, never read from a checkpoint.
"""

from __future__ import annotations

from quire.protocol.errors import SettingsError
from quire.quant.formats import DTYPE_BYTES

STORED = {
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_per_token_head": "fp8_per_token_head",
    "int8": "int8_per_token_head",
    "int8_per_token_head": "int8_per_token_head",
}
"""Names in the settings and the form they mean. fp8 alone has no scales, as in vLLM without calibration:
numbers beyond 448 are clipped and those below 2^-6 lose bits."""


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
