"""Attention that sees few blocks of the cached tokens: which ones each head of keys picks, and attention over those.

A block is `size` neighbouring tokens, the first one at a multiple of `size`. Caches, plans and their messages
are those of `ops.attention`; single tokens are picked by `ops.picks`.
"""

from __future__ import annotations

import math

import torch

from quire.ops.attention import PlainCache, PlainRows, ReferencePlan, check_heads
from quire.ops.attention_tiles import Rule, attend
from quire.ops.picks import pieces_of, query_rows, rows_at, tiles_of
from quire.ops.registry import declare, register

PICK_BLOCKS = declare(
    "pick_blocks",
    "planned",
    "as pick_tokens; run(q [T,H,D], cache, plan, size, local, picks [T,H,k]): the k best blocks for each head",
)
BLOCK_ATTENTION = declare(
    "block_attention",
    "planned",
    "as paged_attention; run(q [T,H,D], picks [T,K,k], cache, plan, size, scale) -> [T,H,Dv] over those blocks",
)


@register
class PickBlocksReference(PlainRows):
    """The definition: one query after the other, its scores made in pieces of 1,024 keys."""

    op = "pick_blocks"

    def run(
        self,
        q: torch.Tensor,
        cache: PlainCache,
        plan: ReferencePlan,
        *,
        size: int,
        local: int,
        picks: torch.Tensor,
    ) -> torch.Tensor:
        """Writes picks [T, H, k] int32: the blocks that each query sees by each head, ascending, and -1 behind them.

        A block's score is the greatest q[h] . key[s] of its tokens up to the query, in float32. The query's own
        block and the `local` - 1 before it come first, then those with the best scores; all if they are no more
        than k. Of equal scores the earlier block is picked, and what is not a number counts as more than any number.

        q  [T, H, D], tokens of all sequences in plan order, their keys already written.
        """
        picks.fill_(-1)
        count, before, keys = picks.shape[2], -1, torch.empty(0)
        for at, (row, position) in enumerate(query_rows(plan)):
            blocks = position // size + 1
            if blocks <= count:
                picks[at, :, :blocks] = torch.arange(blocks, device=q.device)
                continue
            if row != before:
                before, keys = row, pieces_of(cache, plan, row)
            heads = q[at].to(torch.float32, copy=True)
            scores = torch.cat([torch.mm(heads, piece.t()) for piece in keys], dim=1)
            whole = torch.full((q.shape[1], blocks * size), -math.inf, device=q.device)
            whole[:, : position + 1] = scores[:, : position + 1]
            best = whole.view(q.shape[1], blocks, size).amax(-1)
            best[:, max(blocks - local, 0) :] = math.inf
            order = torch.sort(best, dim=-1, descending=True, stable=True).indices[:, :count]
            picks[at] = torch.sort(order, dim=-1).values.to(torch.int32)
        return picks


@register
class BlockAttentionReference(PlainRows):
    """The definition: one query and one kv head after the other, the tokens of its blocks side by side."""

    op = "block_attention"

    def run(
        self,
        q: torch.Tensor,
        picks: torch.Tensor,
        cache: PlainCache,
        plan: ReferencePlan,
        *,
        size: int,
        scale: float,
        value_scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of each query over the cached tokens up to it in the blocks that its kv head picked.

        q      [T, H, D], tokens of all sequences in plan order, their keys already written.
        picks  [T, K, k] int32, numbers of blocks, ascending, and -1 behind them; at least one.
        scale  factor on every score; value_scale of the result.
        Returns [T, H, Dv] in q's dtype; accumulated in float32, one rounding. Tokens are walked in the order of
        `picks`, in tiles and segments as in `paged_attention`.
        Raises ValueError if H is no multiple of K.
        """
        num_kv_heads = cache.keys.shape[3]
        group = check_heads(q.shape[1], num_kv_heads)
        if out is None:
            out = q.new_empty(*q.shape[:2], cache.values.shape[-1])
        rule = Rule(scale, None, 0.0, 0.0, bidirectional=True, chunked=False)
        inside = torch.arange(size, device=q.device)
        for at, (row, position) in enumerate(query_rows(plan)):
            for head in range(num_kv_heads):
                blocks = picks[at, head][picks[at, head] >= 0].to(torch.int64)
                positions = (blocks.unsqueeze(1) * size + inside).flatten()
                positions = positions[positions <= position]
                keys, values = rows_at(cache, plan, row, positions)
                mine = slice(head * group, (head + 1) * group)
                rows = q[at, mine].to(torch.float32, copy=True)
                tiles = tiles_of(keys[:, head]), tiles_of(values[:, head])
                mixed = attend(rows, 0, *tiles, len(positions), rule, None)
                out[at, mine] = (mixed * value_scale).to(out.dtype)
        return out
