"""What a layer sees of a step: packed tokens, attention plans, cache views, scratch memory.

Made by `worker.batch` once per step; nothing here knows requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from quire.ops.arena import Arena


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """The tokens of a step that are read behind the last layer, where they are few; each sequence's are its last.

    rows     [R] int64, packed tokens in order.
    context  the step as if it were these tokens; of its plans only the last layer's is for them.
    """

    rows: torch.Tensor
    context: ForwardContext


@dataclass(kw_only=True)
class ForwardContext:
    """One step's inputs of the decoder. The tensors are worker buffers whose addresses do not move.

    ids          [T] int64, packed tokens of all rows in plan order.
    positions    [P, T] int64, P = 1 (3 for M-RoPE).
    plans        by cache group: what the provider of attention made of the step, or a StatePlan.
    caches       by number of the mixer, which is its layer's where each has one: the provider's view of
                 its blocks, or a StateView for each of its states.
    group_of     by number of the mixer: its cache group.
    types        [T] int64, token types, for models that have them.
    layer_inputs [T, L, P]: numbers of its own for every layer, of models that have them.
    kept         by layer: the residual stream [T, C] that came into it, where a later layer blends it in.
    shortcut     [T, C]: what one layer's experts made that the next layer adds, of models that have such.
    picks        [T, k] int32: positions of the cached tokens that each token sees, of models that choose
                 them; layers write it and read it, as in `ops.picks`.
    embedded     [T, C] what the first layer starts from, of models whose layers read that too.
    read         the tokens for which alone the last layer must run; None is all.
    embeds       [E, C] rows that replace embeddings at token rows `embed_rows` [E]; None if there
                 are none.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    plans: list[Any]
    caches: list[Any]
    group_of: list[int | None]
    arena: Arena
    types: torch.Tensor | None = None
    embeds: torch.Tensor | None = None
    embed_rows: torch.Tensor | None = None
    layer_inputs: torch.Tensor | None = None
    kept: dict[int, torch.Tensor] = field(default_factory=dict)
    shortcut: torch.Tensor | None = None
    picks: torch.Tensor | None = None
    embedded: torch.Tensor | None = None
    read: ReadRows | None = None

    def cached(self, number: int) -> tuple[Any, Any]:
        """The view of the cache that the mixer of a number has, and the plan of its group."""
        group = self.group_of[number]
        assert group is not None, f"mixer {number} caches nothing"
        return self.caches[number], self.plans[group]

    @property
    def num_tokens(self) -> int:
        return self.ids.shape[0]
