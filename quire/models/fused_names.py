"""A weight map for checkpoints whose neighbouring parts are one tensor, as vLLM saves and names them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quire.models.names import Rule, WeightMap

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Names of tensors one under the other, and of their parts."""


def for_fused_names(weight_map: WeightMap, names: Iterable[str]) -> WeightMap:
    """The map for a checkpoint with these tensors: itself, unless some are such and the map has their parts."""
    names = set(names)
    fused: list[Rule] = []
    gone: set[str] = set()
    by_source = {rule.source: rule for rule in weight_map.rules}
    for whole, parts in FUSED.items():
        if not any(f".{whole}." in name for name in names):
            continue
        for source, rule in by_source.items():
            stem, _, kind = source.partition(f".{parts[0]}.")
            if f"{stem}.{whole}.{kind}" in by_source:
                continue  # the map says itself what that tensor is
            rules = [by_source.get(f"{stem}.{part}.{kind}") for part in parts]
            places = tuple(range(len(parts)))
            if [one and (one.target, one.parts, one.fold) for one in rules] != [
                (rule.target, (place,), "none") for place in places
            ]:
                continue
            gone |= {one.source for one in rules if one is not None}
            fused.append(replace(rule, source=f"{stem}.{whole}.{kind}", parts=places))
    return weight_map.without_source(*gone).with_rules(*fused) if fused else weight_map
