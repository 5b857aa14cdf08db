"""Which tokens each query sees where a layer's attention does not see all: scores of keys of their own.

What is made of the chosen ones is `layers.mla`; the choice itself is `ops.picks`. Source: arXiv 2512.02556.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.layers.norm import LayerNorm
from quire.ops.elementwise import TO_FLOAT32
from quire.ops.picks import PICK_TOKENS
from quire.ops.registry import Bound, Table
from quire.ops.rope import ROPE
from quire.quant.formats import PLAIN, Formats


@dataclass(frozen=True, kw_only=True)
class IndexerSizes:
    """The numbers of one indexer: H heads of D numbers, of which `rope_size` have a position.

    size     of the layer's input. q_rank: of the latent that queries are made of.
    """

    size: int
    q_rank: int
    num_heads: int
    head_size: int
    rope_size: int


class Indexer:
    """The picks of every token, made anew from x [T, C] and the latent of its queries [T, R].

    Its parameters: `<name>.q` [H * D, R], `<name>.key` [D, C] with the LayerNorm `<name>.key_norm`, and in
    float32 `<name>.weigh` [H, C].

    index   its number among the mixers of all layers.
    rope    table [max_len, rope_size] of `layers.rope`.
    turned_last  the last numbers have the positions, not the first.
    eps     of that norm. format: of the weights of `q` and `key`.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        index: int,
        sizes: IndexerSizes,
        *,
        rope: torch.Tensor,
        interleaved: bool,
        turned_last: bool = False,
        eps: float,
        dtype: torch.dtype,
        format: Formats = PLAIN,
        cache_format: str = "plain",
    ) -> None:
        self._index = index
        self._sizes = sizes
        heads, head_size = sizes.num_heads, sizes.head_size
        linear = partial(Linear, table, bias=False)
        in_format = partial(linear, dtype=dtype, format=format)
        self._query = in_format(f"{name}.q", in_size=sizes.q_rank, out_size=heads * head_size)
        self._key = in_format(f"{name}.key", in_size=sizes.size, out_size=head_size)
        self._key_norm = LayerNorm(
            table, f"{name}.key_norm", size=head_size, eps=eps, dtype=dtype, bias=True
        )
        self._weigh = linear(
            f"{name}.weigh", in_size=sizes.size, out_size=heads, dtype=torch.float32
        )
        self._widen = table.bind(TO_FLOAT32, dtype_name(dtype), C=sizes.size)
        first = head_size - sizes.rope_size if turned_last else 0
        self._turned = slice(first, first + sizes.rope_size)
        turn = table.bind(ROPE, dtype_name(dtype), D=sizes.rope_size, rot=sizes.rope_size)
        self._turn: Callable[..., object] = partial(turn, table=rope, interleaved=interleaved)
        self._pick = table.bind(
            PICK_TOKENS, dtype_name(dtype), format=cache_format, H=heads, K=1, D=head_size
        )

    @property
    def attends(self) -> tuple[Bound, ...]:
        """For the worker, which makes the operation's plans and cache views."""
        return (self._pick,)

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters."""
        for part in (self._query, self._key, self._key_norm, self._weigh):
            part.load(weights)

    def __call__(self, x: torch.Tensor, latent: torch.Tensor, ctx: ForwardContext) -> None:
        """Caches the keys of x [T, C], then writes `ctx.picks` by queries of latent [T, R]."""
        sizes, num_tokens, positions = self._sizes, x.shape[0], ctx.positions[0]
        arena, mark = ctx.arena, ctx.arena.mark()
        cache, plan = ctx.cached(self._index)
        key = self._key(x, out=arena.take((num_tokens, sizes.head_size), x.dtype))
        self._key_norm(key, out=key)
        key = key.unsqueeze(1)  # [T, 1, D]
        self._turn(key[..., self._turned], positions)
        self._pick.call("write", key, key[..., :0], cache, plan)
        query = arena.take((num_tokens, sizes.num_heads, sizes.head_size), x.dtype)
        self._query(latent, out=query.view(num_tokens, -1))
        self._turn(query[..., self._turned], positions)
        wide = self._widen(x, out=arena.take(tuple(x.shape), torch.float32))
        weights = self._weigh(wide, out=arena.take((num_tokens, sizes.num_heads), torch.float32))
        self._pick(query, weights, cache, plan, picks=ctx.picks)
        arena.release(mark)


class EarlierPicks:
    """The picks that an earlier layer left in `ctx.picks`; nothing of its own."""

    attends: tuple[Bound, ...] = ()

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes nothing."""

    def __call__(self, x: torch.Tensor, latent: torch.Tensor, ctx: ForwardContext) -> None:
        """Changes nothing."""


Picker = Indexer | EarlierPicks
