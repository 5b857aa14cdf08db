"""Weights of fewer bits made of floats: the scale of each group, and the nearest code of each number.

Which weight gets which format is `quant.schemes`'; what a code stands for is told in `ops.quantized`. The
native library, where there is one, does the same steps and makes the same codes.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from quire.ops.cpu import quantized as native
from quire.ops.formats import Format
from quire.ops.quantized import SMALLEST, QuantizedWeight

FP8_LARGEST = 448.0
"""Of float8_e4m3fn."""
SHARES = (1.0, 0.94, 0.88, 0.82, 0.76)
"""Parts of the largest magnitude that the codes of four bits may reach: beyond, numbers are clipped."""
_LANES = 16
_CHUNK = 1 << 16  # numbers that are rounded at a time


def quantize(weight: torch.Tensor, format: Format) -> QuantizedWeight:
    """Rounds weight [N, K], floats of any dtype; a group that is not finite gets the scale NaN.

    What rows are rounded to changes nothing here; "fixed" ones need a step of their own.

    int8  symmetric: the largest magnitude of a group is 127, and a zero point is 0.
    int4  the scale with the least squared error among a few, -8 to 7; with zero points, from the
          group's least to its largest.
    Scales that are kept as float16 are rounded to it when codes are there.
    fp8   the largest magnitude of a group is 448; groups of 128 are shared by 128 columns.
    """
    if format.inputs:
        return replace(quantize(weight, replace(format, inputs="")), format=format)
    if format.has_order:
        order = torch.arange(weight.shape[1], dtype=torch.int32)
        return replace(
            quantize(weight, replace(format, has_order=False)), format=format, order=order
        )
    if format.kind == "int8" and format.has_zeros:
        made = quantize(weight, replace(format, has_zeros=False))
        return replace(made, format=format, zeros=torch.zeros_like(made.scales, dtype=torch.int8))
    if format.half_scales:
        made = quantize(weight, replace(format, half_scales=False))
        return replace(made, format=format, scales=made.scales.to(torch.float16).to(torch.float32))
    limits = None
    if format.kind == "fp8" and (format.group or format.one_scale):
        limits = shared_limits(weight, format)
    if weight.device.type == "cpu" and native.is_there():
        return native.round_weight(weight, format, limits)
    return round_weight(weight, format, limits)


def round_weight(
    weight: torch.Tensor, format: Format, limits: torch.Tensor | None = None
) -> QuantizedWeight:
    """`quantize` in plain PyTorch.

    limits  [N, groups] float32: the magnitudes that the largest codes stand for; None: each group's own.
    """
    num_columns, depth = weight.shape
    groups, size = format.num_groups(depth), format.group or depth
    padded = -(-size // _LANES) * _LANES
    made = {"int8": torch.int8, "int4": torch.uint8, "fp8": torch.float8_e4m3fn}[format.kind]
    codes = torch.empty(num_columns, depth, dtype=made, device=weight.device)
    scales = torch.empty(num_columns, groups, device=weight.device)
    zeros = torch.empty_like(scales, dtype=torch.uint8) if format.has_zeros else None
    step = max(_CHUNK // depth, 1)
    for start in range(0, num_columns, step):
        rows = slice(start, min(start + step, num_columns))
        piece = torch.zeros(rows.stop - start, groups * size, device=weight.device)
        piece[:, :depth] = weight[rows]
        numbers = piece.new_zeros(rows.stop - start, groups, padded)
        numbers[..., :size] = piece.view(-1, groups, size)
        limit = _largest(numbers) if limits is None else limits[rows]
        if format.kind == "int8":
            found, scales[rows] = _int8(numbers, limit.abs())
        elif format.kind == "fp8":
            found, scales[rows] = _fp8(numbers, limit.abs())
        elif zeros is None:
            found, scales[rows] = _int4(numbers, limit)
        else:
            found, scales[rows], zeros[rows] = _int4_with_zeros(numbers, limit)
        codes[rows] = found[..., :size].reshape(-1, groups * size)[:, :depth].to(made)
    return QuantizedWeight(format, codes, scales, weight.dtype, zeros)


def shared_limits(weight: torch.Tensor, format: Format) -> torch.Tensor:
    """[N, groups] float32: the largest magnitude of all of weight [N, K], or of each square of a group."""
    num_columns, depth = weight.shape
    if format.one_scale:
        least, most = torch.aminmax(weight)
        return torch.maximum(-least, most).to(torch.float32).repeat(num_columns, 1)
    size, rows = format.group, []
    for start in range(0, num_columns, size):
        square = torch.zeros(format.num_groups(depth) * size, device=weight.device)
        square[:depth] = weight[start : start + size].to(torch.float32).abs().amax(0)
        limit = square.view(-1, size).amax(1)
        rows.append(limit.expand(min(size, num_columns - start), -1))
    return torch.cat(rows)


def _largest(numbers: torch.Tensor) -> torch.Tensor:
    """[n, groups]: the number of largest magnitude with its sign; what is not a number comes first."""
    return torch.gather(numbers, -1, numbers.abs().argmax(-1, keepdim=True)).squeeze(-1)


def _scale(limit: torch.Tensor, code: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, its inverse) [n, groups] that make `code` stand for `limit`; inverse 0 makes all codes 0."""
    scale = torch.div(limit, limit.new_tensor(code))
    is_small = limit.abs() < SMALLEST
    inverse = torch.div(limit.new_tensor(1.0), scale)
    inverse = torch.where(is_small | ~limit.isfinite(), 0.0, inverse)
    scale = torch.where(is_small, 0.0, scale)
    return torch.where(limit.isfinite(), scale, torch.nan), inverse


def _scaled(numbers: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    factor = inverse.unsqueeze(-1)
    return torch.where(factor == 0.0, 0.0, numbers * factor)


def _int8(numbers: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale, inverse = _scale(limit, 127.0)
    return _scaled(numbers, inverse).round_(), scale


def _fp8(numbers: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale, inverse = _scale(limit, FP8_LARGEST)
    return _scaled(numbers, inverse).clamp_(-FP8_LARGEST, FP8_LARGEST), scale


def _int4(numbers: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    best_scale, best_inverse = _scale(limit, -8.0)
    least = torch.full_like(limit, torch.inf)
    for share in SHARES:
        for code in (-8.0, 7.0):  # what the number of largest magnitude becomes
            scale, inverse = _scale(limit * share, code)
            codes = _scaled(numbers, inverse).round_().clamp_(-8.0, 7.0)
            error = _sum_of_squares(codes * scale.unsqueeze(-1) - numbers)
            is_better = (error < least) & (inverse != 0.0)
            least = torch.where(is_better, error, least)
            best_scale = torch.where(is_better, scale, best_scale)
            best_inverse = torch.where(is_better, inverse, best_inverse)
    return _scaled(numbers, best_inverse).round_().clamp_(-8.0, 7.0) + 8.0, best_scale


def _int4_with_zeros(
    numbers: torch.Tensor, limit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    below, above = (-numbers).amax(-1).clamp_(min=0.0), numbers.amax(-1).clamp_(min=0.0)
    span = torch.where(limit.isfinite(), above + below, torch.nan)
    scale, inverse = _scale(span, 15.0)
    zero = _scaled(below.unsqueeze(-1), inverse).round_()  # [n, groups, 1]
    codes = (_scaled(numbers, inverse).round_() + zero).clamp_(0.0, 15.0)
    return codes, scale, zero.squeeze(-1).nan_to_num_(0.0).to(torch.uint8)


def _sum_of_squares(numbers: torch.Tensor) -> torch.Tensor:
    """[n, groups]: lane by lane, then the lanes by halves, as the kernels add."""
    squares = (numbers * numbers).view(*numbers.shape[:-1], -1, _LANES)
    total = torch.zeros_like(squares[..., 0, :])
    for index in range(squares.shape[-2]):
        total = total + squares[..., index, :]
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total.squeeze(-1)
