"""Granite, HyperCLOVA X, MiniCPM, Tele-FLM: factors of embedding, scores, residuals, logits; hybrids with states.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    attention,
    decoder,
    dense,
    experts,
    plain,
    with_attention,
    with_parts,
    with_placement,
)
from quire.models.hf_mamba import mamba2, mamba_rules, with_mixers
from quire.models.hf_parts import windows
from quire.models.names import LLAMA_NAMES, Rule, router_rules
from quire.models.spec import Attention, DecoderSpec, LayerSpec, Placement


def granite(
    hf: HfConfig,
    *,
    default_scale: float | None = 1.0,
    kv_heads: int | None = None,
    eps: float = 1e-6,
    **fields: Any,
) -> DecoderSpec:
    """`GraniteForCausalLM`; defaults as in GraniteConfig. Source: arXiv 2408.13359."""
    scale = hf.optional_positive("attention_multiplier", default_scale)
    layer = LayerSpec(
        mixer=attention(hf, kv_heads=kv_heads, scale=scale),
        feed_forward=dense(hf, bias=hf.bool_("mlp_bias", False)),
        norm_eps=hf.positive("rms_norm_eps", eps),
        residual_scale=hf.positive("residual_multiplier", 1.0),
    )
    return decoder(
        hf,
        layer,
        **fields,
        embedding_scale=hf.positive("embedding_multiplier", 1.0),
        logit_scale=1.0 / hf.positive("logits_scaling", 1.0),
    )


def hyperclovax(hf: HfConfig) -> DecoderSpec:
    """`HyperCLOVAXForCausalLM`: Granite with norms on both sides of each part, logits multiplied."""
    hf.skip("end_token_id", "summary_first_dropout")  # of no head that is here
    spec = granite(hf, default_scale=None)
    placement: Placement = "sandwich" if hf.bool_("use_post_norm", True) else "pre"
    return replace(with_placement(spec, placement), logit_scale=hf.positive("logits_scaling", 1.0))


def teleflm(hf: HfConfig) -> DecoderSpec:
    """`TeleFLMForCausalLM`: factors of embedding and logits. Source: arXiv 2404.16645."""
    spec = plain(hf, attention(hf, bias=None), dense(hf), eps=1e-5, max_len=4096)
    if not hf.bool_("use_mup", False):
        hf.skip("input_mult", "output_mult", "mup_scale_factor")
        return spec
    scale = hf.positive("output_mult") / hf.positive("mup_scale_factor")
    return replace(spec, embedding_scale=hf.positive("input_mult"), logit_scale=scale)


def minicpm(hf: HfConfig) -> DecoderSpec:
    """`MiniCPMForCausalLM`: the same factors, told by width and depth. Source: arXiv 2404.06395."""
    if hf.int_("num_experts", 0, minimum=0):
        raise hf.refuse("num_experts", "experts are not described for this architecture")
    width, depth = hf.int_("hidden_size"), hf.int_("num_hidden_layers")
    layer = LayerSpec(
        mixer=attention(hf),
        feed_forward=dense(hf),
        norm_eps=hf.positive("rms_norm_eps", 1e-6),
        residual_scale=hf.positive("scale_depth", 1.0) / depth**0.5,
    )
    return decoder(
        hf,
        layer,
        tie=True,
        embedding_scale=hf.positive("scale_emb", 1.0),
        logit_scale=hf.positive("dim_model_base", 1.0) / width,
    )


def granite_moe(hf: HfConfig) -> DecoderSpec:
    """`GraniteMoeForCausalLM`, and `GraniteMoeSharedForCausalLM` with a part that all tokens pass.

    The weights of the chosen experts are their shares of each other.
    """
    part = experts(
        hf,
        8,
        2,
        key="num_local_experts",
        shared_width=hf.int_("shared_intermediate_size", 0, minimum=0),
    )
    return with_parts(granite(hf), part)


def granite_swa(hf: HfConfig) -> DecoderSpec:
    """`GraniteSWAForCausalLM`: windows in three of four layers; defaults as in GraniteSWAConfig."""
    return _with_windows(hf, granite(hf, kv_heads=4, eps=1e-5, max_len=8192, tie=True))


def granite_moe_swa(hf: HfConfig) -> DecoderSpec:
    """`GraniteMoeSWAForCausalLM`: the same with experts."""
    return _with_windows(hf, granite_moe(hf))


def _with_windows(hf: HfConfig, spec: DecoderSpec) -> DecoderSpec:
    """The same decoder with sinks, windows, and a base of positions for each layer, of which 0 is none."""
    bases = hf.for_layers("layer_rope_theta", len(spec.layers), None)
    sizes = [window for _, window in windows(hf, lambda index: index % 4 != 0, 128)]

    def changed(number: int, mixer: Attention) -> Attention:
        turned = mixer.rope
        if turned is not None and bases is not None:
            turned = replace(turned, theta=float(bases[number])) if bases[number] else None
        return replace(mixer, sinks=True, window=sizes[number], rope=turned)

    return with_attention(spec, changed)


def granite_hybrid(hf: HfConfig) -> DecoderSpec:
    """`GraniteMoeHybridForCausalLM`: most layers have a state-space mixer instead of attention.

    Without experts the part that all tokens pass is the feed-forward part. Positions only if the file says so.
    """
    hf.skip("layers_block_type", "normalization_function", "init_method", "mamba_use_mlp")
    width = hf.int_("shared_intermediate_size", 1024)
    if hf.int_("num_local_experts", 8, minimum=0):
        spec = granite_moe(hf)
    else:
        hf.skip("intermediate_size", "num_experts_per_tok")
        spec = with_parts(granite(hf), dense(hf, width=width))
    turned = hf.choice("position_embedding_type", {"rope": True, "nope": False}, "nope")
    kinds = hf.strings("layer_types") or ["mamba"] * len(spec.layers)
    attends = [kind in ("attention", "full_attention") for kind in kinds]
    known = {"attention", "full_attention", "mamba", "linear_attention"}
    if len(kinds) != len(spec.layers) or not known.issuperset(kinds):
        raise hf.refuse(
            "layer_types", f"it must have {len(spec.layers)} entries, mamba or attention"
        )
    if not turned:
        spec = with_attention(spec, lambda _, mixer: replace(mixer, rope=None))
    states = mamba2(hf, eps=spec.norm_eps)
    return with_mixers(spec, states, attends.__getitem__)


_LAYER, _OURS = "model.layers.{layer}", "layers.{layer}.feed_forward"
_MOE = f"{_LAYER}.block_sparse_moe"

MOE_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{_MOE}.input_linear.weight", f"{_OURS}.experts.{{expert}}.gate_up.weight", parts=(0, 1)),
    Rule(f"{_MOE}.output_linear.weight", f"{_OURS}.experts.{{expert}}.down.weight"),
    *router_rules("block_sparse_moe.router.layer"),
    Rule(
        f"{_LAYER}.shared_mlp.input_linear.weight", f"{_OURS}.shared.gate_up.weight", parts=(0, 1)
    ),
    Rule(f"{_LAYER}.shared_mlp.output_linear.weight", f"{_OURS}.shared.down.weight"),
)

HYBRID_NAMES = MOE_NAMES.without(f"{_OURS}.gate_up", f"{_OURS}.down").with_rules(
    *mamba_rules(f"{_LAYER}.mamba"),
    *(
        Rule(f"{_LAYER}.shared_mlp.{theirs}_linear.weight", f"{_OURS}.{part}.weight", parts=parts)
        for theirs, name, parts in (("input", "gate_up", (0, 1)), ("output", "down", (0,)))
        for part in (name, f"shared.{name}")
    ),
)

_SINKS = Rule(f"{_LAYER}.self_attn.sinks", "layers.{layer}.mixer.sinks")
SWA_MOE_NAMES = MOE_NAMES.without_source(
    *(f"{_MOE}.{name}_linear.weight" for name in ("input", "output")),
    *(f"{_MOE}.router.layer.{kind}" for kind in ("weight", "bias")),
).with_rules(
    Rule(f"{_MOE}.experts.gate_up_proj", f"{_OURS}.experts.{{expert}}.gate_up.weight", (0, 1)),
    Rule(f"{_MOE}.experts.down_proj", f"{_OURS}.experts.{{expert}}.down.weight"),
    *router_rules("block_sparse_moe.router"),
    _SINKS,
)
HYPERCLOVAX_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{_LAYER}.post_norm1.weight", "layers.{layer}.norm_after_mixer.weight"),
    Rule(f"{_LAYER}.post_norm2.weight", "layers.{layer}.norm_after_feed_forward.weight"),
)

ARCHITECTURES = {
    "GraniteForCausalLM": Architecture(granite, LLAMA_NAMES),
    "MiniCPMForCausalLM": Architecture(minicpm, LLAMA_NAMES),
    "TeleFLMForCausalLM": Architecture(teleflm, LLAMA_NAMES),
    "HyperCLOVAXForCausalLM": Architecture(hyperclovax, HYPERCLOVAX_NAMES),
    "GraniteMoeForCausalLM": Architecture(granite_moe, MOE_NAMES),
    "GraniteMoeSharedForCausalLM": Architecture(granite_moe, MOE_NAMES),
    "GraniteSWAForCausalLM": Architecture(granite_swa, LLAMA_NAMES.with_rules(_SINKS)),
    "GraniteMoeSWAForCausalLM": Architecture(granite_moe_swa, SWA_MOE_NAMES),
    "GraniteMoeHybridForCausalLM": Architecture(granite_hybrid, HYBRID_NAMES),
}
