"""What attention of query rows over the keys of one sequence is: tiles, segments, and how they are merged.

Where keys and values are stored is `ops.attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

TILE_TOKENS = 32
"""Keys of one tile; tile t of a sequence holds positions 32 t to 32 t + 31."""
SEGMENT_TOKENS = 1024
"""Keys of one segment; part of what fixes the bits of a result."""
LOWEST = -1e30
"""Where a running maximum starts: finite, so that a tile without a visible key changes nothing."""


@dataclass(frozen=True)
class Rule:
    """How a score is made, and which keys a row may see; fields as in `PagedAttentionReference.run`.

    biases  of one head [2 M + 1].
    """

    scale: float
    window: int | None
    softcap: float
    slope: float
    bidirectional: bool
    chunked: bool
    biases: torch.Tensor | None = None


State = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""An online softmax: peak [R, 1], sum of weights [R, 1], weighted sum of values [R, Dv]."""


def attend(
    q: torch.Tensor,
    position: int,
    keys: torch.Tensor,
    values: torch.Tensor,
    num_keys: int,
    rule: Rule,
    sink: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of query rows [R, D] from `position` on over the keys in tiles [tiles, 32, D]; [R, Dv]."""
    total = _start(q, values)
    tiles_per_segment = SEGMENT_TOKENS // TILE_TOKENS
    for first in range(0, keys.shape[0], tiles_per_segment):
        state = _start(q, values)
        for tile in range(first, min(first + tiles_per_segment, keys.shape[0])):
            scores = torch.mm(q, keys[tile].t()) * rule.scale  # [R, 32]
            if rule.softcap:
                scores = torch.tanh(scores / rule.softcap) * rule.softcap
            if rule.slope:
                scores = scores - rule.slope * _distance(q, position, tile).abs()
            if rule.biases is not None:
                farthest = rule.biases.shape[0] // 2
                distance = _distance(q, position, tile).to(torch.int64)
                scores = scores + rule.biases[distance.clamp(-farthest, farthest) + farthest]
            scores = scores.masked_fill(_hidden(q, position, tile, num_keys, rule), float("-inf"))
            peak = torch.maximum(state[0], scores.amax(dim=-1, keepdim=True))
            keep = torch.exp(state[0] - peak)
            weights = torch.exp(scores - peak)
            weight = state[1] * keep + weights.sum(dim=-1, keepdim=True)
            state = (peak, weight, state[2] * keep + torch.mm(weights, values[tile]))
        total = _merge(total, state)
    if sink is not None:
        total = _merge(
            total, (sink.expand_as(total[0]), torch.ones_like(total[1]), torch.zeros_like(total[2]))
        )
    return total[2] / total[1]


def _distance(q: torch.Tensor, position: int, tile: int) -> torch.Tensor:
    """[R, 32] float32: key position - query position."""
    rows = position + torch.arange(q.shape[0], device=q.device).unsqueeze(1)
    keys = tile * TILE_TOKENS + torch.arange(TILE_TOKENS, device=q.device)
    return (keys - rows).to(torch.float32)


def zeros(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Of this shape, float32, where `like` is."""
    return torch.zeros(shape, dtype=torch.float32, device=like.device)


def _start(q: torch.Tensor, values: torch.Tensor) -> State:
    """The state before any key."""
    weight = zeros(q, q.shape[0], 1)
    return weight + LOWEST, weight, zeros(q, q.shape[0], values.shape[-1])


def _hidden(q: torch.Tensor, position: int, tile: int, num_keys: int, rule: Rule) -> torch.Tensor:
    """[R, 32] bool: the keys of a tile that a row may not see."""
    rows = torch.arange(position, position + q.shape[0], device=q.device).unsqueeze(1)
    keys = torch.arange(tile * TILE_TOKENS, (tile + 1) * TILE_TOKENS, device=q.device)
    hidden = keys >= num_keys if rule.bidirectional else keys > rows
    if rule.window is None:
        return hidden
    if rule.chunked:
        return hidden | (keys < rows // rule.window * rule.window)
    distance = (rows - keys).abs() if rule.bidirectional else rows - keys
    return hidden | (distance >= rule.window)


def _merge(a: State, b: State) -> State:
    """Joins two softmax states; a state without keys changes nothing."""
    peak = torch.maximum(a[0], b[0])
    keep_a, keep_b = torch.exp(a[0] - peak), torch.exp(b[0] - peak)
    return peak, a[1] * keep_a + b[1] * keep_b, a[2] * keep_a + b[2] * keep_b
