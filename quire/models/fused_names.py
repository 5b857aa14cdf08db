"""A weight map for checkpoints whose neighbouring parts are one tensor, as vLLM saves and names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quire.models.names import Rule, WeightMap

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Names of tensors one under the other, and of their parts."""
_EXPERTS = ".experts"
_GATE = f"{_EXPERTS}.{{expert}}.gate_proj.weight"


def for_fused_names(weight_map: WeightMap, shapes: Mapping[str, tuple[int, ...]]) -> WeightMap:
    """The map for a checkpoint with these tensors: itself, unless some are such and the map has their parts."""
    names = set(shapes)
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
    if fused:
        weight_map = weight_map.without_source(*gone).with_rules(*fused)
    return _with_stacked_experts(weight_map, shapes)


def _with_stacked_experts(
    weight_map: WeightMap, shapes: Mapping[str, tuple[int, ...]]
) -> WeightMap:
    """The map where a layer's experts are two tensors, gate and up in one, as Transformers has them in memory.

    Which way their matrices stand is seen by their sizes: one has twice as many rows, or columns, as the other not.
    """
    whole = f"{_EXPERTS}.gate_up_proj"
    found = {rule.source: rule for rule in weight_map.rules}
    places = [source.partition(_GATE)[0] for source in found if source.endswith(_GATE)]
    first = next((name for name in shapes if name.endswith(whole)), "")
    sizes = shapes.get(first, ()), shapes.get(first.replace(whole, f"{_EXPERTS}.down_proj"), ())
    if [len(size) for size in sizes] != [3, 3]:
        return weight_map
    transpose = sizes[0][1] == sizes[1][2] and sizes[0][2] == 2 * sizes[1][1]
    for place in places:
        gate, up, down = (
            f"{place}{_EXPERTS}.{{expert}}.{name}_proj.weight" for name in ("gate", "up", "down")
        )
        if up in found and down in found and f"{place}{whole}" not in found:
            weight_map = weight_map.without_source(gate, up, down).with_rules(
                Rule(f"{place}{whole}", found[gate].target, (0, 1), transpose),
                Rule(f"{place}{_EXPERTS}.down_proj", found[down].target, transpose=transpose),
            )
    return weight_map
