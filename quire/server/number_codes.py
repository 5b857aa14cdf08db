"""Pooled numbers as clients want them: lists, base64, or raw bytes in a type and order of bytes.

numpy is imported only for the types that need it.
"""

from __future__ import annotations

import base64
import importlib
import sys
from typing import Any

from quire.protocol.pooled_results import Numbers

DTYPES = ("float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2")


def shown(numbers: Numbers, encoding: str, dtype: str, endianness: str) -> Any:
    """A list of numbers or of rows, or with encoding base64 their bytes as text."""
    if encoding == "float":
        return numbers.tolist()
    return base64.b64encode(raw_bytes(numbers, dtype, endianness)).decode()


def raw_bytes(numbers: Numbers, dtype: str, endianness: str) -> bytes:
    """The numbers' bytes, row by row. `endianness` is native, big or little."""
    order = sys.byteorder if endianness == "native" else endianness
    if dtype == "float32" and order == "little":
        return numbers.raw
    np = importlib.import_module("numpy")
    wide = np.frombuffer(numbers.raw, dtype="<f4")
    sign = "<" if order == "little" else ">"
    if dtype == "float32":
        coded = wide.astype(f"{sign}f4")
    elif dtype == "float16":
        coded = wide.astype(f"{sign}f2")
    elif dtype == "bfloat16":
        bits = wide.view("<u4").astype(np.uint64)
        coded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(f"{sign}u2")
    else:
        coded = _float8(np, wide, dtype)
    return bytes(coded.tobytes())


def _float8(np: Any, wide: Any, dtype: str) -> Any:
    """The nearest code of each number, the even one of two; what is too large becomes the largest."""
    exponent_bits, bias, last = (4, 7, 0x7E) if dtype == "fp8_e4m3" else (5, 15, 0x7B)
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(last + 1)
    exponent, mantissa = codes >> mantissa_bits, codes & ((1 << mantissa_bits) - 1)
    part = mantissa / (1 << mantissa_bits)
    values = np.where(
        exponent == 0, part * 2.0 ** (1 - bias), (1 + part) * 2.0 ** (exponent.astype(float) - bias)
    )
    sizes = np.minimum(np.abs(wide.astype(np.float64)), values[-1])
    above = np.clip(np.searchsorted(values, sizes), 1, last)
    below = above - 1
    gap_below, gap_above = sizes - values[below], values[above] - sizes
    takes_above = (gap_above < gap_below) | ((gap_above == gap_below) & (above % 2 == 0))
    code = np.where(takes_above, above, below)
    return (code | np.where(np.signbit(wide), 0x80, 0)).astype(np.uint8)


def sign_bits(numbers: Numbers, *, signed: bool) -> list[int]:
    """One bit for each number, 1 above zero, eight in a byte from the highest; `signed` bytes minus 128."""
    flat = numbers.flat()
    found = []
    for at in range(0, len(flat), 8):
        byte = 0
        for place, value in enumerate(flat[at : at + 8]):
            byte |= (value > 0) << (7 - place)
        found.append(byte - 128 if signed else byte)
    return found
