"""Products with weights of fewer bits: what they are, in plain PyTorch.

A product with integer weights rounds its rows to 16-bit integers, 128 inputs at a time, or to 8-bit ones as
a whole where the format says so, and is exact within a group: float32 begins where groups are added up, in
rising order. So there is one answer, and every provider that follows the definition has its bits. Which
formats there are is `ops.formats`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quire.ops.formats import SUPER_KINDS, Format, SuperKind, super_runs

PART = 128
"""Inputs of a row that share one step."""
LARGEST = 28416.0
"""What the largest of a part becomes: with 4,096 more, codes times scales of a super-block, it fits in 16 bits."""
LARGEST_SHORT = 127.0
"""The same where rows have 8 bits."""
SMALLEST = 2.0**-100
"""A part whose numbers are all below is zero."""


@dataclass(frozen=True)
class SuperBlocks:
    """What numbers in super-blocks have beside their codes: factor * step * code - floor * minimum.

    Factors are the weight's `scales`, one for each 256 inputs, and so are floors: [N, K / 256] float32, numbers
    that float16 holds but for factors of int8_k. steps [N, K / 16] int8; minima [N, K / 16] uint8 up to 63.
    """

    floors: torch.Tensor
    steps: torch.Tensor
    minima: torch.Tensor


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight [N, K] in a stored format, before a provider packs it.

    codes   [N, K]: int8; of int4 uint8 from 0 to 15; float8_e4m3fn.
    scales  [N, groups] float32, of a format with half_scales such as float16 holds; what a number stands for
            is (code - zero) * scale.
    zeros   [N, groups] uint8, of int8 int8, or None for 0, and 8 for int4.
    order   [K] int32, each input once: which one a column of codes meets; None: they meet as they come.
    dtype   of the rows that it multiplies.
    step, shift  of rows that are "fixed": what stands for one code, and the code of zero, -128 to 127.
    inner   of super-blocks; None of others.
    """

    format: Format
    codes: torch.Tensor
    scales: torch.Tensor
    dtype: torch.dtype
    zeros: torch.Tensor | None = None
    step: float = 0.0
    shift: int = 0
    inner: SuperBlocks | None = None
    order: torch.Tensor | None = None

    def dequantized(self) -> torch.Tensor:
        """[N, K] float32: the numbers that it stands for, each rounded once, or twice with a minimum."""
        if self.inner is not None:
            factors = self.scales.repeat_interleave(16, dim=1) * self.inner.steps
            floors = self.inner.floors.repeat_interleave(16, dim=1) * self.inner.minima
            numbers = factors.unsqueeze(-1) * self.codes.view(len(self.codes), -1, 16)
            return (numbers - floors.unsqueeze(-1)).flatten(1)
        codes = _less_zero(self, self.codes.to(torch.float32))
        numbers = codes * _spread(self.scales, self)
        return numbers if self.order is None else numbers[:, torch.argsort(self.order)]


@dataclass(frozen=True)
class StoredWeight:
    """What the reference keeps: the weight as it came, and bias [N] or None."""

    weight: QuantizedWeight
    bias: torch.Tensor | None


def round_rows(x: torch.Tensor, format: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """x [T, K] as (whole numbers [T, parts, PART] float32, steps [T, parts] float32), padded with zeros.

    A number is nearest-even of x * (largest / limit) and the step is limit / largest, where limit is the
    largest magnitude of its part and largest LARGEST or LARGEST_SHORT. A part that is not finite has the step NaN.
    """
    largest = LARGEST_SHORT if format.inputs == "part" else LARGEST
    num_parts = -(-x.shape[1] // PART)
    parts = torch.zeros(x.shape[0], num_parts * PART, dtype=torch.float32, device=x.device)
    parts[:, : x.shape[1]] = x
    parts = parts.view(x.shape[0], num_parts, PART)
    limit = parts.abs().amax(-1)  # [T, parts]; NaN where there is one
    is_small = limit < SMALLEST
    steps = torch.where(is_small, 0.0, limit / largest)
    inverse = torch.where(
        is_small, 0.0, torch.div(limit.new_tensor(largest), limit)
    )  # divided once
    is_finite = limit.isfinite()
    numbers = (parts * inverse.unsqueeze(-1)).round()
    numbers = torch.where(is_finite.unsqueeze(-1), numbers, 0.0)
    return numbers, torch.where(is_finite, steps, torch.nan)


def round_rows_to_bytes(
    x: torch.Tensor, weight: QuantizedWeight
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [T, K] as (codes less the code of zero [T, K] float32, steps [T, 1] float32).

    A code is nearest-even of x / step + shift, from -128 to 127. "row": step is the largest magnitude over
    127.5; "row_zp": it is the span of the row and zero over 255, and shift is nearest-even of
    -128 - least / step. A row that is not finite has the step NaN. Source: compressed-tensors' arithmetic.
    """
    rows = x.to(torch.float32)
    least, most = (
        rows.amin(-1, keepdim=True).clamp_(max=0),
        rows.amax(-1, keepdim=True).clamp_(min=0),
    )
    shift = torch.zeros_like(least)
    if weight.format.inputs == "fixed":
        step = torch.full_like(least, weight.step)
        shift += weight.shift
    elif weight.format.inputs == "row":
        step = torch.div(torch.maximum(-least, most), least.new_tensor(127.5))
    else:
        step = torch.div(most - least, least.new_tensor(255.0))
        shift = (-128.0 - torch.div(least, step)).nan_to_num_().clamp_(-128, 127).round_()
    is_good = rows.isfinite().all(-1, keepdim=True) & step.isfinite()
    is_there = is_good & (step >= SMALLEST)
    codes = (torch.div(rows, step) + shift).clamp_(-128, 127).round_() - shift
    step = torch.where(is_there, step, 0.0)
    return torch.where(is_there, codes, 0.0), torch.where(is_good, step, torch.nan)


def byte_product(x: torch.Tensor, weight: QuantizedWeight) -> torch.Tensor:
    """x [T, K] in 8 bits times an int8 weight [N, K]: [T, N] float32, sum * step * scale of exact sums."""
    codes, steps = round_rows_to_bytes(x, weight)
    sums = codes.to(torch.float64) @ weight.codes.to(torch.float64).T  # exact, below 2^53
    return sums.to(torch.float32) * steps * weight.scales[:, 0]


def integer_product(x: torch.Tensor, weight: QuantizedWeight) -> torch.Tensor:
    """x [T, K] times an int8 or int4 weight [N, K]: [T, N] float32, the same bits for any T.

    Groups of a part are added up in rising order, sum * scale, and parts likewise, with their steps; with one
    scale for all of a column it comes at the end. Where the weight has an order, rows are put into it first.
    """
    numbers, steps = round_rows(
        x if weight.order is None else x[:, weight.order.long()], weight.format
    )
    unit = weight.format.group or PART
    codes = _less_zero(weight, weight.codes.to(torch.float64))  # [N, K]
    total = torch.zeros(x.shape[0], codes.shape[0], dtype=torch.float32, device=x.device)
    flat = numbers.flatten(1).to(torch.float64)  # [T, parts * PART]
    for start in range(0, codes.shape[1], PART):
        part = torch.zeros_like(total)
        for begin in range(start, min(start + PART, codes.shape[1]), unit):
            piece = codes[:, begin : begin + unit]
            sums = flat[:, begin : begin + piece.shape[1]] @ piece.T  # exact, below 2^53
            term = sums.to(torch.float32)
            part += term * weight.scales[:, begin // unit] if weight.format.group else term
        total += part * steps[:, start // PART, None]
    return total if weight.format.group else total * weight.scales[:, 0]


def super_product(x: torch.Tensor, weight: QuantizedWeight) -> torch.Tensor:
    """x [T, K] times a weight [N, K] in super-blocks: [T, N] float32, the same bits for any T."""
    assert weight.inner is not None
    numbers, steps = round_rows(x, weight.format)
    flat = numbers.flatten(1).to(torch.float64)  # [T, parts * PART]
    total = torch.zeros(x.shape[0], len(weight.codes), dtype=torch.float32, device=x.device)
    for kind, columns in super_runs(weight.format, len(weight.codes)):
        total[:, columns] = _super_run(flat, steps, weight, SUPER_KINDS[kind], columns)
    return total


def _super_run(
    flat: torch.Tensor,
    steps: torch.Tensor,
    weight: QuantizedWeight,
    kind: SuperKind,
    columns: slice,
) -> torch.Tensor:
    """[T, columns] float32. Of each part what the minima take away, span by span: (sum of the row's numbers *
    step) * (floor * minimum); then units in rising order, their sum * step * factor.
    """
    inner, made = weight.inner, weight.codes[columns].to(torch.float64)
    assert inner is not None
    scaled = made.view(len(made), -1, 16) * inner.steps[columns].to(torch.float64).unsqueeze(-1)
    scaled = scaled.flatten(1)
    spread = kind.span // 16
    minima = inner.minima[columns, ::spread].to(torch.float32)
    floors = inner.floors[columns].repeat_interleave(256 // kind.span, dim=1)
    sums = flat.view(len(flat), -1, kind.span).sum(-1).to(torch.float32)
    total = torch.zeros(len(flat), len(made), dtype=torch.float32, device=flat.device)
    for part in range(made.shape[1] // PART):
        units = torch.zeros_like(total)
        for begin in range(part * PART, (part + 1) * PART, kind.unit):
            piece = slice(begin, begin + kind.unit)
            units += (flat[:, piece] @ scaled[:, piece].T).to(torch.float32)  # exact, below 2^31
        step = steps[:, part, None]
        spans = range(part * PART // kind.span, (part + 1) * PART // kind.span)
        for span in spans if kind.has_minima else ():
            total -= sums[:, span, None] * step * (floors[:, span] * minima[:, span])
        total += units * step * weight.scales[columns, part // 2]
    return total


def float_product(x: torch.Tensor, weight: QuantizedWeight, tile_rows: int) -> torch.Tensor:
    """x [T, K] times an fp8 weight [N, K] in float32: [T, N], in tiles of `tile_rows` padded rows."""
    total = torch.zeros(x.shape[0], weight.codes.shape[0], dtype=torch.float32, device=x.device)
    unit = weight.format.group or weight.codes.shape[1]
    for start in range(0, x.shape[0], tile_rows):
        rows = x[start : start + tile_rows].to(torch.float32)
        tile = rows.new_zeros(tile_rows, rows.shape[1])
        tile[: len(rows)] = rows
        for group in range(weight.scales.shape[1]):
            piece = slice(group * unit, (group + 1) * unit)
            product = torch.mm(tile[:, piece], weight.codes[:, piece].to(torch.float32).t())
            total[start : start + len(rows)] += product[: len(rows)] * weight.scales[:, group]
    return total


def _spread(values: torch.Tensor, weight: QuantizedWeight) -> torch.Tensor:
    """[N, groups] as [N, K], or [N, 1] where there is one group."""
    if not weight.format.group:
        return values
    return values.repeat_interleave(weight.format.group, dim=1)[:, : weight.codes.shape[1]]


def _less_zero(weight: QuantizedWeight, codes: torch.Tensor) -> torch.Tensor:
    """Codes [N, K] without their zero points."""
    if weight.zeros is not None:
        return codes - _spread(weight.zeros.to(codes.dtype), weight)
    return codes - 8.0 if weight.format.kind == "int4" else codes
