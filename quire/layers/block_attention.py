"""Grouped-query attention over blocks of tokens that each head of keys picks by keys of their own.

Attention over all tokens is `layers.attention`; the choice itself is `ops.block_picks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from quire.layers.attention import AttentionLayer, AttentionSizes, head_steps
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.ops.block_picks import BLOCK_ATTENTION, PICK_BLOCKS
from quire.ops.registry import Bound, Table
from quire.quant.formats import Formats


@dataclass(frozen=True, kw_only=True)
class BlockSizes:
    """`num_heads` heads of queries [D] pick `count` blocks of `size` tokens each, the last `local` in any case."""

    num_heads: int
    head_size: int
    count: int
    size: int
    local: int
    eps: float


class BlockPicker:
    """The picks of every token, made anew from x [T, C].

    Its parameters: `<name>.qk` [H * D + D, C], and of norms of heads `<name>.q_norm` and `<name>.k_norm` [D].

    index  its number among the mixers of all layers. rope: table [max_len, rot] of `layers.rope`.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        blocks: BlockSizes,
        *,
        size: int,
        rope: torch.Tensor | None,
        interleaved: bool,
        dtype: torch.dtype,
        format: Formats,
        cache_format: str,
    ) -> None:
        self._index = index
        self._blocks = blocks
        heads = AttentionSizes(
            size=size,
            num_heads=blocks.num_heads,
            num_kv_heads=1,
            head_size=blocks.head_size,
            value_size=0,
            scale=1.0,
            window=None,
            softcap=0.0,
        )
        self._shape = (blocks.num_heads + 1, blocks.head_size)
        out_size = self._shape[0] * self._shape[1]
        self._product = Linear(
            table,
            f"{name}.qk",
            in_size=size,
            out_size=out_size,
            bias=False,
            dtype=dtype,
            format=format,
        )
        self._on_heads = head_steps(
            table,
            name,
            heads,
            dtype,
            rope=rope,
            growth=None,
            interleaved=interleaved,
            qk_norm="per_head",
            eps=blocks.eps,
            norm_after_rope=False,
        )
        self.pick = table.bind(
            PICK_BLOCKS,
            dtype_name(dtype),
            format=cache_format,
            H=blocks.num_heads,
            K=1,
            D=blocks.head_size,
        )

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        self._product.load(weights)
        for step in self._on_heads:
            step.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """Caches the keys of x [T, C]; picks [T, H, k] int32 from the arena."""
        blocks, num_tokens = self._blocks, x.shape[0]
        cache, plan = ctx.cached(self._index)
        shape = (num_tokens, blocks.num_heads, blocks.count)
        picks = ctx.arena.take(shape, torch.int32)
        heads = ctx.arena.take((num_tokens, *self._shape), x.dtype)
        self._product(x, out=heads.view(num_tokens, -1))
        for step in self._on_heads:
            step(heads, ctx.positions[0])
        query, key = heads[:, :-1], heads[:, -1:]
        self.pick.call("write", key, key[..., :0], cache, plan)
        self.pick(query, cache, plan, size=blocks.size, local=blocks.local, picks=picks)
        return picks


class BlockAttention(AttentionLayer):
    """AttentionLayer whose queries see the blocks that `<name>.indexer` picks."""

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: AttentionSizes,
        *,
        blocks: BlockSizes,
        rope: torch.Tensor | None,
        interleaved: bool,
        dtype: torch.dtype,
        format: Formats,
        cache_format: str,
        **rest: Any,
    ) -> None:
        beyond = (sizes.window, sizes.sinks, sizes.softcap, sizes.clip, sizes.biased, sizes.alibi)
        if any(beyond) or sizes.values != "own" or sizes.value_scale != 1.0:
            raise ValueError("attention over picked blocks is plain: no windows, sinks or bounds")
        same: dict[str, Any] = {"rope": rope, "interleaved": interleaved, "dtype": dtype}
        same |= {"format": format, "cache_format": cache_format}
        super().__init__(table, name, index, sizes, **same, **rest)
        self._size = blocks.size
        self._picker = BlockPicker(
            table, f"{name}.indexer", index + 1, blocks, size=sizes.size, **same
        )
        heads = {"H": sizes.num_heads, "K": sizes.num_kv_heads, "D": sizes.head_size}
        heads["S"] = blocks.size
        kind = dtype_name(dtype)
        self._attend = table.bind(BLOCK_ATTENTION, kind, format=cache_format, **heads)

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """For the worker, which makes the operation's plans and cache views."""
        return (self._attend, self._picker.pick)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        super().load(weights)
        self._picker.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Caches keys and values, then attends; writes [T, C] into `out`, which may be x."""
        sizes, count = self._sizes, x.shape[0]
        qkv = self._project(x, ctx)
        heads = qkv[:, : self._bounds[1]].view(count, -1, sizes.head_size)  # [T, H + K, D]
        for step in self._on_heads:
            step(heads, ctx.positions[0])
        v = qkv[:, self._bounds[1] :].view(count, sizes.num_kv_heads, sizes.value_size)
        cache, plan = ctx.cached(self.index)
        self._attend.call("write", heads[:, sizes.num_heads :], v, cache, plan, **self._to_write)
        picks = self._picker(x, ctx)
        mixed = ctx.arena.take((count, sizes.num_heads, sizes.value_size), x.dtype)
        query = heads[:, : sizes.num_heads]
        self._attend(query, picks, cache, plan, size=self._size, **self._to_run, out=mixed)
        return self._finish(x, mixed, ctx, out)
