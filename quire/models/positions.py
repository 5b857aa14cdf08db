"""How attention knows positions, as frozen data: rotary positions with their scalings, queries that grow.

Part of a description, `models.spec`; tables of them are made in `layers.rope`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Positions divided by `factor`."""

    factor: float


@dataclass(frozen=True, kw_only=True)
class DynamicScaling:
    """A larger base if `max_model_len` passes `original_len`; both in tokens."""

    factor: float
    original_len: int


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Long wavelengths divided by `factor`, short ones kept, a ramp between; lengths in tokens."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_len: int


@dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """A ramp from kept to scaled frequencies; cosines and sines times `attention_factor`.

    Source: arXiv 2309.00071.
    """

    factor: float
    original_len: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True, kw_only=True)
class LongRopeScaling:
    """Each wavelength times a factor of its own; cosines and sines times `attention_factor`.

    short_factor, long_factor  one number for each pair; the long ones are taken for every position
                               if `max_model_len` passes `original_len` tokens.
    Source: arXiv 2402.13753.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_len: int
    attention_factor: float


@dataclass(frozen=True, kw_only=True)
class ProportionalScaling:
    """Frequencies divided by `factor`, and only the first `turning` pairs of a head turn."""

    turning: int
    factor: float = 1.0


RopeScaling = (
    LinearScaling
    | DynamicScaling
    | Llama3Scaling
    | YarnScaling
    | LongRopeScaling
    | ProportionalScaling
)


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions: the first `dim` numbers of a head turn, halves paired (or neighbours,
    interleaved)."""

    dim: int
    theta: float = 10_000.0
    scaling: RopeScaling | None = None
    interleaved: bool = False


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Queries grow with their position p: times 1 + scale * log(1 + floor((p + shift) / interval)).

    interval, shift  in tokens.
    power            times (1 + (p + shift) / interval)^scale instead. Source: arXiv 2501.19399.
    """

    scale: float
    interval: int
    shift: int = 0
    power: bool = False


@dataclass(frozen=True, kw_only=True)
class Distances:
    """A learned score of each head for each bucket of distances from query to key, up to `farthest`.

    Half of them are of one distance; if `both_ways`, keys behind have half of all. Source: arXiv 1910.10683."""

    buckets: int
    farthest: int
    both_ways: bool
