"""What a row of the table of GGUF's families says.

The rows are in `gguf.families` and `gguf.families_classic`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quire.models.names import Rule


@dataclass(frozen=True)
class Family:
    """What one `general.architecture` is elsewhere.

    architecture  its name in config.json; with_experts  that of files with experts.
    model_type    as in config.json; "" is the file's own name.
    keys          config.json's keys by the file's, beside those that all have.
    renamed       config.json's keys for those that all have; "" leaves one out.
    constants     keys of config.json that the file leaves out.
    flags         keys of config.json that say whether the layers have a tensor.
    eps           config.json's key for what norms add to the square; "" for none.
    names         of tensors of layers, over the common ones, with their kind where that differs; "" leaves one out.
    top           of the other tensors, likewise; "cls" and so on are a head of classes.
    layers        the start of the names of layers.
    in_pairs      the rows of q and k are kept as pairs that turn together, see `gguf.names`.
    norms_whole   norms are kept as what is multiplied with, where elsewhere they lack 1.
    parts_in_rows a fused weight of q, k and v is their rows one after the other, where elsewhere heads take turns.
    turned        matrices are [out, in], where elsewhere they are [in, out].
    with_two_norms  names over the others' in files that have a second norm before attention.
    flat          layers' tensors, without their kind, that are lists of numbers elsewhere whatever their axes here.
    in_middle     those that have an axis of one in the middle elsewhere.
    instead       of rules of the weight map: rules for tensors that are kept in other parts here.
    with_gates    names over the others' in files whose encoder has gates.
    sides         the starts of names of layers of an encoder ("enc.") and a decoder ("dec."), whose names in `names`
                  begin so too.
    settings      of the file, one number for each layer, by names of layers' tensors that they are elsewhere, with
                  the shapes of those.
    left_out      parameters that files leave out, biases that are then zeros.
    split_experts gate and up of experts are apart, and each expert's own, where elsewhere they are one tensor.
    """

    architecture: str
    with_experts: str | None = None
    model_type: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    eps: str = "rms_norm_eps"
    names: Mapping[str, str] = field(default_factory=dict)
    top: Mapping[str, str] = field(default_factory=dict)
    layers: str = "model.layers"
    in_pairs: bool = False
    norms_whole: bool = False
    head_dim: bool = True
    parts_in_rows: bool = False
    turned: bool = False
    split_experts: bool = False
    flat: tuple[str, ...] = ()
    in_middle: tuple[str, ...] = ()
    instead: tuple[Rule, ...] = ()
    left_out: tuple[str, ...] = ()
    sides: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    with_two_norms: Mapping[str, str] = field(default_factory=dict)
    with_gates: Mapping[str, str] = field(default_factory=dict)
