"""Tables of cosines and sines for rotary positions, computed once when a model is built.

Turning q and k by them is `ops.rope`. All arithmetic is in float32 in the order that Transformers
uses, so that the angles are the ones a checkpoint was trained with. Source: arXiv 2104.09864.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch

from quire.layers.distances import alibi_slopes


def frequencies(dim: int, theta: float) -> torch.Tensor:
    """theta ** (-2i / dim) for i below dim / 2; [dim / 2] float32, radians a token."""
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).to(torch.float32) / dim
    return 1.0 / (theta**exponents)


def first_frequencies(plain: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` of frequencies [dim / 2]; the other pairs do not turn."""
    return torch.cat((plain[:count], torch.zeros_like(plain[count:])))


def dynamic_theta(
    dim: int, theta: float, *, factor: float, original_len: int, max_model_len: int
) -> float:
    """The larger base of dynamic NTK scaling for sequences up to `max_model_len` tokens.

    It is `theta` itself when `max_model_len` does not pass `original_len`.
    """
    length = max(max_model_len, original_len)
    growth = factor * length / original_len - (factor - 1.0)
    return theta * float(growth ** (dim / (dim - 2)))


def llama3_frequencies(
    plain: torch.Tensor,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_len: int,
) -> torch.Tensor:
    """Llama 3.1's scaling of frequencies [dim / 2].

    Wavelengths above original_len / low_freq_factor are divided by `factor`, those below
    original_len / high_freq_factor kept, those between interpolated.
    """
    wavelengths = 2 * math.pi / plain
    scaled = torch.where(wavelengths > original_len / low_freq_factor, plain / factor, plain)
    keep = (original_len / wavelengths - low_freq_factor) / (high_freq_factor - low_freq_factor)
    blended = (1 - keep) * scaled / factor + keep * scaled
    above = wavelengths >= original_len / high_freq_factor
    below = wavelengths <= original_len / low_freq_factor
    return torch.where(above & below, blended, scaled)


def yarn_frequencies(
    dim: int,
    theta: float,
    *,
    factor: float,
    original_len: int,
    beta_fast: float,
    beta_slow: float,
    truncate: bool,
) -> torch.Tensor:
    """YaRN's blend of frequencies, [dim / 2] float32.

    Dimensions that turn more than beta_fast times within original_len are kept, those that turn
    less than beta_slow times are divided by `factor`, with a linear ramp between.
    Source: arXiv 2309.00071.
    """

    def dimension(turns: float) -> float:
        return dim * math.log(original_len / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(beta_fast), dimension(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 if low == high else 0.0
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    keep = 1 - ramp
    wavelengths = theta ** (torch.arange(0, dim, 2).to(torch.float32) / dim)
    return 1.0 / (factor * wavelengths) * (1 - keep) + 1.0 / wavelengths * keep


def longrope_frequencies(dim: int, theta: float, factors: Sequence[float]) -> torch.Tensor:
    """Frequencies [dim / 2] whose wavelengths are multiplied by `factors` [dim / 2].

    Source: arXiv 2402.13753.
    """
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).to(torch.float32) / dim
    return 1.0 / (torch.tensor(factors, dtype=torch.float32) * theta**exponents)


def growth_table(
    size: int,
    *,
    scale: float,
    interval: int,
    shift: int,
    max_len: int,
    device: torch.device,
    power: bool = False,
) -> torch.Tensor:
    """[max_len, size] float32 that multiplies all `size` numbers of a head by a factor of the position p,

    1 + scale * log(1 + floor((p + shift) / interval)): a turn by no angle with that length. With `power`
    (1 + (p + shift) / interval)^scale.
    Source: arXiv 2501.19399.
    """
    positions = torch.arange(max_len, dtype=torch.float32)
    spans = (positions + shift) / interval
    factors = torch.log1p(torch.floor(spans)) * scale + 1.0
    if power:
        factors = torch.exp(torch.log1p(spans) * scale)
    table = torch.zeros(max_len, size, dtype=torch.float32)
    table[:, : size // 2] = factors[:, None]
    return table.to(device)


def angle_table(
    inv_freq: torch.Tensor, *, max_len: int, attention_factor: float, device: torch.device
) -> torch.Tensor:
    """[max_len, 2 * len(inv_freq)] float32: cosines, then sines, times `attention_factor`."""
    positions = torch.arange(max_len, dtype=torch.float32)
    angles = positions[:, None] * inv_freq[None, :]
    table = torch.cat((angles.cos() * attention_factor, angles.sin() * attention_factor), dim=1)
    return table.to(device).contiguous()


def back(table: torch.Tensor) -> torch.Tensor:
    """The table [max_len, dim] that turns back what this one turned."""
    cosines, sines = table.chunk(2, dim=1)
    return torch.cat((cosines, -sines), dim=1)


def waves(rows: int, size: int, first: int) -> torch.Tensor:
    """[rows, size] float32: sines, then cosines, of positions from `first` on times falling rates.

    Rate i of size / 2 is 10,000^(-i / (size / 2 - 1)), all in float32 as models were trained with it.
    Source: the code of tensor2tensor, whose rates differ from those of arXiv 1706.03762.
    """
    half = size // 2
    rates = torch.exp(torch.arange(half).float() * -(math.log(10_000.0) / (half - 1)))
    angles = torch.arange(first, first + rows).float()[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)


@cache
def root_slopes(num_heads: int, farthest: int) -> torch.Tensor:
    """[H, 2 M + 1] float32 for the distances -M to M = farthest: minus the slope times the root of the distance."""
    distances = torch.arange(-farthest, farthest + 1, dtype=torch.float32).abs()
    return -alibi_slopes(num_heads)[:, None] * distances.sqrt()
