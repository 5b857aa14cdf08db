"""A block of attention and feed-forward part that several layers share, and the mixer that reads what it makes.

Attention with weights of its layer's own is `layers.attention`. Source: arXiv 2411.15242.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch

from quire.layers.attention import AttentionSizes, HeadStep, head_steps
from quire.layers.cache_scales import CacheScales, with_scales
from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import RmsNorm
from quire.ops.attention import PAGED_ATTENTION
from quire.ops.elementwise import ACT_MUL, ADD, SCALE
from quire.ops.registry import Bound, Table
from quire.quant.formats import PLAIN, Formats

Weights = Callable[[str], torch.Tensor]


class _Mixer(Protocol):
    @property
    def attends(self) -> tuple[Bound | None, ...]: ...

    def load(self, weights: Weights) -> None: ...

    def __call__(
        self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor
    ) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True)
class BlockParts:
    """What a block and its uses are made with.

    sizes  of its attention, whose `size` is that of the residual stream; the block reads twice as much.
    ranks  of each layer's own products: beside queries, keys and values, or 0, and beside gate and up.
    """

    table: Table
    sizes: AttentionSizes
    width: int
    act: str
    bias: bool
    ranks: tuple[int, int]
    eps: float
    dtype: torch.dtype
    format: Formats = PLAIN
    cache_format: str = "plain"

    def linear(self, name: str, in_size: int, out_size: int, bias: bool = False) -> Linear:
        """A product."""
        return Linear(
            self.table,
            name,
            in_size=in_size,
            out_size=out_size,
            bias=bias,
            dtype=self.dtype,
            format=self.format,
        )

    def bind(self, op: Any, **dims: Any) -> Callable[..., Any]:
        """An operation in the model's dtype."""
        return self.table.bind(op, dtype_name(self.dtype), **dims)

    def norm(self, name: str, size: int) -> RmsNorm:
        """A norm."""
        return RmsNorm(self.table, name, size=size, eps=self.eps, dtype=self.dtype)


class SharedBlock:
    """The weights that several layers share: `<name>.norm_before_mixer` [2C], `qkv`, `out`,
    `norm_before_feed_forward` [C], `gate_up`, `down`; with biases the last two have some."""

    def __init__(self, name: str, parts: BlockParts) -> None:
        size, (_, _, end) = parts.sizes.size, parts.sizes.bounds
        self.before_mixer = parts.norm(f"{name}.norm_before_mixer", 2 * size)
        self.qkv = parts.linear(f"{name}.qkv", 2 * size, end)
        self.out = parts.linear(f"{name}.out", parts.sizes.num_heads * parts.sizes.head_size, size)
        self.before_feed_forward = parts.norm(f"{name}.norm_before_feed_forward", size)
        self.gate_up = parts.linear(f"{name}.gate_up", size, 2 * parts.width, parts.bias)
        self.down = parts.linear(f"{name}.down", parts.width, size, parts.bias)

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        for part in (self.before_mixer, self.qkv, self.out, self.before_feed_forward):
            part.load(weights)
        for product in (self.gate_up, self.down):
            product.load(weights)


class OwnProducts:
    """y += up_i(down_i(x)) for each stretch i of y, for one layer beside a shared product.

    Its parameters: `<name>.down` [rank of all stretches, K], and for each of `ups` `<name>.<up>`.
    """

    def __init__(
        self,
        name: str,
        parts: BlockParts,
        in_size: int,
        rank: int,
        ups: Sequence[tuple[str, int]],
    ) -> None:
        self._narrow = rank * len(ups)
        self._down = parts.linear(f"{name}.down", in_size, self._narrow)
        self._ups = [parts.linear(f"{name}.{up}", rank, size) for up, size in ups]
        self._adds = [parts.bind(ADD, C=size) for _, size in ups]
        self._ranks = [slice(rank * place, rank * (place + 1)) for place in range(len(ups))]
        ends = accumulate((size for _, size in ups), initial=0)
        self._stretches = [slice(low, high) for low, high in pairwise(ends)]

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        for product in (self._down, *self._ups):
            product.load(weights)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, ctx: ForwardContext) -> None:
        """Changes y [T, N] by x [T, K]."""
        mark = ctx.arena.mark()
        narrow = self._down(x, out=ctx.arena.take((x.shape[0], self._narrow), x.dtype))
        for rank, up, add, stretch in zip(
            self._ranks, self._ups, self._adds, self._stretches, strict=True
        ):
            inner = ctx.arena.mark()
            made = ctx.arena.take((x.shape[0], up.out_size), x.dtype)
            up(narrow[:, rank], out=made)
            add(y[:, stretch], made, out=y[:, stretch])
            ctx.arena.release(inner)
        ctx.arena.release(mark)


class MixerAfterBlock:
    """x [T, C] to mixer(norm(x + entry(block(x, embedding)))) for layer `name`.

    index  the number of its attention among all mixers.
    rope   table [max_len, rot], or None.
    owns_block  it loads the block's weights.
    Its parameters beside the mixer's and the block's: `<name>.own_heads`, `<name>.own_gates`, `<name>.entry`,
    `<name>.norm_after_block`.
    """

    def __init__(
        self,
        name: str,
        index: int,
        parts: BlockParts,
        block: SharedBlock,
        mixer: _Mixer,
        *,
        rope: torch.Tensor | None,
        owns_block: bool,
        cache_scales: CacheScales = None,
    ) -> None:
        self.index, self._parts, self._block, self._mixer = index, parts, block, mixer
        self._owns_block = owns_block
        sizes, size = parts.sizes, parts.sizes.size
        self._to_write, self._to_run = with_scales(sizes.scale, cache_scales)
        q_end, k_end, v_end = sizes.bounds
        stretches = (("q", q_end), ("k", k_end - q_end), ("v", v_end - k_end))
        heads, gates = parts.ranks
        own = partial(OwnProducts, parts=parts)
        self._own_heads = (
            [own(f"{name}.own_heads", in_size=2 * size, rank=heads, ups=stretches)] if heads else []
        )
        self._own_gates = own(
            f"{name}.own_gates", in_size=size, rank=gates, ups=[("up", 2 * parts.width)]
        )
        self._entry = parts.linear(f"{name}.entry", size, size)
        self._norm = parts.norm(f"{name}.norm_after_block", size)
        self._copy, self._add = parts.bind(SCALE, C=size), parts.bind(ADD, C=size)
        self._act_mul = parts.bind(ACT_MUL, F=parts.width)
        self._on_heads: list[HeadStep] = head_steps(
            parts.table,
            name,
            sizes,
            parts.dtype,
            rope=rope,
            growth=None,
            interleaved=False,
            qk_norm="none",
            eps=parts.eps,
            norm_after_rope=False,
        )
        self._attend = parts.table.bind(
            PAGED_ATTENTION,
            dtype_name(parts.dtype),
            format=parts.cache_format,
            H=sizes.num_heads,
            K=sizes.num_kv_heads,
            D=sizes.head_size,
        )

    @property
    def attends(self) -> tuple[Bound | None, ...]:
        """Those of the block and of the mixer."""
        return (self._attend, *self._mixer.attends)

    def load(self, weights: Weights) -> None:
        """Takes and packs its parameters."""
        if self._owns_block:
            self._block.load(weights)
        for own in (*self._own_heads, self._own_gates):
            own.load(weights)
        self._entry.load(weights)
        self._norm.load(weights)
        self._mixer.load(weights)

    def __call__(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> torch.Tensor:
        """Caches keys, values and states; writes [T, C] into `out`, which may be x."""
        made = ctx.arena.take(tuple(x.shape), x.dtype)
        mark = ctx.arena.mark()
        self._attended(x, ctx, out=made)
        ctx.arena.release(mark)
        self._fed(made, ctx)
        ctx.arena.release(mark)
        self._entry(made, out=made)
        self._add(made, x, out=made)
        self._norm(made, out=made)
        return self._mixer(made, ctx, out=out)

    def _attended(self, x: torch.Tensor, ctx: ForwardContext, *, out: torch.Tensor) -> None:
        sizes, block, (count, size) = self._parts.sizes, self._block, x.shape
        q_end, k_end, v_end = sizes.bounds
        assert ctx.embedded is not None
        both = ctx.arena.take((count, 2 * size), x.dtype)
        self._copy(x, factor=1.0, out=both[:, :size])
        self._copy(ctx.embedded, factor=1.0, out=both[:, size:])
        block.before_mixer(both, out=both)
        qkv = block.qkv(both, out=ctx.arena.take((count, v_end), x.dtype))
        for own in self._own_heads:
            own(both, qkv, ctx)
        heads = qkv[:, :k_end].view(count, -1, sizes.head_size)
        for step in self._on_heads:
            step(heads, ctx.positions[0])
        q, k = heads[:, : sizes.num_heads], heads[:, sizes.num_heads :]
        v = qkv[:, k_end:].view(count, sizes.num_kv_heads, sizes.head_size)
        cache, plan = ctx.cached(self.index)
        self._attend.call("write", k, v, cache, plan, **self._to_write)
        mixed = ctx.arena.take((count, sizes.num_heads, sizes.head_size), x.dtype)
        self._attend(
            q,
            cache,
            plan,
            window=sizes.window,
            softcap=sizes.softcap,
            sinks=None,
            slopes=None,
            **self._to_run,
            out=mixed,
        )
        block.out(mixed.view(count, q_end), out=out)

    def _fed(self, made: torch.Tensor, ctx: ForwardContext) -> None:
        """Changes made [T, C] in place."""
        block, count, width = self._block, made.shape[0], self._parts.width
        block.before_feed_forward(made, out=made)
        wide = block.gate_up(made, out=ctx.arena.take((count, 2 * width), made.dtype))
        self._own_gates(made, wide, ctx)
        gated = ctx.arena.take((count, width), made.dtype)
        self._act_mul(wide, act=self._parts.act, out=gated)
        block.down(gated, out=made)
