"""The tensors of a GGUF file's folder: what they are called elsewhere, and their bytes.

Making the folder is `gguf.folder`'s; no number is decoded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quire.models.fold import Fold
from quire.models.loading.gguf.config import family_of
from quire.models.loading.gguf.folder import LINK
from quire.models.loading.gguf.header import GgufHeader, read_all
from quire.models.loading.gguf.names import stored_tensors
from quire.models.names import Rule, WeightMap
from quire.protocol.errors import ModelLoadError
from quire.quant.schemes.gguf import FLOATS
from quire.quant.stored import StoredTensor


def read_gguf(
    folder: Path, config: Mapping[str, Any]
) -> tuple[GgufHeader, dict[str, StoredTensor]]:
    """The header of the folder's file, and all of its tensors by their names elsewhere.

    Raises ModelLoadError for a damaged file or one that is not there any more.
    """
    link = folder / LINK
    if not link.is_symlink() or not link.is_file():
        raise ModelLoadError(f"{folder} has no {LINK}, or the file that it stood for is gone")
    header = read_all(link.readlink())
    heads = (config.get("num_attention_heads", 1), config.get("num_key_value_heads", 1))
    names = config.get("architectures") or [""]
    return header, stored_tensors(header, family_of(header), str(names[0]), heads)


def adapted(weight_map: WeightMap, header: GgufHeader) -> WeightMap:
    """A weight map for the file, whose numbers are elsewhere kept in other orders and forms.

    What is -e^w elsewhere is that number here, and what is e^w is minus it.
    """
    family = family_of(header)
    folds: dict[Fold, Fold] = {"minus_exp": "none", "exp": "minus"}
    folds |= {"add_one": "none"} if family.norms_whole else {}
    folds |= {"gather_heads": "none"} if family.parts_in_rows else {}
    others = {rule.target for rule in family.instead} | set(family.left_out)
    rules = [
        replace(
            rule,
            fold=folds.get(rule.fold, rule.fold),
            transpose=rule.transpose and not family.turned,
        )
        for rule in weight_map.rules
        if rule.target not in others
    ]
    adapted_map = replace(
        weight_map, rules=(*rules, *family.instead), ones=(*weight_map.ones, *family.left_out)
    )
    if not family.split_experts:
        return adapted_map
    theirs = f"{family.layers}.{{layer}}.experts.{{expert}}"
    ours = "layers.{layer}.feed_forward.experts.{expert}"
    split = [
        Rule(f"{theirs}.{part}_proj.{kind}", f"{ours}.{target}.{kind}", parts=parts)
        for part, target, parts in (
            ("gate", "gate_up", (0,)),
            ("up", "gate_up", (1,)),
            ("down", "down", (0,)),
        )
        for kind in ("weight", "bias")
    ]
    return adapted_map.without(f"{ours}.gate_up", f"{ours}.down").with_rules(*split)


def float_dtype(header: GgufHeader) -> str:
    """The type of the file's matrices if they are floats, else bfloat16."""
    kinds = [tensor.kind.name for tensor in header.tensors.values() if len(tensor.shape) > 1]
    common = max(set(kinds), key=kinds.count, default="F32")
    return FLOATS.get(common, "bfloat16")
