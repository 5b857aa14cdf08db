"""What the registry knows, as rows for people: `quire models` and docs/models.md.

All of it is read off the weight maps, which say what an architecture can have; what one checkpoint has is
in its description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.models.family import Architecture
from quire.models.registry import ALIASES, ARCHITECTURES

_PARTS = {
    "mixer.kv_down.weight": "latent attention",
    "mixer.indexer.q.weight": "picked tokens",
    "mixer.compress.weight": "compressed sparse attention",
    "around_mixer.weight": "hyper-connections",
    "mixer.sinks": "sinks",
    "mixer.halves": "pairs of heads",
    "mixer.latent_norm.weight": "queries through few numbers",
    "mixer.mixed_norm.weight": "norms inside the parts",
    "mixer.q_norm.weight": "norms of q and k",
    "feed_forward.router.weight": "experts",
    "feed_forward.shared.down.weight": "shared experts",
    "cross.q.weight": "an encoder that layers look at",
    "mixer.distances": "learned scores of distances",
    "positions.weight": "learned positions",
    "embedding_norm.weight": "norm of the embedding",
    "before_head.weight": "a product before the head",
    "head.bias": "bias of the head",
}
"""Parameters that only some architectures have, and what they are."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One architecture.

    family   the file in `models.architectures`.
    parts    what its checkpoints may have beyond attention, a feed-forward part and norms.
    also     other names in config.json that mean the same.
    """

    name: str
    family: str
    parts: tuple[str, ...]
    also: tuple[str, ...]


def rows() -> list[Row]:
    """Every architecture of the registry, sorted by family and name."""
    found = [
        Row(
            name=name,
            family=_family(architecture),
            parts=_parts(architecture),
            also=tuple(sorted(alias for alias, known in ALIASES.items() if known == name)),
        )
        for name, architecture in ARCHITECTURES.items()
    ]
    return sorted(found, key=lambda row: (row.family, row.name))


def _family(architecture: Architecture) -> str:
    return architecture.describe.__module__.rpartition(".")[2]


def _parts(architecture: Architecture) -> tuple[str, ...]:
    targets = {re.sub(r"^layers\.\{layer\}\.", "", it.target) for it in architecture.names.rules}
    return tuple(what for target, what in _PARTS.items() if target in targets)
