"""Bamba, Jamba, Falcon-H1: attention and state-space mixers in turns, or side by side.

Spellings shared with other families are in `models.hf_mamba`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, experts, plain, with_parts
from quire.models.hf_mamba import (
    HYBRID_NAMES,
    mamba1,
    mamba1_rules,
    mamba2,
    mamba_rules,
    silu_only,
    skip_training,
    with_mixers,
)
from quire.models.name_parts import LAYER, OURS
from quire.models.names import Rule, expert_rules, router_rules
from quire.models.spec import DecoderSpec, LayerSpec, SideBySide


def bamba(hf: HfConfig) -> DecoderSpec:
    """`BambaForCausalLM`: half of each head turns; defaults as in BambaConfig."""
    hf.skip("num_logits_to_keep", "z_loss_coefficient", "attn_rotary_emb", "mamba_dt_rank")
    mixer = attention(hf, kv_heads=8, bias=False, part=("partial_rotary_factor", 0.5))
    spec = plain(hf, mixer, dense(hf, bias=hf.bool_("mlp_bias", False)), eps=1e-5, max_len=262_144)
    where = set(hf.integers("attn_layer_indices"))
    states = mamba2(hf, eps=spec.norm_eps)
    return with_mixers(spec, states, where.__contains__)


def jamba(hf: HfConfig) -> DecoderSpec:
    """`JambaForCausalLM`: every so many layers attend, without positions; every other has experts.

    Defaults as in JambaConfig. Source: arXiv 2403.19887.
    """
    skip_training(hf)
    hf.skip("num_logits_to_keep", "calc_logits_for_entire_prompt", "layers_block_type")
    mixer = attention(hf, kv_heads=8, rope=None)
    spec = plain(hf, mixer, dense(hf), max_len=262_144)
    silu_only(hf)
    states = mamba1(hf, "mamba_", norms="learned", norm_eps=spec.norm_eps)
    period, offset = hf.int_("attn_layer_period", 8), hf.int_("attn_layer_offset", 4, minimum=0)
    spec = with_mixers(spec, states, lambda index: index % period == offset)
    if hf.int_("num_experts", 16) == 1:
        return spec
    part = experts(hf, 16, 2, normalize=False)
    every, first = hf.int_("expert_layer_period", 2), hf.int_("expert_layer_offset", 1, minimum=0)
    parts = [
        part if index % every == first else layer.feed_forward
        for index, layer in enumerate(spec.layers)
    ]
    return with_parts(spec, *parts)


def falcon_h1(hf: HfConfig) -> DecoderSpec:
    """`FalconH1ForCausalLM`: both mixers in each layer, and factors almost everywhere.

    A factor of what attention reads is told as one of its scores and one of what it gives. Defaults as
    in FalconH1Config. Source: arXiv 2507.22448.
    """
    hf.skip("num_logits_to_keep", "attn_layer_indices", "mlp_expansion_factor", "mamba_use_mlp")
    bias = hf.bool_("mamba_proj_bias", False)
    if bias or hf.bool_("projectors_bias", False) or hf.bool_("attention_bias", False):
        raise hf.refuse("projectors_bias", "biases beside factors are not described")
    eps = hf.positive("rms_norm_eps", 1e-5)
    into, out = (hf.positive(f"attention_{way}_multiplier", 1.0) for way in ("in", "out"))
    heads = attention(hf, kv_heads=8)
    scale = heads.query_scale * into * into * hf.positive("key_multiplier", 1.0)
    kind = "norm_then_gate" if hf.bool_("mamba_norm_before_gate", True) else "gated"
    factors = hf.factors("ssm_multipliers", 5)
    entry = hf.positive("ssm_in_multiplier", 1.0)
    states = mamba2(
        hf,
        hf.optional_int("mamba_d_ssm", 1024),
        eps=eps,
        gate_norm=kind if hf.bool_("mamba_rms_norm", False) else "none",
        scales=tuple(entry * factor for factor in factors),
    )
    gate, down = hf.factors("mlp_multipliers", 2)
    layer = LayerSpec(
        mixer=SideBySide(
            parts=(states, replace(heads, scale=scale)),
            scales=(hf.positive("ssm_out_multiplier", 1.0), out * into),
        ),
        feed_forward=dense(hf, bias=hf.bool_("mlp_bias", False), gate_scale=gate, up_scale=down),
        norm_eps=eps,
    )
    return decoder(
        hf,
        layer,
        max_len=8192,
        embedding_scale=hf.positive("embedding_multiplier", 1.0),
        logit_scale=hf.positive("lm_head_multiplier", 1.0),
    )


_MOE = f"{LAYER}.feed_forward"

JAMBA_NAMES = HYBRID_NAMES.with_rules(
    *mamba1_rules(f"{LAYER}.mamba"),
    *(
        Rule(f"{LAYER}.mamba.{theirs}_layernorm.weight", f"{OURS}.mixer.{name}_norm.weight")
        for theirs, name in (("dt", "step"), ("b", "write"), ("c", "read"))
    ),
    *router_rules("feed_forward.router"),
    *expert_rules("feed_forward"),
)

_SECOND = tuple(
    replace(rule, target=rule.target.replace(".mixer.", ".mixers.1."))
    for rule in HYBRID_NAMES.rules
)
FALCON_H1_NAMES = replace(
    HYBRID_NAMES, rules=(*_SECOND, *mamba_rules(f"{LAYER}.mamba", "mixers.0"))
)

ARCHITECTURES = {
    "BambaForCausalLM": Architecture(
        bamba, HYBRID_NAMES.with_rules(*mamba_rules(f"{LAYER}.mamba"))
    ),
    "JambaForCausalLM": Architecture(jamba, JAMBA_NAMES),
    "FalconH1ForCausalLM": Architecture(falcon_h1, FALCON_H1_NAMES),
}
