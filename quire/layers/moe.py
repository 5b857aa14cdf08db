"""The feed-forward part made of experts: a router, the routed experts, and those that all tokens pass.

Dense parts are `layers.mlp`; how experts are chosen and multiplied is `ops.moe`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear, keep_packed, packed_before, read_to_pack, stored_as
from quire.layers.mlp import GatedMlp
from quire.layers.norm import RmsNorm
from quire.layers.shared_part import SharedPart
from quire.ops.arena import Arena
from quire.ops.elementwise import ADD, ADD_ROW, TO_FLOAT32
from quire.ops.moe import (
    EXPERTS,
    ROUTE,
    ROUTE_SPARSE,
    WEIGH_CHOSEN,
    ExpertSizes,
    RouteRule,
)
from quire.ops.registry import Bound, Table
from quire.ops.route_root import ROUTE_ROOT
from quire.quant.formats import PLAIN, Formats

_ROUTES = {"sparse": ROUTE_SPARSE, "softplus_root": ROUTE_ROOT}
"""The operations of ways to choose that have one of their own."""


class Router:
    """x [T, C] of `dtype` to the ids [T, k] and weights [T, k] of each token's experts.

    router_dtype  of its weight and logits: that of x, or float32.
    factors  the weights of each expert have a factor `<name>.factors` [E].
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        size: int,
        num_experts: int,
        rule: RouteRule,
        bias: bool,
        choice_bias: bool,
        factors: bool = False,
        dtype: torch.dtype,
        router_dtype: torch.dtype,
    ) -> None:
        self._name = name
        self._factors: torch.Tensor | None = None
        self._weigh: Bound | None = None
        if factors:
            self._weigh = table.bind(WEIGH_CHOSEN, "float32", E=num_experts, K=rule.top_k)
        self._num_experts = num_experts
        self._rule = rule
        self._has_choice_bias = choice_bias
        self._choice_bias: torch.Tensor | None = None
        self._dtype = router_dtype
        self._widen: Bound | None = None
        if router_dtype is not dtype:
            self._widen = table.bind(TO_FLOAT32, dtype_name(dtype), C=size)
        self._product = Linear(
            table,
            f"{name}.router",
            in_size=size,
            out_size=num_experts,
            bias=bias,
            dtype=router_dtype,
        )
        self._route = table.bind(
            _ROUTES.get(rule.scoring, ROUTE), dtype_name(router_dtype), E=num_experts, K=rule.top_k
        )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._product.load(weights)
        if self._has_choice_bias:
            self._choice_bias = weights(f"{self._name}.choice.bias")
        if self._weigh is not None:
            self._factors = weights(f"{self._name}.factors")

    def __call__(self, x: torch.Tensor, arena: Arena) -> tuple[torch.Tensor, torch.Tensor]:
        """ids [T, k] int32 and weights [T, k] float32, from the arena."""
        num_tokens = x.shape[0]
        if self._widen is not None:
            x = self._widen(x, out=arena.take(tuple(x.shape), self._dtype))
        logits = self._product(x, out=arena.take((num_tokens, self._num_experts), self._dtype))
        ids = arena.take((num_tokens, self._rule.top_k), torch.int32)
        weights = arena.take((num_tokens, self._rule.top_k), torch.float32)
        self._route(logits, self._rule, bias=self._choice_bias, ids=ids, weights=weights)
        if self._weigh is not None:
            self._weigh(weights, ids, self._factors)
        return ids, weights


class Experts:
    """The routed experts: the weighted sum of what a token's own ones make of it."""

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: ExpertSizes,
        *,
        bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self._name = name
        self._sizes = sizes
        self._bias = bias
        self._format = format.of(f"{name}.experts")
        self._dtype = dtype
        self._run = table.bind(
            EXPERTS,
            dtype_name(dtype),
            format=self._format.name,
            E=sizes.num_experts,
            C=sizes.size,
            F=sizes.width,
        )
        self._packed: object = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs the experts one after the other."""
        provider = self._run.provider
        name, first = f"{self._name}.experts", "gate_up" if self._sizes.gated else "up"

        def room(**how: object) -> object:
            return provider.room(
                self._sizes, dtype=self._dtype, format=self._format.name, bias=self._bias, **how
            )

        packed = None
        if not self._bias:
            packed = packed_before(weights, name, self._run, lambda take: room(take=take))
        if packed is None:
            packed = room()
            for number in range(self._sizes.num_experts):
                wide, wide_bias = self._read(weights, f"{number}.{first}")
                # What was borrowed is good until the next is asked for.
                wide = wide.clone() if isinstance(wide, torch.Tensor) else wide
                down, down_bias = self._read(weights, f"{number}.down")
                provider.put(packed, number, wide, down, wide_bias, down_bias)
            if not self._bias:
                keep_packed(weights, name, self._run, packed)
        self._packed = packed

    def _read(
        self, weights: Callable[[str], torch.Tensor], part: str
    ) -> tuple[object, torch.Tensor | None]:
        """One product's weight in its format, and its bias."""
        name = f"{self._name}.experts.{part}"
        weight = read_to_pack(weights, f"{name}.weight", self._run)
        stored = stored_as(weight, self._format)
        return stored, weights(f"{name}.bias") if self._bias else None

    def __call__(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        arena: Arena,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        self._run(x, ids, weights, self._packed, out=out)
        return out


class LatentExperts:
    """Routed experts on a latent of x: up(experts(down(x))), the parameters `<name>.latent_down` and `latent_up`."""

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: ExpertSizes,
        *,
        outer_size: int,
        bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self._size = sizes.size
        self._inner = Experts(table, name, sizes, bias=bias, dtype=dtype, format=format)
        linear = partial(Linear, table, bias=False, dtype=dtype, format=format)
        self._down = linear(f"{name}.latent_down", in_size=outer_size, out_size=sizes.size)
        self._up = linear(f"{name}.latent_up", in_size=sizes.size, out_size=outer_size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (self._down, self._inner, self._up):
            part.load(weights)

    def __call__(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        arena: Arena,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        narrow = self._down(x, out=arena.take((x.shape[0], self._size), x.dtype))
        return self._up(self._inner(narrow, ids, weights, arena, out=narrow), out=out)


class MoeMlp:
    """Routed experts, and a part of `shared_width`, gated if they are, that all tokens pass if that is not 0.

    size         of x; routed experts of another size stand between two products.
    shared_gate  what the shared part makes is weighed by the sigmoid of a product of its own.
    sum_bias     `<name>.bias` [C] is added to what the routed experts make together.
    shared_limits  `limit` and `gate_limit` of that part, where they differ from those of `sizes`.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: ExpertSizes,
        rule: RouteRule,
        *,
        size: int,
        bias: bool,
        sum_bias: bool = False,
        router_bias: bool,
        router_dtype: torch.dtype,
        choice_bias: bool,
        shared_width: int,
        shared_gate: bool,
        shared_limits: tuple[float, float] | None = None,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self._router = Router(
            table,
            name,
            size=size,
            num_experts=sizes.num_experts,
            rule=rule,
            bias=router_bias,
            choice_bias=choice_bias,
            dtype=dtype,
            router_dtype=router_dtype,
        )
        experts = Experts if sizes.size == size else partial(LatentExperts, outer_size=size)
        self._experts = experts(table, name, sizes, bias=bias, dtype=dtype, format=format)
        self._name = name
        self._add_row = table.bind(ADD_ROW, dtype_name(dtype), C=size) if sum_bias else None
        self._bias: torch.Tensor | None = None
        self._shared: SharedPart | None = None
        if shared_width:
            limit, gate_limit = shared_limits or (sizes.limit, sizes.gate_limit)
            self._shared = SharedPart(
                table,
                name,
                replace(sizes, limit=limit, gate_limit=gate_limit),
                size=size,
                width=shared_width,
                has_gate=shared_gate,
                dtype=dtype,
                format=format,
            )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._router.load(weights)
        self._experts.load(weights)
        if self._add_row is not None:
            self._bias = weights(f"{self._name}.bias")
        if self._shared is not None:
            self._shared.load(weights)

    def __call__(self, x: torch.Tensor, arena: Arena, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which may be x."""
        ids, weights = self._router(x, arena)
        made = out if self._shared is None else arena.take(tuple(x.shape), x.dtype)
        self._experts(x, ids, weights, arena, out=made)
        if self._add_row is not None:
            self._add_row(made, self._bias, out=made)
        return made if self._shared is None else self._shared(x, made, arena, out=out)


class NormedParts:
    """Routed experts and a gated part side by side, each with norms of its own on both sides.

    Reads the residual stream x [T, C] itself: norm(mlp(norm(x))) + norm(experts(norm(x))). The norms are
    `<name>.norm_before_experts`, `norm_after_experts`, `norm_before_shared`, `norm_after_shared`, and of what the
    router sees `router_norm`.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        sizes: ExpertSizes,
        rule: RouteRule,
        *,
        shared_width: int,
        eps: float,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        size, norm = sizes.size, partial(RmsNorm, table, size=sizes.size, eps=eps, dtype=dtype)
        self._router_norm = norm(f"{name}.router_norm")
        self._router = Router(
            table,
            name,
            size=size,
            num_experts=sizes.num_experts,
            rule=rule,
            bias=False,
            choice_bias=False,
            factors=True,
            dtype=dtype,
            router_dtype=dtype,
        )
        self._experts = Experts(table, name, sizes, bias=False, dtype=dtype, format=format)
        self._shared = GatedMlp(
            table,
            f"{name}.shared",
            size=size,
            width=shared_width,
            act=sizes.act,
            bias=False,
            dtype=dtype,
            format=format,
        )
        self._of_experts, self._of_shared = (
            [norm(f"{name}.norm_{side}_{part}") for side in ("before", "after")]
            for part in ("experts", "shared")
        )
        self._add = table.bind(ADD, dtype_name(dtype), C=size)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._router_norm.load(weights)
        for norm in (*self._of_experts, *self._of_shared):
            norm.load(weights)
        for part in (self._router, self._experts, self._shared):
            part.load(weights)

    def __call__(self, x: torch.Tensor, arena: Arena, *, out: torch.Tensor) -> torch.Tensor:
        """Writes [T, C] into `out`, which must not be x."""
        shape = tuple(x.shape)
        normed, made = arena.take(shape, x.dtype), arena.take(shape, x.dtype)
        ids, weights = self._router(self._router_norm(x, out=normed), arena)
        before, after = self._of_experts
        self._experts(before(x, out=normed), ids, weights, arena, out=made)
        after(made, out=made)
        before, after = self._of_shared
        self._shared(before(x, out=normed), arena, out=out)
        self._add(after(out, out=out), made, out=out)
        return out
