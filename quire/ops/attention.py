"""Attention of packed queries over a paged cache: the declaration, its messages and its definition.

A sequence's keys are walked in tiles of 32 tokens at absolute positions, in segments of 1,024
tokens that each have an online softmax of their own and are merged in order. Who owns which block
is the engine's business; what a block's bytes mean is the provider's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from quire.ops.attention_tiles import TILE_TOKENS, Rule, attend, zeros
from quire.ops.cache_codes import code_dtype, decode, encode
from quire.ops.formats import PLAIN_CACHE, CacheFormat, cache_format
from quire.ops.registry import Provider, declare, register

PAGED_ATTENTION = declare(
    "paged_attention",
    "planned",
    "bytes_per_token, view, new_plan, fill, write(k [T,K,D], v [T,K,Dv], cache, plan); "
    "run(q [T,H,D], cache, plan, scale, window, softcap, sinks, slopes, biases) -> [T,H,Dv]",
)


@dataclass(frozen=True, kw_only=True)
class AttentionStep:
    """What attention must know of a step, for one cache group, in host memory.

    query_start   [B+1] int32, first packed token of each sequence, and T at the end.
    seq_lens      [B] int32, tokens in the cache after this step's are written.
    block_table   [B, max_blocks] int32; -1 where a window has passed, anything after the last.
    slot_mapping  [T] int64, block * block_size + offset of each packed token.
    """

    query_start: npt.NDArray[np.int32]
    seq_lens: npt.NDArray[np.int32]
    block_table: npt.NDArray[np.int32]
    slot_mapping: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class CachePlace:
    """Where one layer's part of every block lies.

    Block b is in slab b // blocks_per_slab of `buffer` [num_slabs, slab_bytes] uint8, at byte
    (b % blocks_per_slab) * block_bytes; the layer's part starts layer_offset bytes later.
    """

    buffer: torch.Tensor
    block_size: int
    blocks_per_slab: int
    block_bytes: int
    layer_offset: int


@dataclass(frozen=True)
class PlainCache:
    """One layer's keys [num_slabs, blocks_per_slab, S, K, D] and values [..., Dv], as views.

    key_scales, value_scales  [num_slabs, blocks_per_slab, S, K] float32 of a format that has them.
    """

    keys: torch.Tensor
    values: torch.Tensor
    format: CacheFormat = PLAIN_CACHE
    key_scales: torch.Tensor | None = None
    value_scales: torch.Tensor | None = None


class ReferencePlan:
    """A step as it came, with the shape of blocks."""

    def __init__(
        self, block_size: int, blocks_per_slab: int, window: int | None, device: torch.device
    ) -> None:
        self.block_size = block_size
        self.blocks_per_slab = blocks_per_slab
        self.window = window
        self.device = device
        self.step: AttentionStep | None = None

    def get_step(self) -> AttentionStep:
        """The step last filled in. Raises ValueError if there was none."""
        if self.step is None:
            raise ValueError("an attention plan is used before it was filled")
        return self.step

    def places(self, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Slab, block in it and slot in that, of slots [n] as in AttentionStep.slot_mapping."""
        block, offset = (
            slots.to(self.device) // self.block_size,
            slots.to(self.device) % self.block_size,
        )
        return block // self.blocks_per_slab, block % self.blocks_per_slab, offset

    def slots(self, row: int, positions: torch.Tensor) -> torch.Tensor:
        """Slots [n] of cached tokens at positions [n] of sequence `row`."""
        blocks = torch.from_numpy(self.get_step().block_table[row].astype(np.int64))
        at = positions.cpu().to(torch.int64)
        return blocks[at // self.block_size] * self.block_size + at % self.block_size


class PagedAttentionBase(Provider):
    """What every provider shares that keeps keys and values as plain rows of tokens.

    A block holds, for each layer, the keys of its S slots [S, K, D] and then the values [S, K, Dv];
    with scales, then those of the keys [S, K] and of the values.
    """

    op = "paged_attention"

    def bytes_per_token(
        self,
        num_kv_heads: int,
        head_size: int,
        value_size: int,
        dtype: torch.dtype,
        format: str = "plain",
    ) -> int:
        """Bytes that one token of one layer takes in the cache.

        dtype   of the model's numbers. format: a key of `ops.formats.CACHE_FORMATS`.
        """
        return cache_format(format).num_bytes(num_kv_heads, head_size, value_size, dtype.itemsize)

    def view(
        self,
        place: CachePlace,
        num_kv_heads: int,
        head_size: int,
        value_size: int,
        dtype: torch.dtype,
        format: str = "plain",
    ) -> PlainCache:
        """Keys and values of one layer inside the slabs, in `dtype` or as codes.

        Raises ValueError if bytes are no multiple of the element's, or the part does not fit.
        """
        stored = cache_format(format)
        item = 4 if stored.has_scales else 1 if stored.kind != "plain" else dtype.itemsize
        slab_bytes = place.buffer.shape[1]
        numbers = place.block_size * num_kv_heads
        part = numbers * stored.num_bytes(1, head_size, value_size, dtype.itemsize)
        if slab_bytes % item or place.block_bytes % item or place.layer_offset % item:
            raise ValueError(
                f"slab of {slab_bytes} bytes, block of {place.block_bytes} and layer offset "
                f"{place.layer_offset}: each must be a multiple of {item} bytes"
            )
        if (
            place.layer_offset + part > place.block_bytes
            or place.blocks_per_slab * place.block_bytes > slab_bytes
        ):
            raise ValueError(
                f"a layer part of {part} bytes at {place.layer_offset} does not fit: blocks have "
                f"{place.block_bytes} bytes, {place.blocks_per_slab} in a slab of {slab_bytes}"
            )
        if stored.kind != "plain":
            dtype = code_dtype(stored)
        keys = _heads(place, dtype, num_kv_heads, head_size, 0)
        at = numbers * head_size * dtype.itemsize
        values = _heads(place, dtype, num_kv_heads, value_size, at)
        if not stored.has_scales:
            return PlainCache(keys, values, stored)
        at += numbers * value_size * dtype.itemsize
        scales = (
            _heads(place, torch.float32, num_kv_heads, 1, start).squeeze(-1)
            for start in (at, at + numbers * 4)
        )
        return PlainCache(keys, values, stored, *scales)


def _heads(
    place: CachePlace, dtype: torch.dtype, num_kv_heads: int, size: int, offset: int
) -> torch.Tensor:
    """[num_slabs, blocks_per_slab, S, K, size] from byte `offset` of the layer's part on."""
    item, flat = dtype.itemsize, place.buffer.view(dtype)
    num_slabs, slab_bytes = place.buffer.shape
    return flat.as_strided(
        (num_slabs, place.blocks_per_slab, place.block_size, num_kv_heads, size),
        (slab_bytes // item, place.block_bytes // item, num_kv_heads * size, size, 1),
        flat.storage_offset() + (place.layer_offset + offset) // item,
    )


def check_heads(num_heads: int, num_kv_heads: int) -> int:
    """Query heads for each kv head. Raises ValueError unless they divide."""
    if num_heads % num_kv_heads:
        raise ValueError(f"{num_heads} query heads are no multiple of {num_kv_heads} kv heads")
    return num_heads // num_kv_heads


def check_window(window: int | None, planned: int | None) -> None:
    """Raises ValueError if a run looks further back than its plan keeps blocks for."""
    if planned is not None and (window is None or window > planned):
        raise ValueError(f"attention over a window of {window} with a plan for {planned} tokens")


class PlainRows(PagedAttentionBase):
    """Plans that keep a step as it came, and writing into plain rows: what all references share."""

    name = "reference"

    def new_plan(
        self, *, block_size: int, blocks_per_slab: int, window: int | None, device: torch.device
    ) -> ReferencePlan:
        """An empty plan for a cache group."""
        return ReferencePlan(block_size, blocks_per_slab, window, device)

    def fill(self, plan: ReferencePlan, step: AttentionStep) -> None:
        """Takes over a step; its arrays are kept by reference."""
        plan.step = step

    def write(
        self,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: PlainCache,
        plan: ReferencePlan,
        *,
        inverses: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Stores the step's keys [T, K, D] and values [T, K, Dv] in their slots.

        A format of codes rounds them as `ops.cache_codes.encode` does.
        inverses  what keys and values are multiplied with before they become codes without scales.
        """
        where = plan.places(torch.from_numpy(plan.get_step().slot_mapping))
        for numbers, stored, scales, inverse in (
            (k, cache.keys, cache.key_scales, inverses[0]),
            (v, cache.values, cache.value_scales, inverses[1]),
        ):
            if not numbers.shape[-1]:
                continue  # keys without values
            if cache.format.kind == "plain":
                stored[where] = numbers.to(stored.dtype)
                continue
            codes, scale = encode(numbers, cache.format, inverse)
            stored.view(torch.uint8)[where] = codes.view(torch.uint8)
            if scales is not None:
                scales[where] = scale  # type: ignore[assignment]


@register
class PagedAttentionReference(PlainRows):
    """The definition: one sequence, one head, one tile of queries after the other."""

    query_rows = 16

    def run(
        self,
        q: torch.Tensor,
        cache: PlainCache,
        plan: ReferencePlan,
        *,
        scale: float,
        window: int | None = None,
        softcap: float = 0.0,
        sinks: torch.Tensor | None = None,
        slopes: torch.Tensor | None = None,
        biases: torch.Tensor | None = None,
        bidirectional: bool = False,
        chunked: bool = False,
        value_scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of each query over its own sequence's cached keys, causal unless `bidirectional`.

        q        [T, H, D], tokens of all sequences in plan order, their keys already written; the
                 i-th of n queries of a sequence stands at position seq_len - n + i.
        scale    factor on every score. softcap: cap * tanh(score / cap) after it; 0 is none.
        window   tokens looked back, counting the query itself; None is unlimited. Both ways if
                 `bidirectional`.
        chunked  the window does not move: a query sees the keys of its own stretch of `window` positions.
        sinks    [H] float32, a further score per head that takes weight and gives nothing.
        slopes   [H] float32: each key's score loses slope * |key position - query position|.
        biases   [H, 2 M + 1] float32: it gains the number at M + key position - query position, a distance
                 that counts as M or -M beyond these. Not beside slopes.
        Returns [T, H, Dv] in q's dtype: times value_scale, accumulated in float32, one rounding. Empty slots
        are never read into a result.
        Raises ValueError if H is no multiple of K, or the window is larger than the plan's.
        Source: arXiv 2309.06180 (paging), 2205.14135 (tiling with an online softmax), 2108.12409 (slopes),
        1910.10683 (biases).
        """
        step = plan.get_step()
        group = check_heads(q.shape[1], cache.keys.shape[3])
        check_window(window, plan.window)
        if out is None:
            out = q.new_empty(*q.shape[:2], cache.values.shape[-1])
        for row, seq_len in enumerate(step.seq_lens.tolist()):
            start, end = step.query_start[row : row + 2].tolist()
            keys, values = _sequence_tiles(cache, plan, step.block_table[row], seq_len)
            first = seq_len - (end - start)
            for head in range(q.shape[1]):
                for at in range(start, end, self.query_rows):
                    rows = q[at : min(at + self.query_rows, end), head].to(torch.float32)
                    tile = zeros(q, self.query_rows, q.shape[2])
                    tile[: rows.shape[0]] = rows
                    sink = None if sinks is None else sinks[head].to(torch.float32)
                    slope = 0.0 if slopes is None else float(slopes[head])
                    bias = None if biases is None else biases[head].to(torch.float32)
                    rule = Rule(scale, window, softcap, slope, bidirectional, chunked, bias)
                    position = first + at - start
                    tiles = keys[:, head // group], values[:, head // group]
                    result = attend(tile, position, *tiles, seq_len, rule, sink)
                    out[at : at + len(rows), head] = (result[: len(rows)] * value_scale).to(
                        out.dtype
                    )
        return out


def _sequence_tiles(
    cache: PlainCache, plan: ReferencePlan, blocks: npt.NDArray[np.int32], seq_len: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sequence's keys [tiles, K, 32, D] and values [tiles, K, 32, Dv] in float32.

    Zeros where the block is null or the position is not below seq_len.
    """
    num_tiles = -(-seq_len // TILE_TOKENS)
    tiles: list[torch.Tensor] = []
    for stored, scales in (
        (cache.keys, cache.key_scales),
        (cache.values, cache.value_scales),
    ):
        rows = zeros(stored, num_tiles * TILE_TOKENS, *stored.shape[3:])
        for start in range(0, seq_len, plan.block_size):
            block = int(blocks[start // plan.block_size])
            if block >= 0:
                end = min(start + plan.block_size, seq_len)
                where = (block // plan.blocks_per_slab, block % plan.blocks_per_slab)
                used = slice(0, end - start)
                rows[start:end] = decode(
                    stored[where][used], None if scales is None else scales[where][used]
                )
        tiles.append(
            rows.view(num_tiles, TILE_TOKENS, *stored.shape[3:]).transpose(1, 2).contiguous()
        )
    return tiles[0], tiles[1]
