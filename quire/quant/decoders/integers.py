"""Integers in packed words as codes with scales: GPTQ, AWQ, compressed-tensors and plain bytes.

What a scheme calls the parts is in `quant.schemes`. A number is (code - zero) * scale in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from quire.ops.formats import Format
from quire.ops.quantized import QuantizedWeight
from quire.quant.stored import StoredTensor

Members = Mapping[str, torch.Tensor]
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # where column c of eight stands in its word


def gptq(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Words along the inputs [K * bits / 32, N]; zero points along the columns, less `add`."""
    bits, depth = stored.options["bits"], stored.shape[1]
    codes = stream(members["codes"].t(), bits)[:, :depth]
    zeros = stream(members["zeros"], bits)[:, : stored.shape[0]].t() + stored.options["add"]
    zeros &= (1 << bits) - 1  # what is less one may have gone below zero
    return assemble(codes, members["scales"].t(), zeros, members.get("order"), stored, dtype)


def awq(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Words along the columns [K, N / 8], eight columns in an order of their own; signed ones from -8."""
    order = range(8) if stored.options.get("in_order") else _AWQ_ORDER
    middle = 8 if stored.options.get("signed") else 0

    def unpacked(words: torch.Tensor) -> torch.Tensor:
        found = fields(words, 4).view(words.shape[0], -1, 8)
        return found[..., list(order)].flatten(1).t() ^ middle

    zeros = unpacked(members["zeros"]) if "zeros" in members else None
    return assemble(unpacked(members["codes"]), members["scales"].t(), zeros, None, stored, dtype)


def packed_rows(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Words along the inputs [N, K * bits / 32]; zero points along the columns [N * bits / 32, groups]."""
    bits, (rows, depth) = stored.options["bits"], stored.shape
    zeros = None
    if "zeros" in members:
        zeros = stream(members["zeros"].t(), bits)[:, :rows].t()
    codes = stream(members["codes"], bits)[:, :depth]
    scales = _columns(members["scales"], rows)
    return assemble(codes, scales, zeros, members.get("order"), stored, dtype)


def signed_bytes(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Codes [N, K] int8, and zero points as signed."""
    rows = stored.shape[0]
    codes = members["codes"].to(torch.int16)
    scales, middle = _columns(members["scales"], rows), 1 << 7
    zeros = torch.zeros(1, 1, dtype=torch.int16)
    if "zeros" in members:
        zeros = _columns(members["zeros"], rows).to(torch.int16)
    return assemble(codes + middle, scales, zeros + middle, None, stored, dtype)


def hqq(members: Members, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    """Lines of codes in words, the first share of the lines highest; scale and zero of each line or column."""
    bits, words = stored.options["bits"], members["codes"].to(torch.int32)
    shares = 10 if bits == 3 else 8 // bits
    ones = [words >> bits * (shares - 1 - share) & (1 << bits) - 1 for share in range(shares)]
    codes = torch.cat(ones)[: stored.options["lines"]].to(torch.float32)
    numbers = (codes - members["zeros"].to(torch.float32)) * members["scales"].to(torch.float32)
    return numbers.reshape(stored.shape)


def middled(members: Members, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    """torchao's int4: (code - 8) * scale + zero point, by groups. Codes stand two to a byte, or in tiles."""
    rows, depth = stored.shape
    if stored.options["form"] == "tiles":
        codes = _of_tiles(members["codes"])[:rows, :depth]
        groups = depth * len(members["pairs"]) // (members["codes"].shape[1] * 128)
        scales, zeros = members["pairs"][:groups, :rows].to(torch.float32).unbind(-1)
    else:
        packed = members["codes"].view(torch.uint8)
        codes = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1) ^ 8  # signed ones
        scales, zeros = (members[role].to(torch.float32) for role in ("scales", "zeros"))
    numbers = (codes.to(torch.float32) - 8.0).view(rows, scales.shape[0], -1)
    return (numbers * scales.t().unsqueeze(-1) + zeros.t().unsqueeze(-1)).view(rows, depth)


_TILE_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word the numbers of a lane stand: of two squares of 16 inputs, each with two halves of two neighbours."""


def _of_tiles(words: torch.Tensor) -> torch.Tensor:
    """[N / 8, K / 128, 32, 4] as [N, K]: a word holds numbers of 32 inputs that one of 32 lanes multiplies.

    Lane t has row t // 4 of eight, and of each 16 inputs 2 * (t % 4), the next one, and both eight further on.
    Source: PyTorch's layout of B in products m16n8k16 of tensor cores.
    """
    codes = fields(words.reshape(-1, 1), 4)[:, list(_TILE_ORDER)]
    shape = (*words.shape[:2], 8, 4, 4, 2, 2, 2)  # n, k, row, lane, word, square, half, one
    spread = codes.view(shape).permute(0, 2, 1, 4, 5, 6, 3, 7)
    return spread.reshape(8 * words.shape[0], 128 * words.shape[1])


def rows_of_127(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Codes [N, K] int8; 127 stands for the largest magnitude of its row."""
    scales = members["scales"].to(torch.float32).view(-1, 1) / 127.0
    zeros = torch.zeros(1, 1, dtype=torch.int16)
    return assemble(members["codes"].to(torch.int16), scales, zeros, None, stored, dtype)


def ternary_bytes(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Two bits a code less one [N / 4, K]: the lowest ones are of the first quarter of the rows. One scale."""
    packed = members["codes"].to(torch.int16)
    codes = torch.cat([(packed >> 2 * quarter & 3) - 1 for quarter in range(4)])
    if int(codes.max()) > 1:
        raise ValueError("two bits of its codes are 3, which stands for no weight")
    scale = members["scales"].to(torch.float32).reshape(1, 1)
    return _signed(
        codes, 1 / scale if stored.options["scale"] == "divides" else scale, stored, dtype
    )


def ternary(
    members: Members, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    """Floats [N, K] as nearest ones of -1, 0 and 1 times the mean of all magnitudes."""
    weight = members["weight"].to(torch.float32)
    mean = weight.abs().mean().clamp(min=1e-5).reshape(1, 1)
    codes = (weight * (1 / mean)).round().clamp(-1, 1).to(torch.int16)
    return _signed(codes, mean, stored, dtype)


def _signed(
    codes: torch.Tensor, scale: torch.Tensor, stored: StoredTensor, dtype: torch.dtype
) -> torch.Tensor | QuantizedWeight:
    zeros = torch.zeros(1, 1, dtype=torch.int16)
    return assemble(codes, scale.expand(len(codes), 1), zeros, None, stored, dtype)


def fields(words: torch.Tensor, bits: int) -> torch.Tensor:
    """[R, W] int32 as [R, W * n] int16: n = 32 // bits numbers of each word, the lowest first."""
    shifts = torch.arange(0, 32 // bits * bits, bits, dtype=torch.int32)
    found = words.to(torch.int32).unsqueeze(-1) >> shifts & (1 << bits) - 1
    return found.flatten(1).to(torch.int16)


def stream(words: torch.Tensor, bits: int) -> torch.Tensor:
    """[R, W] int32 as [R, W * 32 / bits] int16: numbers one after the other, also across words; a part is left."""
    if 32 % bits == 0:
        return fields(words, bits)
    ones = words.to(torch.int32).unsqueeze(-1) >> torch.arange(32, dtype=torch.int32) & 1
    whole = words.shape[1] * 32 // bits * bits
    values = ones.flatten(1)[:, :whole].reshape(len(words), -1, bits).to(torch.int16)
    return (values << torch.arange(bits, dtype=torch.int16)).sum(-1, dtype=torch.int16)


def assemble(
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    order: torch.Tensor | None,
    stored: StoredTensor,
    dtype: torch.dtype,
) -> torch.Tensor | QuantizedWeight:
    """codes [N, K], scales and zeros [N, groups], in the stored format, or as floats if they do not fit.

    zeros  None is the middle. order  [K]: the group of each input; None: neighbours.
    """
    depth, num_groups = codes.shape[1], scales.shape[1]
    scales, format = scales.to(torch.float32), stored.format
    if zeros is None:
        zeros = torch.full((1, 1), 1 << stored.options["bits"] - 1, dtype=torch.int16)
    zeros = zeros.to(torch.int16).expand(scales.shape)
    neighbours = torch.arange(depth) // -(-depth // num_groups)
    groups = neighbours if order is None else order.long()
    if int(groups.min()) < 0 or int(groups.max()) >= num_groups:
        raise ValueError(f"the order of inputs names a group beyond the {num_groups} there are")
    place = torch.argsort(groups, stable=True) if format.has_order else torch.arange(depth)
    if format.bits is not None and torch.equal(groups[place], neighbours):
        times = format.num_groups(depth) // num_groups
        sorted_codes = codes[:, place] if format.has_order else codes
        made = _kept(sorted_codes, zeros, scales, neighbours, times, format, dtype)
        if made is not None and format.has_order:
            return replace(made, order=place.to(torch.int32))
        if made is not None:
            return made
    return (codes - zeros[:, groups]).to(torch.float32) * scales[:, groups]


def _kept(
    codes: torch.Tensor,
    zeros: torch.Tensor,
    scales: torch.Tensor,
    groups: torch.Tensor,
    times: int,
    format: Format,
    dtype: torch.dtype,
) -> QuantizedWeight | None:
    """Codes and zeros from 0 up in a format with `times` as many groups; None if they do not fit.

    groups  [K] of the inputs, neighbours.
    """
    scales = scales.repeat_interleave(times, 1).contiguous()
    if format.has_zeros:
        kind, middle = (torch.uint8, 0) if format.kind == "int4" else (torch.int8, 128)
        most = 15 if format.kind == "int4" else 255
        if int(zeros.min()) < 0 or int(zeros.max()) > most:
            return None
        zeros = zeros.repeat_interleave(times, 1) - middle
        return QuantizedWeight(format, (codes - middle).to(kind), scales, dtype, zeros.to(kind))
    numbers = codes - zeros[:, groups]
    least, most = (-8, 7) if format.kind == "int4" else (-128, 127)
    if int(numbers.min()) < least or int(numbers.max()) > most:
        return None
    if format.kind == "int4":
        return QuantizedWeight(format, (numbers + 8).to(torch.uint8), scales, dtype)
    return QuantizedWeight(format, numbers.to(torch.int8), scales, dtype)


def _columns(values: torch.Tensor, rows: int) -> torch.Tensor:
    """One value, one for each row, or [N, groups], as [N, groups]."""
    if values.numel() == 1:
        return values.reshape(1, 1).expand(rows, 1)
    return values.reshape(rows, -1)
