"""What a step's attention looks like as batched products: which rows, which tiles, in which order.

Works in numpy on the host, once per step and shape of heads; the arithmetic is `vendor.attention`.

A *pair* is a sequence and up to `queries` of its query tokens. An *item* is a pair and one segment
of the sequence's keys. Items are cut into groups that fit a constant budget of bytes; inside a group
they stand in falling order of their number of tiles, so that those still active are a prefix. No
choice of order or company changes a bit of a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from quire.ops.attention import AttentionStep
from quire.ops.attention_tiles import SEGMENT_TOKENS, TILE_TOKENS

QUERY_ROWS = 32
"""Rows of one product: queries times query heads per kv head. A row of a product of 64 costs 25% less
than one of 32, but a single token pays for all rows (head size 64, Xeon, AVX-512, 2 threads)."""
GROUP_BYTES = 32 << 20
"""Scratch of one group: large enough that Python's cost per tile does not show."""
SEGMENT_TILES = SEGMENT_TOKENS // TILE_TOKENS

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Heads:
    """The sizes that a layout depends on: query heads, kv heads, head size, value size."""

    num_heads: int
    num_kv_heads: int
    head_size: int
    value_size: int

    @property
    def group(self) -> int:
        """Query heads for each kv head."""
        return self.num_heads // self.num_kv_heads

    @property
    def queries(self) -> int:
        """Query tokens in one pair."""
        return max(1, QUERY_ROWS // self.group)

    @property
    def rows(self) -> int:
        """R: rows of one product, a constant of the layer."""
        return max(QUERY_ROWS, -(-self.group // 16) * 16)


@dataclass(frozen=True)
class Part:
    """Items of one group and one segment: rows `chosen` of the group are pairs `pairs`."""

    chosen: torch.Tensor
    pairs: torch.Tensor
    is_first: bool


@dataclass(frozen=True)
class Group:
    """Items worked on together. n items, U gathered tiles.

    slab, place, slot  [U, 32] int64, where each gathered token lies.
    absent             [E] int64, flat tokens of [U, 32] that hold nothing and are zeroed.
    pairs              [n] int64.
    last_seen          [n, R] int64, position of each row's query.
    base               [n] int64, position of each item's first key.
    active, masked     per tile step: items still active; first item that needs a mask.
    tiles              per tile step: a slice of the gathered tiles, or [active] int64 indices.
    """

    slab: torch.Tensor
    place: torch.Tensor
    slot: torch.Tensor
    absent: torch.Tensor
    pairs: torch.Tensor
    last_seen: torch.Tensor
    base: torch.Tensor
    active: list[int]
    masked: list[int]
    tiles: list[slice | torch.Tensor]
    parts: list[Part]


@dataclass(frozen=True)
class Layout:
    """num_pairs P; token t is query place[t] of pair[t]; both [T] int64."""

    num_pairs: int
    pair: torch.Tensor
    place: torch.Tensor
    groups: list[Group]


class TorchPlan:
    """One cache group's step.

    Layouts are made when the first layer of a shape asks, and kept for the step.
    Tensors stay where they are while a later step has the same shapes.
    """

    def __init__(
        self, block_size: int, blocks_per_slab: int, window: int | None, device: torch.device
    ) -> None:
        self.block_size = block_size
        self.blocks_per_slab = blocks_per_slab
        self.window = window
        self.device = device
        self._step: AttentionStep | None = None
        self._tensors: dict[str, torch.Tensor] = {}
        self._layouts: dict[Heads, Layout] = {}
        self.slots: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def fill(self, step: AttentionStep) -> None:
        """Takes over a step; its arrays are kept by reference."""
        self._step = step
        self._layouts.clear()
        self.slots = self._locate("write", step.slot_mapping.astype(np.int64))

    def layout(self, heads: Heads) -> Layout:
        """The step's layout for these heads. Raises ValueError if the plan was never filled."""
        known = self._layouts.get(heads)
        if known is None:
            if self._step is None:
                raise ValueError("an attention plan is used before it was filled")
            known = self._layouts[heads] = self._build(heads, self._step)
        return known

    def _put(self, name: str, array: npt.NDArray[np.int64]) -> torch.Tensor:
        """`array` as a tensor, in the memory it had last time if the shape is the same."""
        fresh = torch.from_numpy(np.ascontiguousarray(array))
        kept = self._tensors.get(name)
        if kept is None or kept.shape != fresh.shape:
            kept = self._tensors[name] = torch.empty_like(fresh, device=self.device)
        return kept.copy_(fresh)

    def _locate(self, name: str, slots: Ints) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Flat slots as indices of slab, place in the slab, and slot in the block."""
        block, slot = slots // self.block_size, slots % self.block_size
        slab, place = block // self.blocks_per_slab, block % self.blocks_per_slab
        return (
            self._put(f"{name}.slab", slab),
            self._put(f"{name}.place", place),
            self._put(f"{name}.slot", slot),
        )

    def _build(self, heads: Heads, step: AttentionStep) -> Layout:
        name = f"{heads.num_heads}.{heads.num_kv_heads}.{heads.head_size}.{heads.value_size}"
        starts = step.query_start.astype(np.int64)
        counts = starts[1:] - starts[:-1]
        num_pairs = -(-counts // heads.queries)
        first_pair = np.cumsum(num_pairs) - num_pairs
        inside = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        pair_of_token = np.repeat(first_pair, counts) + inside // heads.queries
        row = np.repeat(np.arange(len(counts)), num_pairs)
        begin = (np.arange(len(row)) - first_pair[row]) * heads.queries
        first = step.seq_lens.astype(np.int64)[row] - counts[row] + begin
        size = np.minimum(heads.queries, counts[row] - begin)
        pairs = _Pairs(row, first, first + size - 1)
        items = _items(pairs, self.window)
        groups = [
            self._group(f"{name}.{index}", heads, step, pairs, items.take(chosen))
            for index, chosen in enumerate(_cut(items, heads))
        ]
        return Layout(
            len(row),
            self._put(f"{name}.pair", pair_of_token),
            self._put(f"{name}.inside", inside % heads.queries),
            groups,
        )

    def _group(
        self, name: str, heads: Heads, step: AttentionStep, pairs: _Pairs, items: _Items
    ) -> Group:
        items = items.take(np.argsort(items.low - items.high, kind="stable"))  # longest first
        num_tiles = items.high - items.low
        active = [int((num_tiles > k).sum()) for k in range(int(num_tiles.max(initial=0)))]
        rows, numbers, tiles = self._gathered(name, pairs.row[items.pair], items, active)
        positions = numbers[:, None] * TILE_TOKENS + np.arange(TILE_TOKENS)  # [U, 32]
        columns = np.minimum(positions // self.block_size, step.block_table.shape[1] - 1)
        blocks = step.block_table[rows[:, None], columns].astype(np.int64)
        absent = (positions >= step.seq_lens[rows][:, None]) | (blocks < 0)
        slots = np.where(absent, 0, blocks * self.block_size + positions % self.block_size)
        first, last = pairs.first[items.pair], pairs.last[items.pair]
        query = np.minimum(np.arange(heads.rows) // heads.group, (last - first)[:, None])
        parts = []
        for segment in np.unique(items.segment):
            chosen = np.flatnonzero(items.segment == segment)
            for is_first in (True, False):
                some = chosen[items.is_first[chosen] == is_first]
                if len(some):
                    label = f"{name}.{segment}.{is_first}"
                    parts.append(
                        Part(
                            self._put(f"{label}.chosen", some),
                            self._put(f"{label}.pairs", items.pair[some]),
                            is_first,
                        )
                    )
        slab, place, slot = self._locate(name, slots)
        return Group(
            slab,
            place,
            slot,
            self._put(f"{name}.absent", np.flatnonzero(absent)),
            self._put(f"{name}.pairs", items.pair),
            self._put(f"{name}.last_seen", first[:, None] + query),
            self._put(f"{name}.base", items.low * TILE_TOKENS),
            active,
            self._masked(first, items, active),
            tiles,
            parts,
        )

    def _masked(self, first: Ints, items: _Items, active: list[int]) -> list[int]:
        """For each tile step the first active item with a key that some row may not see."""
        if self.window is not None:
            return [0] * len(active)
        whole = (first + 1) // TILE_TOKENS - items.low  # tiles that every row sees whole
        found = []
        for k, count in enumerate(active):
            partial = whole[:count] <= k
            found.append(int(partial.argmax()) if partial.any() else count)
        return found

    def _gathered(
        self, name: str, row: Ints, items: _Items, active: list[int]
    ) -> tuple[Ints, Ints, list[slice | torch.Tensor]]:
        """Sequence and number of each gathered tile [U], and the tiles of each tile step.

        Items that share a stretch of keys share its tiles; if none do, tiles stand in order of use.
        """
        keys, key_of = np.unique(row * (1 << 32) + items.segment, return_inverse=True)
        tiles: list[slice | torch.Tensor] = []
        if len(keys) == len(row):
            ends = np.cumsum([0, *active]).tolist()
            rows = [row[:count] for count in active]
            numbers = [items.low[:count] + k for k, count in enumerate(active)]
            tiles.extend(slice(ends[k], ends[k + 1]) for k in range(len(active)))
            return np.concatenate(rows), np.concatenate(numbers), tiles
        low = np.full(len(keys), np.iinfo(np.int64).max)
        high = np.zeros(len(keys), dtype=np.int64)
        np.minimum.at(low, key_of, items.low)
        np.maximum.at(high, key_of, items.high)
        start = np.cumsum(high - low) - (high - low)
        begin = start[key_of] + items.low - low[key_of]
        for k, count in enumerate(active):
            tiles.append(self._put(f"{name}.tiles.{k}", begin[:count] + k))
        inside = np.arange(int((high - low).sum())) - np.repeat(start, high - low)
        return np.repeat(keys >> 32, high - low), np.repeat(low, high - low) + inside, tiles


@dataclass(frozen=True)
class _Pairs:
    """Sequence, first and last query position of each pair, all [P]."""

    row: Ints
    first: Ints
    last: Ints


@dataclass(frozen=True)
class _Items:
    """Pair, segment, first tile, end of tiles, whether it is its pair's first segment; all [n]."""

    pair: Ints
    segment: Ints
    low: Ints
    high: Ints
    is_first: npt.NDArray[np.bool_]
    row: Ints

    def take(self, chosen: Ints) -> _Items:
        """The items at these indices."""
        return _Items(
            self.pair[chosen],
            self.segment[chosen],
            self.low[chosen],
            self.high[chosen],
            self.is_first[chosen],
            self.row[chosen],
        )


def _items(pairs: _Pairs, window: int | None) -> _Items:
    """All items, by segment and then by pair: the order in which states are merged."""
    low = np.zeros_like(pairs.first)
    if window is not None:
        low = np.maximum(pairs.first - window + 1, 0) // TILE_TOKENS
    high = pairs.last // TILE_TOKENS + 1
    first_segment = low // SEGMENT_TILES
    count = (high - 1) // SEGMENT_TILES - first_segment + 1
    pair = np.repeat(np.arange(len(count)), count)
    index = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
    segment = first_segment[pair] + index
    order = np.argsort(segment, kind="stable")
    pair, segment, index = pair[order], segment[order], index[order]
    return _Items(
        pair,
        segment,
        np.maximum(low[pair], segment * SEGMENT_TILES),
        np.minimum(high[pair], (segment + 1) * SEGMENT_TILES),
        index == 0,
        pairs.row[pair],
    )


def _cut(items: _Items, heads: Heads) -> list[Ints]:
    """Consecutive items in groups of about GROUP_BYTES of scratch."""
    per_tile = heads.num_kv_heads * TILE_TOKENS * (heads.head_size + heads.value_size) * 4
    per_row = heads.head_size + 2 * heads.value_size + 3 * TILE_TOKENS
    per_item = heads.num_kv_heads * heads.rows * per_row * 4
    tiles = items.high - items.low
    same = (items.row[1:] == items.row[:-1]) & (items.segment[1:] == items.segment[:-1])
    tiles[1:] -= np.where(same, np.minimum(tiles[:-1], tiles[1:]), 0)
    cost = np.cumsum(per_item + tiles * per_tile)
    group = (cost - 1) // GROUP_BYTES
    return np.split(np.arange(len(cost)), np.flatnonzero(np.diff(group)) + 1)
