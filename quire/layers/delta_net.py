"""The gated delta net of one layer: products, a convolution, `ops.delta_rule`, a gated norm.

States and the plan of a step come from the worker. Sources: arXiv 2412.06464, 2510.26692.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.arena import Arena
from quire.ops.delta_rule import DELTA_RULE, DeltaRule, Forgetting
from quire.ops.gating import RMS_NORM_GATED
from quire.ops.registry import Table
from quire.ops.scan import CAUSAL_CONV
from quire.quant.formats import PLAIN, Formats


@dataclass(frozen=True, kw_only=True)
class DeltaNetSizes:
    """The numbers of one layer: Hk heads of keys [Dk], H of values [Dv], both of the model's width `size`.

    kernel    tokens that the convolution sees.
    rank      numbers between the two products of decays by channel, and of gates; 0: a decay a head.
    strength  the most that a token's strength can be; gate, eps: of the norm behind.
    in_turns  a head of keys serves every Hk-th head, where else it serves neighbours.
    decays    of a token: H, or H * Dk for one of each channel of a key. bound: as in `ops.delta_rule`.
    """

    size: int
    key_heads: int
    heads: int
    key_size: int
    value_size: int
    kernel: int
    rank: int
    strength: float
    gate: str
    eps: float
    decays: int
    in_turns: bool = False
    bound: float = 0.0

    @property
    def rule(self) -> DeltaRule:
        return DeltaRule(
            self.key_heads,
            self.heads,
            self.key_size,
            self.value_size,
            scale=self.key_size**-0.5,
            strength=self.strength,
            in_turns=self.in_turns,
            bound=self.bound,
        )

    @property
    def values(self) -> int:
        """Numbers of a token's values."""
        return self.heads * self.value_size


class DeltaNetLayer:
    """x [T, C] to [T, C] for mixer `index`.

    Its parameters: `<name>.in` of queries, keys and values, and of gates unless they come through a rank;
    `<name>.steps` of strengths and decays, or of those and the first numbers of decays and gates, which
    `<name>.decay_up` and `<name>.gate_up` widen; `<name>.back`; and in float32 `<name>.conv.weight`
    [channels, kernel], `<name>.rate` [H], `<name>.decay_bias` [H] or [H * Dk], `<name>.norm.weight` [Dv].
    """

    attends = (None,)

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: DeltaNetSizes,
        *,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.index = index
        self._name = name
        self._sizes = sizes
        self._rule = sizes.rule
        linear = partial(Linear, table, bias=False, dtype=dtype, format=format)
        self._gates = (
            LowRankGates(linear, name, sizes) if sizes.rank else PlainGates(linear, name, sizes)
        )
        channels, at = self._rule.width, dtype_name(dtype)
        self._in = linear(
            f"{name}.in", in_size=sizes.size, out_size=channels + self._gates.num_beside
        )
        self._convolve = table.bind(CAUSAL_CONV, at, C=channels, W=sizes.kernel)
        self._apply = table.bind(
            DELTA_RULE, at, H=sizes.heads, Dk=sizes.key_size, Dv=sizes.value_size
        )
        self._norm = table.bind(RMS_NORM_GATED, at, C=sizes.value_size)
        self._back = linear(f"{name}.back", in_size=sizes.values, out_size=sizes.size)
        self._taps = self._norm_weight = torch.empty(0)
        self._forgetting = Forgetting(torch.empty(0), None)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        sizes, name = self._sizes, self._name
        self._in.load(weights)
        self._gates.load(weights)
        self._taps = weights(f"{name}.conv.weight").t().contiguous()  # [kernel, channels]
        bias = weights(f"{name}.decay_bias")
        shape = (sizes.heads, -1) if sizes.decays > sizes.heads else (sizes.heads,)
        self._forgetting = Forgetting(weights(f"{name}.rate"), bias.view(shape))
        self._norm_weight = weights(f"{name}.norm.weight")
        self._back.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        sizes, channels, count = self._sizes, self._rule.width, x.shape[0]
        (window, matrices), plan = ctx.cached(self.index)
        wide = ctx.arena.take((count, channels + self._gates.num_beside), x.dtype)
        self._in(x, out=wide)
        qkv = ctx.arena.take((count, channels), x.dtype)
        self._convolve(wide[:, :channels], self._taps, None, window, plan, act="silu", out=qkv)
        strengths, decays, gates = self._gates(x, wide[:, channels:], ctx.arena)
        heads = ctx.arena.take((count, sizes.heads, sizes.value_size), x.dtype)
        self._apply(qkv, decays, strengths, self._rule, self._forgetting, matrices, plan, out=heads)
        self._norm(
            heads,
            gates.view(count, sizes.heads, sizes.value_size),
            self._norm_weight,
            eps=sizes.eps,
            act=sizes.gate,
            out=heads,
        )
        return self._back(heads.view(count, sizes.values), out=out)


Steps = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Strengths [T, H], decays [T, H] or [T, H * Dk], gates [T, H * Dv]."""


class PlainGates:
    """Strengths and decays by one product; gates come with the queries.

    num_beside  numbers of gates that the first product of the layer makes.
    """

    def __init__(self, linear: Callable[..., Linear], name: str, sizes: DeltaNetSizes) -> None:
        self.num_beside = sizes.values
        self._heads, self._width = sizes.heads, sizes.heads + sizes.decays
        self._steps = linear(f"{name}.steps", in_size=sizes.size, out_size=self._width)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._steps.load(weights)

    def __call__(self, x: torch.Tensor, beside: torch.Tensor, arena: Arena) -> Steps:
        """Of x [T, C] and the gates beside what it became."""
        made = self._steps(x, out=arena.take((x.shape[0], self._width), x.dtype))
        return made[:, : self._heads], made[:, self._heads :], beside


class LowRankGates:
    """Strengths by one product, decays of each channel and gates by two, of which the first are one."""

    num_beside = 0

    def __init__(self, linear: Callable[..., Linear], name: str, sizes: DeltaNetSizes) -> None:
        self._sizes = sizes
        heads, rank = sizes.heads, sizes.rank
        self._steps = linear(f"{name}.steps", in_size=sizes.size, out_size=heads + 2 * rank)
        self._decays = linear(f"{name}.decay_up", in_size=rank, out_size=sizes.decays)
        self._gates = linear(f"{name}.gate_up", in_size=rank, out_size=sizes.values)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (self._steps, self._decays, self._gates):
            part.load(weights)

    def __call__(self, x: torch.Tensor, beside: torch.Tensor, arena: Arena) -> Steps:
        """Of x [T, C]; nothing is beside."""
        sizes, count = self._sizes, x.shape[0]
        end = sizes.heads + sizes.rank
        made = self._steps(x, out=arena.take((count, end + sizes.rank), x.dtype))
        decays = arena.take((count, sizes.decays), x.dtype)
        gates = arena.take((count, sizes.values), x.dtype)
        self._decays(made[:, sizes.heads : end], out=decays)
        self._gates(made[:, end:], out=gates)
        return made[:, : sizes.heads], decays, gates
