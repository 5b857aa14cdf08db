"""Attention over a window of cached vectors and over entries that stand for many tokens: its definition.

Three kinds of rows lie in blocks as keys and values of `ops.attention` do: the vectors of the window, what
entries are made of until they are, and the entries. Entry w of tokens w * rate to w * rate + rate - 1 lies in
the block of the last one. Every result depends on its own sequence up to its position, and on nothing else.
Source: the DeepSeek V4 report, sections 2.3.1 and 2.3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from quire.ops.attention import (
    AttentionStep,
    PagedAttentionBase,
    PagedAttentionReference,
    PlainCache,
    ReferencePlan,
)
from quire.ops.norm import rms_norm
from quire.ops.registry import Signature, declare, register
from quire.ops.rope import rope

COMPRESSED_ATTENTION = declare(
    "compressed_attention",
    "planned",
    "bytes_per_token, view, new_plan, fill, write as paged_attention; compress(tail, entries), "
    "pick(q [T,H,D], shares [T,H], entries) -> [T,k]; run(q, window, entries, picks) -> [T,H,D]",
)


@dataclass(frozen=True)
class Rows:
    """Cached rows with the plan of their group; one for every `rate` tokens."""

    cache: PlainCache
    plan: ReferencePlan
    rate: int = 1

    def parts(self, is_index: bool) -> torch.Tensor:
        """One vector of every row [num_slabs, blocks_per_slab, S, 1, D]: the first, or the second of the index."""
        return self.cache.values if is_index else self.cache.keys

    def places(
        self, row: int, positions: npt.NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Where the rows of tokens at these positions of sequence `row` lie in `parts`."""
        plan = self.plan
        block = plan.get_step().block_table[row][positions // plan.block_size].astype(np.int64)
        offset = positions % plan.block_size // self.rate
        slab, inside = np.divmod(block, plan.blocks_per_slab)
        found = [torch.from_numpy(each).to(plan.device) for each in (slab, inside, offset)]
        return found[0], found[1], found[2], 0

    def read(self, row: int, positions: npt.NDArray[np.int64], is_index: bool) -> torch.Tensor:
        """[n, D] float32 of tokens at these positions."""
        return self.parts(is_index)[self.places(row, positions)].to(torch.float32)

    def entries(self, row: int, count: int, is_index: bool) -> torch.Tensor:
        """The first `count` entries [count, D] of a sequence, float32."""
        return self.read(row, np.arange(1, count + 1, dtype=np.int64) * self.rate - 1, is_index)


@dataclass(frozen=True)
class Mixing:
    """How entries are made of vectors.

    bias   [rate, series * D] float32, added to what weighs them. norm: [D].
    table  [max_len, rot] of the turn, of pairs that stand side by side or, if not `interleaved`, of halves.
    series  1: of an entry's own tokens; 2: the first half of a token's numbers is for the entry after its own.
    """

    bias: torch.Tensor
    norm: torch.Tensor
    table: torch.Tensor
    series: int
    eps: float
    interleaved: bool


@register
class CompressedAttentionReference(PagedAttentionBase):
    """The definition: one sequence, one query after the other."""

    op = "compressed_attention"
    name = "reference"

    def __init__(self) -> None:
        self._rows = PagedAttentionReference()

    def accepts(self, signature: Signature) -> str | None:
        """Rows are kept in the model's dtype only."""
        if signature.format != "plain":
            return f"it keeps rows as they are, not as {signature.format}"
        return None

    def new_plan(
        self, *, block_size: int, blocks_per_slab: int, window: int | None, device: torch.device
    ) -> ReferencePlan:
        """An empty plan for a cache group."""
        return ReferencePlan(block_size, blocks_per_slab, window, device)

    def fill(self, plan: ReferencePlan, step: AttentionStep) -> None:
        """Takes over a step; its arrays are kept by reference."""
        plan.step = step

    def write(self, first: torch.Tensor, second: torch.Tensor, rows: Rows) -> None:
        """Stores the step's vectors [T, 1, D] and [T, 1, Dv], one row a token."""
        self._rows.write(first, second, rows.cache, rows.plan)

    def compress(self, tail: Rows, entries: Rows, mixing: Mixing, *, is_index: bool) -> None:
        """Makes the entries whose last token is in this step.

        tail  rows of 2 * series * D numbers: the vectors of a token, and then what weighs them.
        An entry is the sum of vectors times the softmax over its tokens of what weighs them and the bias, for each
        number by itself; normed, the last `rot` numbers turned by the position of its own first token. In float32,
        rounded once. The first entry has no tokens before its own.
        """
        step, rate = entries.plan.get_step(), entries.rate
        for row, seq_len in enumerate(step.seq_lens.tolist()):
            begin, end = step.query_start[row : row + 2].tolist()
            first, last = (seq_len - (end - begin)) // rate, seq_len // rate
            if first == last:
                continue
            earliest = max(first - mixing.series + 1, 0)
            tokens = np.arange(earliest * rate, last * rate, dtype=np.int64)
            vectors, weighing = tail.read(row, tokens, is_index).chunk(2, dim=-1)
            made = _mixed(vectors, weighing, mixing, last - first)
            size = mixing.norm.shape[0]
            rms_norm(made, mixing.norm, mixing.eps, made)
            starts = torch.arange(first, last, device=made.device) * rate
            turned = made[:, None, size - mixing.table.shape[1] :]
            rope(turned, starts, mixing.table, mixing.interleaved)
            ends = np.arange(first + 1, last + 1, dtype=np.int64) * rate - 1
            stored = entries.parts(is_index)
            stored[entries.places(row, ends)] = made.to(stored.dtype)

    def pick(
        self, q: torch.Tensor, shares: torch.Tensor, entries: Rows, *, out: torch.Tensor
    ) -> torch.Tensor:
        """The entries that each query shall see, in order: `out` [T, k] int32, -1 behind the last.

        q [T, H, D] and shares [T, H]. A query at position p sees of the (p + 1) // rate entries before it the k
        with the highest sum over heads of share * max(q . key, 0), of equal ones the earlier; all if there are
        no more than k. In float32.
        """
        step, most = entries.plan.get_step(), out.shape[1]
        out.fill_(-1)
        for row, seq_len in enumerate(step.seq_lens.tolist()):
            begin, end = step.query_start[row : row + 2].tolist()
            num_entries = seq_len // entries.rate
            keys = entries.entries(row, num_entries if num_entries > most else 0, is_index=True)
            for at in range(begin, end):
                count = (seq_len - end + at + 1) // entries.rate
                if count <= most:
                    out[at, :count] = torch.arange(count, dtype=out.dtype, device=out.device)
                    continue
                met = torch.relu(torch.mm(q[at].to(torch.float32, copy=True), keys[:count].t()))
                scores = (met * shares[at].to(torch.float32)[:, None]).sum(0)
                order = torch.sort(scores, descending=True, stable=True).indices[:most]
                out[at] = torch.sort(order).values
        return out

    def run(
        self,
        q: torch.Tensor,
        near: Rows,
        *,
        scale: float,
        window: int,
        sinks: torch.Tensor,
        entries: Rows | None = None,
        picks: torch.Tensor | None = None,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Attention of q [T, H, D] over a window of vectors, and over entries, that are keys and values.

        near     the vectors; a query sees `window` of them, its own included.
        entries  those before a query, all of them or its `picks` [T, k].
        sinks    [H] float32, a further score per head that takes weight and gives nothing.
        Writes [T, H, D] in q's dtype, in float32 with one rounding.
        """
        step = near.plan.get_step()
        for row, seq_len in enumerate(step.seq_lens.tolist()):
            begin, end = step.query_start[row : row + 2].tolist()
            first = seq_len - (end - begin)
            start = max(first - window + 1, 0)
            vectors = near.read(row, np.arange(start, seq_len, dtype=np.int64), is_index=False)
            before = vectors[:0]
            if entries is not None:
                before = entries.entries(row, seq_len // entries.rate, is_index=False)
            for at in range(begin, end):
                position = first + at - begin
                seen = [vectors[max(position - window + 1, 0) - start : position + 1 - start]]
                if entries is not None:
                    count = (position + 1) // entries.rate
                    if picks is not None:
                        count = min(count, picks.shape[1])
                    chosen = None if picks is None else picks[at, :count].to(torch.int64)
                    seen.append(before[:count] if chosen is None else before[chosen])
                query = q[at].to(torch.float32, copy=True)
                out[at] = _attend(query, torch.cat(seen), scale, sinks)
        return out


def _mixed(
    vectors: torch.Tensor, weighing: torch.Tensor, mixing: Mixing, count: int
) -> torch.Tensor:
    """The last `count` entries [count, D] of tokens' vectors and what weighs them, both [n, series * D]."""
    rate, size = mixing.bias.shape[0], mixing.norm.shape[0]
    vectors = vectors.reshape(-1, rate, mixing.series * size)
    weighing = weighing.reshape(vectors.shape) + mixing.bias
    if mixing.series == 2:
        if len(vectors) == count:  # nothing before the first one
            nothing = torch.zeros_like(vectors[:1])
            vectors = torch.cat((nothing, vectors))
            weighing = torch.cat((nothing - torch.inf, weighing))
        both = [
            torch.cat((it[:-1, :, :size], it[1:, :, size:]), dim=1) for it in (vectors, weighing)
        ]
        vectors, weighing = both
    powers = torch.exp(weighing - weighing.amax(dim=1, keepdim=True))
    vectors = vectors * powers
    total, weight = vectors[:, 0].clone(), powers[:, 0].clone()
    for token in range(1, vectors.shape[1]):
        total += vectors[:, token]
        weight += powers[:, token]
    return total.div_(weight)


def _attend(q: torch.Tensor, keys: torch.Tensor, scale: float, sinks: torch.Tensor) -> torch.Tensor:
    """q [H, D] over keys [n, D], which are the values too, with sinks [H]; [H, D] float32."""
    scores = torch.mm(q, keys.t()) * scale
    peak = torch.maximum(scores.amax(dim=-1), sinks)
    weights = torch.exp(scores - peak[:, None])
    total = weights.sum(dim=-1) + torch.exp(sinks - peak)
    return torch.mm(weights, keys) / total[:, None]
