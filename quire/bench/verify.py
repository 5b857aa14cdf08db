"""Compares a model with Transformers layer by layer: where they first differ, and by how much.

The two sides are `bench.verify_sides`; the command is `quire.cli.verify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quire.bench.verify_sides import Ours, States, Theirs


@dataclass(frozen=True)
class Line:
    """One comparison. largest: of the differences; relative: their length by that of the reference."""

    name: str
    largest: float
    relative: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All of them.

    lines   the embedding, layers in order, logits.
    ours, theirs  greedy ids. margin: by how much the reference prefers its own id where they part; 0 if never.
    """

    lines: tuple[Line, ...]
    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    margin: float
    tolerance: float

    @property
    def first(self) -> Line | None:
        """The first line beyond the tolerance."""
        return next((one for one in self.lines if not one.relative <= self.tolerance), None)

    @property
    def num_same(self) -> int:
        """Greedy ids before the first that differs."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return next((at for at, (one, other) in enumerate(pairs) if one != other), len(self.ours))

    @property
    def tokens_agree(self) -> bool:
        """Whether all ids are the same, or part where the reference has a near tie."""
        return self.margin <= 2 * self.lines[-1].largest

    @property
    def is_same(self) -> bool:
        return self.first is None and self.tokens_agree


def compare(
    ours: Ours, theirs: Theirs, ids: Sequence[int], *, num_tokens: int, tolerance: float
) -> Comparison:
    """Both sides over the same prompt, then `num_tokens` greedy ids of each."""
    one, other = ours.states(list(ids)), theirs.states(list(ids))
    lines = [*_layer_lines(one, other), _line("logits", one.logits, other.logits)]
    mine, wanted, margin = _greedy(ours, theirs, list(ids), num_tokens)
    return Comparison(
        lines=tuple(lines), ours=mine, theirs=wanted, margin=margin, tolerance=tolerance
    )


def _layer_lines(one: States, other: States) -> list[Line]:
    if not one.layers:  # only the logits of one side are seen
        return []
    each = max(1, len(one.layers) // max(1, len(other.layers)))  # of ours that are one of theirs
    return [
        _line(name, mine, wanted)
        for mine, (name, wanted) in zip(
            one.layers[each - 1 :: each], other.named_layers, strict=True
        )
    ]


def _line(name: str, mine: torch.Tensor, wanted: torch.Tensor) -> Line:
    """Of two [T, n] float32."""
    width = min(mine.shape[-1], wanted.shape[-1])  # a vocabulary may be padded
    apart = (mine[:, :width] - wanted[:, :width]).double()
    length = wanted.double().norm().item()
    relative = apart.norm().item() / length if length else apart.norm().item()
    return Line(name, apart.abs().max().item(), relative)


def _greedy(
    ours: Ours, theirs: Theirs, ids: list[int], num_tokens: int
) -> tuple[tuple[int, ...], tuple[int, ...], float]:
    """Greedy ids of both after one prompt; both go on from the reference's, so that each place counts."""
    mine: list[int] = []
    wanted: list[int] = []
    margin = 0.0
    for _ in range(num_tokens):
        row = theirs.states(ids + wanted).logits[-1]
        best = int(row.argmax())
        own = int(ours.states(ids + wanted).logits[-1].argmax())
        if own != best:
            margin = max(margin, float(row[best] - row[own]))
        mine.append(own)
        wanted.append(best)
    return tuple(mine), tuple(wanted), margin
