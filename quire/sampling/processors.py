"""Logits processors of the operator's own: keeps them told of the batch, and calls them at their place.

Those that may change the best id act after bans and before penalties, the others after the temperature.
The interface is `protocol.logits_processors`; without any processor nothing here is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from quire.config.plugins import PluginConfig, processor_classes
from quire.config.schema import Settings
from quire.protocol.logits_processors import BatchUpdate, LogitsProcessor, MoveDirectionality
from quire.sampling.row import SampleRow

Move = tuple[int, int, MoveDirectionality]


def make_processors(settings: Settings, device: torch.device) -> Processors | None:
    """The processors that the settings and the installation name; None if there are none."""
    classes = processor_classes(settings.model.logits_processors)
    if not classes:
        return None
    config = PluginConfig.of(settings)
    return Processors([one(config, device, False) for one in classes])


class Processors:
    """All processors of one sampler, and the order of rows that they know.

    A sequence that does not sample in a step is removed, and added again with its output so far.
    """

    def __init__(self, processors: Sequence[LogitsProcessor]) -> None:
        self._all = tuple(processors)
        invariant = [bool(one.is_argmax_invariant()) for one in self._all]
        self._early = [one for one, late in zip(self._all, invariant) if not late]
        self._late = [one for one, late in zip(self._all, invariant) if late]
        self._rows: list[SampleRow] = []
        self._outputs: list[list[int]] = []

    @property
    def has_late(self) -> bool:
        """Whether any acts after the temperature."""
        return bool(self._late)

    def update(self, rows: list[SampleRow]) -> None:
        """Tells every processor how the batch has changed; rows[i] is row i of the logits to come."""
        change = self._follow(rows)
        for row, output in zip(rows, self._outputs, strict=True):
            output.extend(row.output_ids[len(output) :].tolist())
        for processor in self._all:
            processor.update_state(change)

    def apply_early(self, logits: torch.Tensor) -> None:
        """In place: what may change the best id. logits [B, V]."""
        _apply(self._early, logits)

    def apply_late(self, logits: torch.Tensor) -> None:
        """In place, after the temperature: what leaves the best id as it is. logits [B, V]."""
        _apply(self._late, logits)

    def _follow(self, rows: list[SampleRow]) -> BatchUpdate | None:
        """Brings the own order to that of `rows`; None if it is so already."""
        if len(rows) == len(self._rows) and all(a is b for a, b in zip(rows, self._rows)):
            return None
        wanted = {id(row) for row in rows}
        places: list[int | None] = [id(row) if id(row) in wanted else None for row in self._rows]
        outputs = {id(row): output for row, output in zip(self._rows, self._outputs)}
        removed = [place for place, one in enumerate(places) if one is None]
        known = {one for one in places if one is not None}
        new = [row for row in rows if id(row) not in known]
        added = []
        free = itertools.chain(removed, itertools.count(len(places)))  # the lowest first
        for row, place in zip(new, free):
            outputs[id(row)] = row.output_ids.tolist()
            prompt = None if row.has_embeds else row.prompt_ids.tolist()
            added.append((place, row.params, prompt, outputs[id(row)]))
            if place == len(places):
                places.append(id(row))
            else:
                places[place] = id(row)
        moved = _closed(places) + _sorted(places, [id(row) for row in rows])
        self._rows, self._outputs = list(rows), [outputs[id(row)] for row in rows]
        return BatchUpdate(batch_size=len(rows), removed=removed, added=added, moved=moved)


def _closed(places: list[int | None]) -> list[Move]:
    """Moves the highest row down into each hole, until there is none; cuts `places`."""
    moves: list[Move] = []
    while None in places:
        if places[-1] is not None:
            hole = places.index(None)
            places[hole] = places[-1]
            moves.append((len(places) - 1, hole, MoveDirectionality.UNIDIRECTIONAL))
        places.pop()
    return moves


def _sorted(places: list[int | None], wanted: list[int]) -> list[Move]:
    """Swaps rows until they are in the wanted order; `places` holds the same rows."""
    at = {one: place for place, one in enumerate(places)}
    moves: list[Move] = []
    for place, one in enumerate(wanted):
        source, other = at[one], places[place]
        if source != place:
            moves.append((source, place, MoveDirectionality.SWAP))
            places[place], places[source] = one, other
            at[one], at[other] = place, source
    return moves


def _apply(processors: list[LogitsProcessor], logits: torch.Tensor) -> None:
    for processor in processors:
        changed = processor.apply(logits)
        if changed is logits:
            continue
        if not isinstance(changed, torch.Tensor) or changed.shape != logits.shape:
            raise ValueError(
                f"{type(processor).__name__}.apply gave {getattr(changed, 'shape', type(changed).__name__)}; it must "
                f"give logits of shape {tuple(logits.shape)}"
            )
        logits.copy_(changed)
