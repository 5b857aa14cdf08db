"""Beam: a stream of even size, gates of heads' numbers, queries that grow where there are no positions.

Spellings shared with other families are in `models.hf_decoder` and `models.hf_deepseek`.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, experts
from quire.models.hf_deepseek import in_groups, named_parts
from quire.models.hf_parts import own_ropes, windows
from quire.models.name_parts import CHOICE_RULE, LAYER, OURS
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    SANDWICH_RULES,
    Rule,
    expert_rules,
    router_rules,
)
from quire.models.spec import DecoderSpec, LayerSpec, Temperature

_GROWTH = Temperature(scale=0.1, interval=2048, shift=1, power=True)


def beam(hf: HfConfig) -> DecoderSpec:
    """`BeamForCausalLM`; defaults as in BeamConfig."""
    positions = {"sliding_attention": {"rope_theta": 10_000.0}, "full_attention": None}
    hf.add_defaults({"rope_parameters": positions})
    one = attention(hf, heads=48, kv_heads=8, head_dim=128, rope=None, normed=1e-6)
    one = replace(one, gate=True, gate_bias=True)
    last = hf.int_("num_hidden_layers", 52) - 1
    part = experts(
        hf,
        256,
        8,
        width=hf.int_("moe_intermediate_size", 2560),
        scoring="sigmoid",
        normalize=hf.bool_("norm_topk_prob", True),
        scale=hf.positive("routed_scaling_factor", 2.5),
        choice_bias=True,
        router_float32=True,
    )
    parts = named_parts(hf, in_groups(hf, part, 8, 4, best=2), 3)
    found = windows(hf, lambda index: (index + 1) % 6 != 0 and index != last, 512)
    turns = own_ropes(hf, one.head_size)
    layers = [
        LayerSpec(
            mixer=replace(
                one,
                window=window,
                rope=turns[slides],
                temperature=_GROWTH if turns[slides] is None else None,
            ),
            feed_forward=feed_forward,
            placement="sandwich_blended",
            norm_eps=hf.positive("rms_norm_eps", 1e-6),
            stream_scales=(*_shares(2 * index + 2), *_shares(2 * index + 3)),
        )
        for index, ((slides, window), feed_forward) in enumerate(zip(found, parts, strict=True))
    ]
    softcap = hf.optional_positive("final_logit_softcapping", 30.0) or 0.0
    return decoder(hf, layers, max_len=8192, logit_softcap=softcap)


def _shares(count: int) -> tuple[float, float]:
    """Factors of the stream and of what is added to it, as the last of so many that are as large as each other."""
    return sqrt((count - 1) / count), 1.0 / sqrt(count)


_NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES,
    *SANDWICH_RULES,
    Rule(f"{LAYER}.self_attn.gate_proj.weight", f"{OURS}.mixer.gate.weight"),
    Rule(f"{LAYER}.self_attn.gate_bias", f"{OURS}.mixer.gate.bias"),
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    CHOICE_RULE,
)

ARCHITECTURES = {"BeamForCausalLM": Architecture(beam, _NAMES)}
