"""Grouped-query attention of one layer: projections, norms of heads, positions, the paged cache.

Tables of positions come from `layers.rope`; plans and cache views from the worker.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import LayerNorm, Norm, RmsNorm
from quire.ops.attention import PAGED_ATTENTION
from quire.ops.registry import Table
from quire.ops.rope import ROPE

HeadStep = Callable[[torch.Tensor, torch.Tensor], object]
"""Something done in place to heads [T, H, D] at positions [T] before attention."""


@dataclass(frozen=True, kw_only=True)
class AttentionSizes:
    """The numbers of one attention layer; window counts the query itself, softcap 0 is off."""

    size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    scale: float
    window: int | None
    softcap: float


class AttentionLayer:
    """x [T, C] to [T, C] for decoder layer `index`.

    Its parameters: `<name>.qkv`, `<name>.out`, and with norms `<name>.q_norm`, `<name>.k_norm`.

    rope     table [max_len, rot] of `layers.rope`, or None for a layer without positions.
    qk_norm  norms of q and k, as in `models.spec.Attention`, with eps `qk_eps`.
    attend   the bound operation, public because the worker makes its plans and cache views.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        rope: torch.Tensor | None,
        interleaved: bool,
        qk_norm: str,
        qk_eps: float,
        qkv_bias: bool,
        out_bias: bool,
        dtype: torch.dtype,
    ) -> None:
        self.index = index
        self._sizes = sizes
        q_size = sizes.num_heads * sizes.head_size
        kv_size = sizes.num_kv_heads * sizes.head_size
        self._bounds = (q_size, q_size + kv_size, q_size + 2 * kv_size)
        self._qkv = Linear(
            table,
            f"{name}.qkv",
            in_size=sizes.size,
            out_size=self._bounds[2],
            bias=qkv_bias,
            dtype=dtype,
        )
        self._norms: list[Norm] = []
        self._on_q: list[HeadStep] = []
        self._on_k: list[HeadStep] = []
        if qk_norm != "none":
            self._add_norms(table, name, qk_norm, qk_eps, dtype)
        if rope is not None:
            self._add_rope(table, rope, interleaved, dtype)
        self.attend = table.bind(
            PAGED_ATTENTION,
            dtype_name(dtype),
            H=sizes.num_heads,
            K=sizes.num_kv_heads,
            D=sizes.head_size,
        )
        self._out = Linear(
            table, f"{name}.out", in_size=q_size, out_size=sizes.size, bias=out_bias, dtype=dtype
        )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._qkv.load(weights)
        for norm in self._norms:
            norm.load(weights)
        self._out.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Caches keys and values, then attends; writes [T, C] into `out`, which may be x."""
        sizes, num_tokens, positions = self._sizes, x.shape[0], ctx.positions[0]
        q_end, k_end, v_end = self._bounds
        qkv = self._qkv(x, out=ctx.arena.take((num_tokens, v_end), x.dtype))
        q = qkv[:, :q_end].view(num_tokens, sizes.num_heads, sizes.head_size)  # [T, H, D]
        k = qkv[:, q_end:k_end].view(num_tokens, sizes.num_kv_heads, sizes.head_size)  # [T, K, D]
        v = qkv[:, k_end:].view(num_tokens, sizes.num_kv_heads, sizes.head_size)
        for step in self._on_q:
            step(q, positions)
        for step in self._on_k:
            step(k, positions)
        cache, plan = ctx.caches[self.index], ctx.plans[ctx.group_of[self.index]]  # type: ignore[index]
        self.attend.call("write", k, v, cache, plan)
        mixed = ctx.arena.take((num_tokens, sizes.num_heads, sizes.head_size), x.dtype)
        self.attend(
            q,
            cache,
            plan,
            scale=sizes.scale,
            window=sizes.window,
            softcap=sizes.softcap,
            sinks=None,
            out=mixed,
        )
        return self._out(mixed.view(num_tokens, q_end), out=out)

    def _add_norms(
        self, table: Table, name: str, kind: str, eps: float, dtype: torch.dtype
    ) -> None:
        make, over = QK_NORMS[kind]
        sizes = self._sizes
        for which, heads, steps in (
            ("q_norm", sizes.num_heads, self._on_q),
            ("k_norm", sizes.num_kv_heads, self._on_k),
        ):
            size = sizes.head_size * (heads if over is _norm_all_heads else 1)
            norm = make(table, f"{name}.{which}", size=size, eps=eps, dtype=dtype)
            self._norms.append(norm)
            steps.append(partial(over, norm))

    def _add_rope(
        self, table: Table, rope: torch.Tensor, interleaved: bool, dtype: torch.dtype
    ) -> None:
        turn = table.bind(ROPE, dtype_name(dtype), D=self._sizes.head_size, rot=rope.shape[1])
        for steps in (self._on_q, self._on_k):
            steps.append(partial(turn, table=rope, interleaved=interleaved))


def _norm_heads(norm: Norm, heads: torch.Tensor, positions: torch.Tensor) -> None:
    norm(heads, out=heads)


def _norm_all_heads(norm: Norm, heads: torch.Tensor, positions: torch.Tensor) -> None:
    joined = heads.view(heads.shape[0], -1)  # [T, H * D], the same memory
    norm(joined, out=joined)


QK_NORMS: dict[str, tuple[Callable[..., Norm], Callable[..., None]]] = {
    "per_head": (RmsNorm, _norm_heads),
    "full": (RmsNorm, _norm_all_heads),
    "layer_per_head": (partial(LayerNorm, bias=False), _norm_heads),
}
"""The class for each norm of q and k that a description can name, and what it sees."""
