"""Paged attention as batched products of constant inner shapes, over many sequences at once.

Definition and rules are in `ops.attention`; what is multiplied with what is laid out in
`vendor.attention_plan`. A batched product [n, R, D] x [n, D, 32] in float32 gives each of the n and
each row bits that depend on itself only, which plain and bf16 products do not.
"""

from __future__ import annotations

import torch

from quire.ops.attention import (
    AttentionStep,
    PagedAttentionBase,
    PlainCache,
    check_heads,
    check_window,
)
from quire.ops.attention_tiles import LOWEST, TILE_TOKENS
from quire.ops.registry import Signature, register
from quire.ops.vendor.attention_plan import Group, Heads, TorchPlan

_DTYPES = ("float32", "bfloat16", "float16")


@register
class PagedAttentionTorch(PagedAttentionBase):
    name = "torch"

    def accepts(self, signature: Signature) -> str | None:
        if signature.device != "cpu":
            return f"its rows were shown to be independent on cpu only, not on {signature.device}"
        if signature.format != "plain":
            return f"it reads a plain cache only, not {signature.format}"
        if signature.sizes.get("bidirectional"):
            return "it computes causal attention only"
        if signature.sizes.get("biased"):
            return "it knows no biases of distances"
        if signature.sizes.get("chunked"):
            return "its windows move with the query; they cannot stand in stretches"
        if signature.dtype not in _DTYPES:
            return f"it knows {', '.join(_DTYPES)}, not {signature.dtype}"
        return None

    def new_plan(
        self, *, block_size: int, blocks_per_slab: int, window: int | None, device: torch.device
    ) -> TorchPlan:
        """An empty plan for a cache group."""
        return TorchPlan(block_size, blocks_per_slab, window, device)

    def fill(self, plan: TorchPlan, step: AttentionStep) -> None:
        """Takes over a step; its arrays are kept by reference."""
        plan.fill(step)

    def write(self, k: torch.Tensor, v: torch.Tensor, cache: PlainCache, plan: TorchPlan) -> None:
        """Stores the step's keys [T, K, D] and values [T, K, Dv] in their slots."""
        if plan.slots is None:
            raise ValueError("an attention plan is used before it was filled")
        cache.keys[plan.slots] = k.to(cache.keys.dtype)
        cache.values[plan.slots] = v.to(cache.values.dtype)

    def run(
        self,
        q: torch.Tensor,
        cache: PlainCache,
        plan: TorchPlan,
        *,
        scale: float,
        window: int | None = None,
        softcap: float = 0.0,
        sinks: torch.Tensor | None = None,
        slopes: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the reference: q [T, H, D] to [T, H, Dv] in q's dtype, accumulated in float32."""
        num_tokens, num_heads, head_size = q.shape
        num_kv_heads, value_size = cache.values.shape[3:]
        group = check_heads(num_heads, num_kv_heads)
        check_window(window, plan.window)
        if out is None:
            out = q.new_empty(num_tokens, num_heads, value_size)
        heads = Heads(num_heads, num_kv_heads, head_size, value_size)
        layout = plan.layout(heads)
        used = heads.queries * group
        lead = (layout.num_pairs, num_kv_heads, heads.rows)
        spread = (layout.num_pairs, num_kv_heads, heads.queries, group)
        queries = torch.zeros((*lead, head_size), dtype=torch.float32)  # [P, K, R, D]
        at = (layout.pair, slice(None), layout.place)
        queries[:, :, :used].view(*spread, head_size)[at] = q.reshape(
            num_tokens, num_kv_heads, group, head_size
        ).to(torch.float32)
        total = _Softmax.empty((*lead, value_size))
        per_row = None
        if slopes is not None:
            per_row = torch.zeros((num_kv_heads, heads.rows, 1), dtype=torch.float32)
            per_row[:, :used].view(num_kv_heads, heads.queries, group).copy_(
                slopes.to(torch.float32).view(num_kv_heads, 1, group)
            )
        for items in layout.groups:
            state = _attend(queries[items.pairs], cache, items, scale, window, softcap, per_row)
            total.take_in(state, items)
        if sinks is not None:
            per_head = sinks.to(torch.float32).view(1, num_kv_heads, 1, group)
            sink = torch.zeros((*lead, 1), dtype=torch.float32)
            sink[:, :, :used].view(spread).copy_(per_head)
            total.take_sink(sink)
        total.values.div_(total.weight)
        result = total.values[:, :, :used].view(*spread, value_size)[at]  # [T, K, H / K, Dv]
        out.view(num_tokens, num_kv_heads, group, value_size).copy_(result)
        return out


class _Softmax:
    """Online softmax states of many rows: peak and weight [..., R, 1], values [..., R, Dv]."""

    def __init__(self, peak: torch.Tensor, weight: torch.Tensor, values: torch.Tensor) -> None:
        self.peak = peak
        self.weight = weight
        self.values = values

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> _Softmax:
        """States before any key, `shape` that of the values."""
        column = (*shape[:-1], 1)
        return cls(
            torch.full(column, LOWEST, dtype=torch.float32),
            torch.zeros(column, dtype=torch.float32),
            torch.zeros(shape, dtype=torch.float32),
        )

    def take_in(self, other: _Softmax, group: Group) -> None:
        """Merges a group's states into their pairs, segment after segment."""
        for part in group.parts:
            peak, weight, values = (
                tensor.index_select(0, part.chosen)
                for tensor in (other.peak, other.weight, other.values)
            )
            if not part.is_first:
                before = self.peak.index_select(0, part.pairs)
                joint = torch.maximum(before, peak)
                keep, add = torch.exp(before - joint), torch.exp(peak - joint)
                weight = self.weight.index_select(0, part.pairs) * keep + weight * add
                values = self.values.index_select(0, part.pairs) * keep + values * add
                peak = joint
            self.peak.index_copy_(0, part.pairs, peak)
            self.weight.index_copy_(0, part.pairs, weight)
            self.values.index_copy_(0, part.pairs, values)

    def take_sink(self, score: torch.Tensor) -> None:
        """Adds the weight of a score [..., R, 1] that has no value."""
        peak = torch.maximum(self.peak, score)
        keep = torch.exp(self.peak - peak)
        self.weight = self.weight * keep + torch.exp(score - peak)
        self.values = self.values * keep
        self.peak = peak


def _gather(stored: torch.Tensor, group: Group) -> torch.Tensor:
    """A group's tiles [U, K, 32, D] in float32, zeros where no token was written."""
    found = stored[group.slab, group.place, group.slot]  # [U, 32, K, D]
    if group.absent.numel():
        found.view(-1, *found.shape[2:]).index_fill_(0, group.absent, 0)
    tiles = torch.empty(
        found.shape[0], found.shape[2], TILE_TOKENS, found.shape[3], dtype=torch.float32
    )
    return tiles.copy_(found.transpose(1, 2))


def _take(tiles: torch.Tensor, chosen: slice | torch.Tensor) -> torch.Tensor:
    """The tiles of one step: a view of neighbours, or a copy."""
    return tiles[chosen] if isinstance(chosen, slice) else tiles.index_select(0, chosen)


def _attend(
    queries: torch.Tensor,
    cache: PlainCache,
    group: Group,
    scale: float,
    window: int | None,
    softcap: float,
    slopes: torch.Tensor | None,
) -> _Softmax:
    """The state of each item [n, K, R] after its segment's tiles; queries [n, K, R, D], slopes [K, R, 1]."""
    num_items, num_kv_heads, num_rows, head_size = queries.shape
    keys, values = _gather(cache.keys, group), _gather(cache.values, group)
    value_size = values.shape[-1]
    state = _Softmax.empty((num_items, num_kv_heads, num_rows, value_size))
    flat = queries.view(-1, num_rows, head_size)
    offsets = torch.arange(TILE_TOKENS)
    for k, (active, masked, chosen) in enumerate(zip(group.active, group.masked, group.tiles)):
        batch = active * num_kv_heads
        tile_keys = _take(keys, chosen).view(batch, TILE_TOKENS, head_size)
        tile_values = _take(values, chosen).view(batch, TILE_TOKENS, value_size)
        scores = torch.bmm(flat[:batch], tile_keys.transpose(1, 2)).mul_(scale)  # [nK, R, 32]
        if softcap:
            scores.div_(softcap).tanh_().mul_(softcap)
        scores = scores.view(active, num_kv_heads, num_rows, TILE_TOKENS)
        if slopes is not None:
            key = (group.base[:active, None] + (k * TILE_TOKENS + offsets)).unsqueeze(1)
            distance = key - group.last_seen[:active].unsqueeze(2)  # [n, R, 32]
            scores += slopes * distance.to(torch.float32).unsqueeze(1)
        if masked < active:
            key = (group.base[masked:active, None] + (k * TILE_TOKENS + offsets)).unsqueeze(1)
            query = group.last_seen[masked:active].unsqueeze(2)  # [x, R, 1]
            hidden = key > query
            if window is not None:
                hidden |= key <= query - window
            scores[masked:].masked_fill_(hidden.unsqueeze(1), float("-inf"))
        before = state.peak[:active]
        peak = torch.maximum(before, scores.amax(dim=-1, keepdim=True))
        keep = torch.exp(before - peak)
        weights = scores.sub_(peak).exp_()
        state.weight[:active].mul_(keep).add_(weights.sum(dim=-1, keepdim=True))
        added = torch.bmm(weights.view(batch, num_rows, TILE_TOKENS), tile_values)
        state.values[:active].mul_(keep).add_(added.view(active, *state.values.shape[1:]))
        before.copy_(peak)
    return state
