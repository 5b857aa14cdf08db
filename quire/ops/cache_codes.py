"""Keys and values as codes of one byte: the definition of how they are rounded and what they stand for.

Names and sizes of the formats are in `ops.formats`, where the codes lie in `ops.attention`.
"""

from __future__ import annotations

import torch

from quire.ops.formats import CacheFormat
from quire.ops.quantized import SMALLEST

FP8_LARGEST = 448.0
"""Of float8_e4m3fn."""
_E5M2_LARGEST = 57344.0
_INT8_LARGEST = 127.0


def code_dtype(format: CacheFormat) -> torch.dtype:
    """The type of a format's codes; not for a plain one."""
    return {"fp8": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2, "int8": torch.int8}[format.kind]


def encode(
    numbers: torch.Tensor, format: CacheFormat, inverse: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Codes of numbers [..., D], floats of any dtype, and their scales [...] float32.

    With scales the largest magnitude of a row has the largest code: 127, or 448 in e4m3; a row that
    is not finite has codes of 0 and the scale NaN. Without, the code is the number times `inverse`, a
    float32, rounded, at most 448 in magnitude, of e5m2 57,344, and what is not a number stays so. Every rounding is to
    nearest, ties to even.
    """
    wide = numbers.to(torch.float32)
    if not format.has_scales:
        wide = wide * wide.new_tensor(inverse)
        largest = _E5M2_LARGEST if format.kind == "e5m2" else FP8_LARGEST
        return wide.clamp(-largest, largest).to(code_dtype(format)), None
    limit = wide.abs().amax(-1, keepdim=True)
    largest = FP8_LARGEST if format.kind == "fp8" else _INT8_LARGEST
    scale = torch.div(limit, limit.new_tensor(largest))  # a plain number would be inverted first
    is_small, is_finite = limit < SMALLEST, limit.isfinite()
    is_used = is_finite & ~is_small
    codes = torch.where(is_used, wide * (1.0 / scale), 0.0)
    codes = codes.clamp_(-FP8_LARGEST, FP8_LARGEST) if format.kind == "fp8" else codes.round_()
    scale = torch.where(is_finite, torch.where(is_small, 0.0, scale), torch.nan)
    return codes.to(code_dtype(format)), scale.squeeze(-1)


def decode(codes: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
    """What codes [..., D] with scales [...] stand for, float32."""
    numbers = codes.to(torch.float32)
    return numbers if scales is None else numbers * scales.unsqueeze(-1)
