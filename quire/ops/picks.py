"""Attention that sees few of the cached tokens: which ones a query picks, and attention over those.

Caches, plans and their messages are those of `ops.attention`. What makes the queries and weights of the
choice is `layers.indexer`. Source: arXiv 2512.02556.
"""

from __future__ import annotations

import torch

from quire.ops.attention import PlainCache, PlainRows, ReferencePlan, check_heads
from quire.ops.attention_tiles import TILE_TOKENS, Rule, attend, zeros
from quire.ops.cache_codes import decode
from quire.ops.registry import declare, register

PICK_TOKENS = declare(
    "pick_tokens",
    "planned",
    "bytes_per_token, view, new_plan, fill, write(k [T,1,D], v [T,1,0], cache, plan); "
    "run(q [T,H,D], weights [T,H], cache, plan, picks [T,k]): positions of the k best cached tokens",
)
PICKED_ATTENTION = declare(
    "picked_attention",
    "planned",
    "as paged_attention; run(q [T,H,D], picks [T,k], cache, plan, scale, sinks) -> [T,H,Dv] over those tokens",
)

SCORED_TOKENS = 1024
"""Keys that are scored together; part of what fixes the bits of a score."""


def query_rows(plan: ReferencePlan) -> list[tuple[int, int]]:
    """For each packed query its sequence and its position there."""
    step, found = plan.get_step(), []
    for row, seq_len in enumerate(step.seq_lens.tolist()):
        start, end = step.query_start[row : row + 2].tolist()
        found += [(row, seq_len - end + at) for at in range(start, end)]
    return found


@register
class PickTokensReference(PlainRows):
    """The definition: one query after the other, its scores made in pieces of 1,024 keys."""

    op = "pick_tokens"

    def run(
        self,
        q: torch.Tensor,
        weights: torch.Tensor,
        cache: PlainCache,
        plan: ReferencePlan,
        *,
        picks: torch.Tensor,
    ) -> torch.Tensor:
        """Writes picks [T, k] int32: the positions that each query sees, ascending, and -1 behind them.

        Cached token s has the score sum over heads of weights[h] * max(0, q[h] . key[s]), in float32. The
        k best of the tokens up to and with the query's own are picked, all if they are no more; of equal
        scores the earlier token, and what is not a number counts as more than any number.

        q        [T, H, D], tokens of all sequences in plan order, their keys already written.
        weights  [T, H] float32, of any sign.
        """
        picks.fill_(-1)
        count, before, keys = picks.shape[1], -1, zeros(q, 0)
        for at, (row, position) in enumerate(query_rows(plan)):
            if position < count:
                found = torch.arange(position + 1, device=q.device)
            else:
                if row != before:
                    before, keys = row, pieces_of(cache, plan, row)
                scores = _scores(q[at], weights[at], keys)[: position + 1]
                order = torch.sort(scores, descending=True, stable=True).indices[:count]
                found = torch.sort(order).values
            picks[at, : len(found)] = found.to(torch.int32)
        return picks


def pieces_of(cache: PlainCache, plan: ReferencePlan, row: int) -> torch.Tensor:
    """All cached keys of a sequence [pieces, 1024, D] float32, zeros behind the last."""
    seq_len = int(plan.get_step().seq_lens[row])
    num_pieces = -(-seq_len // SCORED_TOKENS)
    keys = zeros(cache.keys, num_pieces * SCORED_TOKENS, cache.keys.shape[-1])
    found, _ = rows_at(cache, plan, row, torch.arange(seq_len))
    keys[:seq_len] = found[:, 0]
    return keys.view(num_pieces, SCORED_TOKENS, -1)


def _scores(q: torch.Tensor, weights: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Scores [pieces * 1024] of keys [pieces, 1024, D] for one query [H, D] with weights [H].

    Every product has one shape, so that a score does not depend on how many keys there are.
    """
    heads = q.to(torch.float32, copy=True)
    each = weights.to(torch.float32, copy=True).unsqueeze(0)
    found = [torch.mm(each, torch.mm(heads, piece.t()).clamp_(min=0))[0] for piece in keys]
    return torch.cat(found)


def rows_at(
    cache: PlainCache, plan: ReferencePlan, row: int, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [n, K, D] and values [n, K, Dv] in float32 that a sequence cached at positions [n]."""
    where = plan.places(plan.slots(row, positions))
    pairs = ((cache.keys, cache.key_scales), (cache.values, cache.value_scales))
    keys, values = (
        decode(stored[where], None if scales is None else scales[where]) for stored, scales in pairs
    )
    return keys, values


@register
class PickedAttentionReference(PlainRows):
    """The definition: one query and one kv head after the other, the picked tokens side by side."""

    op = "picked_attention"

    def run(
        self,
        q: torch.Tensor,
        picks: torch.Tensor,
        cache: PlainCache,
        plan: ReferencePlan,
        *,
        scale: float,
        sinks: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of each query over the cached tokens of its own sequence at its `picks`.

        q      [T, H, D], tokens of all sequences in plan order, their keys already written.
        picks  [T, k] int32, positions of cached tokens, the used ones first and then -1; at least one.
        scale  factor on every score.
        sinks  [H] float32, a further score per head that takes weight and gives nothing.
        Returns [T, H, Dv] in q's dtype; accumulated in float32, one rounding. Tokens are walked in the order of
        `picks`, in tiles and segments as in `paged_attention`.
        Raises ValueError if H is no multiple of K.
        """
        num_kv_heads = cache.keys.shape[3]
        group = check_heads(q.shape[1], num_kv_heads)
        if out is None:
            out = q.new_empty(*q.shape[:2], cache.values.shape[-1])
        rule = Rule(scale, None, 0.0, 0.0, bidirectional=True, chunked=False)
        for at, (row, _) in enumerate(query_rows(plan)):
            positions = picks[at][picks[at] >= 0]
            keys, values = rows_at(cache, plan, row, positions)
            for head in range(num_kv_heads):
                mine = slice(head * group, (head + 1) * group)
                rows = q[at, mine].to(torch.float32, copy=True)
                tiles = tiles_of(keys[:, head]), tiles_of(values[:, head])
                sink = None if sinks is None else sinks[mine].unsqueeze(-1)
                out[at, mine] = attend(rows, 0, *tiles, len(positions), rule, sink).to(out.dtype)
        return out


def tiles_of(rows: torch.Tensor) -> torch.Tensor:
    """Rows [n, D] as [tiles, 32, D], zeros behind the last."""
    num_tiles = -(-len(rows) // TILE_TOKENS)
    found = zeros(rows, num_tiles * TILE_TOKENS, rows.shape[1])
    found[: len(rows)] = rows
    return found.view(num_tiles, TILE_TOKENS, -1)
