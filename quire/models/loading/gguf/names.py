"""Tensors of a GGUF file under the names, shapes and orders that they have in safetensors files.

What their blocks become is `quant.schemes.gguf`'s; which settings they come with is `gguf.config`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import cast

from quire.models.loading.gguf.family import Family
from quire.models.loading.gguf.header import BlockTensor, GgufHeader
from quire.protocol.errors import ModelLoadError
from quire.quant.stored import StoredTensor

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
    "ffn_gate_exps": "mlp.experts.{expert}.gate_proj",
    "ffn_up_exps": "mlp.experts.{expert}.up_proj",
    "ffn_down_exps": "mlp.experts.{expert}.down_proj",
}
_LEFT_OUT = ("rope_freqs", "rope_factors_short", "rope_factors_long", "dense_2", "dense_3")
"""Read with the settings; the last two with how a file pools."""
_NAME = re.compile(r"(?:(enc|dec)\.)?blk\.(\d+)\.([\w.]+?)(?:\.(weight|bias))?")
_KEYS, _VALUES = "attn_k_b", "attn_v_b"
"""What makes keys, and values, of a latent: elsewhere one tensor, in which each head has rows of both."""
_SCALES = (".scale", ".input_scale")
"""Ends of the names of what all numbers of a tensor of NVFP4 are multiplied with, and of its inputs' scale."""


def stored_tensors(
    header: GgufHeader, family: Family, architecture: str, heads: tuple[int, int]
) -> dict[str, StoredTensor]:
    """Every tensor by its name elsewhere.

    architecture  as in config.json. heads  of queries, and of keys.
    Raises ModelLoadError for a type of blocks that is not read, or a tensor that is not known.
    """
    names, top = {**_LAYER, **family.names}, {**_TOP, **family.top}
    if "blk.0.attn_norm_2.weight" in header.tensors:
        names |= family.with_two_norms
    if "enc.blk.0.ffn_gate.weight" in header.tensors:
        names |= family.with_gates
    found = _from_settings(header, family)
    drafts = _drafts(header)
    for source, tensor in header.tensors.items():
        if source.startswith(drafts):
            continue
        stem, _, kind = source.rpartition(".")
        match = _NAME.fullmatch(source)
        is_own = match is not None and not match[4] and match[3] in names
        is_scale = source.endswith(_SCALES) and f"{stem}.weight" in header.tensors
        if stem in _LEFT_OUT or (is_scale and not is_own):
            continue
        if match is None and stem in top:
            found |= _spread(f"{top[stem]}.{kind}", source, tensor, {})
            continue
        if match is not None and match[3] in (_KEYS, _VALUES):
            if match[3] == _KEYS:
                found[f"{family.layers}.{match[2]}.{names[_KEYS]}.weight"] = _latent(header, source)
            continue
        side = f"{match[1]}." if match is not None and match[1] else ""
        layers = family.sides.get(side, family.layers)
        target = _target(f"{side}{match[3]}", match[4] or "", names) if match is not None else None
        if match is None or target is None:
            raise ModelLoadError(
                f"{header.path}: tensor {source!r} is not known in the architecture {architecture}"
            )
        options: dict[str, object] = {}
        has_factor = kind == "weight" and f"{match[3]}.scale" not in names
        if has_factor and f"{stem}.scale" in header.tensors:
            options["factor"] = f"{stem}.scale"
        if family.in_pairs and match[3] in ("attn_q", "attn_k"):
            options["pairs"] = heads[match[3] == "attn_k"]
        if match[3] in family.flat:
            options["shape"] = (prod(tensor.shape),)
        elif match[3] in family.in_middle and kind == "weight":
            options["shape"] = (tensor.shape[0], 1, *tensor.shape[1:])
        found |= _spread(f"{layers}.{match[2]}.{target}", source, tensor, options)
    return found


def _from_settings(header: GgufHeader, family: Family) -> dict[str, StoredTensor]:
    """What elsewhere is a tensor of one number in each layer."""
    found: dict[str, StoredTensor] = {}
    count = header.values.get(f"{header.values['general.architecture']}.block_count")
    for target, (setting, shape) in family.settings.items():
        values = header.values.get(setting)
        if not isinstance(values, list) or len(values) != count:
            raise ModelLoadError(
                f"{header.path}: the setting {setting} must be a number for each of {count} layers"
            )
        for layer, value in enumerate(values):
            name = f"{family.layers}.{layer}.{target}"
            found[name] = StoredTensor(shape, {}, decoder="number", options={"value": float(value)})
    return found


def _spread(
    name: str, source: str, tensor: BlockTensor, options: dict[str, object]
) -> dict[str, StoredTensor]:
    """A tensor under its name, or its parts along the first axis where that says {expert}."""
    if "{expert}" not in name:
        return {name: _stored(source, tensor, **options)}
    return {
        name.format(expert=expert): _stored(source, tensor, expert=expert)
        for expert in range(tensor.shape[0])
    }


def _latent(header: GgufHeader, source: str) -> StoredTensor:
    """Both halves of what makes keys and values of a latent: [H, rank, K] turned, and [H, V, rank]."""
    other = source.replace(_KEYS, _VALUES)
    if other not in header.tensors:
        raise ModelLoadError(f"{header.path}: tensor {source!r} is there, but {other!r} is not")
    keys, values = header.tensors[source], header.tensors[other]
    fits = len(keys.shape) == len(values.shape) == 3 and keys.shape[0] == values.shape[0]
    if not fits or keys.shape[1] != values.shape[2]:
        raise ModelLoadError(
            f"{header.path}: {source!r} of {list(keys.shape)} and {other!r} of {list(values.shape)} "
            "make no keys and values of one latent"
        )
    heads, rank, size = keys.shape
    parts = {"keys": _stored(source, keys), "values": _stored(other, values)}
    return StoredTensor(
        (heads * (size + values.shape[1]), rank),
        {role: one.members["blocks"] for role, one in parts.items()},
        decoder="gguf_latent",
        options=parts,
    )


def _drafts(header: GgufHeader) -> tuple[str, ...]:
    """Starts of names of the layers at the end that draft further tokens, and are left unread."""
    prefix = f"{header.values['general.architecture']}."
    count = header.values.get(f"{prefix}nextn_predict_layers") or 0
    last = header.values.get(f"{prefix}block_count")
    if not isinstance(count, int) or not isinstance(last, int):
        return ()
    return tuple(f"blk.{layer}." for layer in range(max(last - count, 0), last))


def _target(stem: str, kind: str, names: Mapping[str, str]) -> str | None:
    """The name of a layer's tensor behind the layer's own; None if it is not known."""
    whole = names.get(f"{stem}.{kind}" if kind else stem)
    if whole is not None or not kind:
        return whole
    return f"{names[stem]}.{kind}" if stem in names else None


def _stored(source: str, tensor: BlockTensor, **options: object) -> StoredTensor:
    """One tensor, or one expert's part of it."""
    kind = tensor.kind
    if kind.format is None:
        raise ModelLoadError(
            f"{tensor.path}: tensor {source!r} is of type {kind.name}, which is not read by this version; "
            "take a file of type Q4_K_M, Q8_0 or another of legacy, K, IQ4 or float types"
        )
    factor = options.pop("factor", None)
    if factor is not None and kind.name != "NVFP4":
        raise ModelLoadError(
            f"{tensor.path}: {factor} beside a tensor of type {kind.name} is not read; of NVFP4 it is"
        )
    shape = tensor.shape
    if "shape" in options:
        shape = cast("tuple[int, ...]", options.pop("shape"))
    elif "expert" in options:
        shape = shape[1:]
    elif source.endswith("gate_inp_shexp.weight") and len(shape) == 1:
        shape = (1, *shape)
    return StoredTensor(
        shape,
        {"blocks": source} if factor is None else {"blocks": source, "factor": str(factor)},
        decoder="gguf",
        options={"kind": kind.name, **options},
        format=kind.format,
        is_exact=kind.is_exact,
    )
