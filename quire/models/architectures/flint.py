"""Flint: sinks in every layer, positions in those with a window alone, experts chosen by sigmoids beside one for all.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, experts, plain, with_parts
from quire.models.hf_parts import moe_layers, windows
from quire.models.name_parts import LAYER, OURS
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import DecoderSpec


def flint(hf: HfConfig) -> DecoderSpec:
    """`FlintForCausalLM`; defaults as in FlintConfig."""
    hf.add_defaults({"mlp_only_layers": [0, 1]})
    last = hf.int_("num_hidden_layers", 49) - 1
    one = attention(hf, heads=32, kv_heads=4, head_dim=128, normed=1e-6, sinks=True)
    mixers = [
        replace(one, window=window, rope=one.rope if slides else None)
        for slides, window in windows(
            hf, lambda index: index > 1 and index % 4 != 1 and index != last, 513
        )
    ]
    part = experts(
        hf,
        256,
        6,
        width=hf.int_("moe_intermediate_size", 512),
        scoring="sigmoid",
        normalize=hf.bool_("norm_topk_prob", True),
        router_float32=True,
        shared_width=hf.int_("shared_expert_intermediate_size", 1024),
    )
    spec = plain(hf, mixers, dense(hf), max_len=262_144)
    return with_parts(spec, *moe_layers(hf, part, spec.layers[0].feed_forward))


_NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES,
    Rule(f"{LAYER}.self_attn.softmax_offset", f"{OURS}.mixer.sinks"),
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    *shared_rules("mlp.shared_expert"),
)

ARCHITECTURES = {"FlintForCausalLM": Architecture(flint, _NAMES)}
