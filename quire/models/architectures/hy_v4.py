"""Hy4: several residual streams that are not mixed, attention over latents of picked tokens, gated and with sinks.

Hy3 is in `glm_moe`; spellings shared with DeepSeek's models are in `models.hf_deepseek`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import layered, with_placement
from quire.models.hf_deepseek import (
    latent_attention,
    named_parts,
    own_indexers,
    picking,
    sigmoid_experts,
)
from quire.models.hf_parts import demand
from quire.models.name_parts import DEEPSEEK_RULES, INDEXER_RULES, LATENT_RULES, LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import DecoderSpec, HyperStreams, Mla


def hy_v4(hf: HfConfig) -> DecoderSpec:
    """`HYV4ForCausalLM`; defaults as in HYV4Config."""
    hf.skip("layer_types", "learnable_sink_init", "mtp_loss_factor")
    hf.skip("enable_lm_head_fp32", "bitwise_backward_align")  # where the reference rounds
    always = ("enable_ihc", "gated_mla", "learnable_sink", "use_dsa", "use_mla")
    demand(hf, "this architecture has it", **dict.fromkeys(always, True))
    hf.choice("gating_type", {"elementwise": None}, "elementwise")
    count, eps = hf.int_("num_hidden_layers"), hf.positive("rms_norm_eps", 1e-5)
    kinds = ["full" if index % 4 == 1 or not index else "shared" for index in range(count)]
    sizes = {"n_routed_experts": 256, "qk_nope_head_dim": 192, "indexer_types": kinds}
    hf.add_defaults(sizes | {"moe_intermediate_size": 768, "intermediate_size": 6912})
    mixer = latent_attention(hf, interleaved=False, default_q_rank=1536, out_size=256)
    part = sigmoid_experts(hf, top_k=8, scale=2.827)
    part = replace(part, limit=hf.positive("swiglu_limit", 10.0), shared_limit=0.0)
    streams = HyperStreams(
        count=hf.int_("hc_mult", 4, minimum=2),
        eps=hf.positive("hc_eps", 1e-6),
        most=hf.positive("hc_magnitude", 2.0),
    )
    mixer = replace(mixer, sinks=True, gate="numbers")
    parts = named_parts(hf, part, 1)
    spec = layered(hf, mixer, parts, eps=eps, max_len=262_144, streams=streams)
    own = own_indexers(hf, count)
    spec = picking(hf, spec, own, num_heads=16, interleaved=False)
    layers = [replace(one, mixer=_turned_last(one.mixer, eps)) for one in spec.layers]
    return with_placement(replace(spec, layers=tuple(layers)), "hyper")


def _turned_last(mixer: object, eps: float) -> Mla:
    """The mixer with positions in the last numbers of its indexer's keys, whose norm has this eps."""
    assert isinstance(mixer, Mla) and mixer.picks is not None
    one = mixer.picks.indexer
    indexer = one and replace(one, turned_last=True, norm_eps=eps)
    return replace(mixer, picks=replace(mixer.picks, indexer=indexer))


_STREAMS = (("fn", "weight"), ("base", "base"), ("scale", "scale"))
NAMES = LLAMA_NAMES.with_rules(
    *LATENT_RULES,
    *INDEXER_RULES,
    *DEEPSEEK_RULES,
    Rule(f"{LAYER}.self_attn.linear_gate.weight", f"{OURS}.mixer.gate.weight"),
    Rule(f"{LAYER}.self_attn.learnable_sink_param", f"{OURS}.mixer.sinks"),
    *(
        Rule(f"{LAYER}.hc_{place}_layer.hc_pre.hc_{source}", f"{OURS}.around_{part}.{kind}")
        for place, part in (("attn", "mixer"), ("mlp", "feed_forward"))
        for source, kind in _STREAMS
    ),
    *(
        Rule(f"model.hc_head.hc_head_{source}", f"streams.close.{kind}")
        for source, kind in _STREAMS
    ),
)

NAMES = replace(
    NAMES,
    ignored=(*NAMES.ignored, *(rule.source for rule in INDEXER_RULES)),
    drafts=("model.mtp_layers.",),
)

ARCHITECTURES = {"HYV4ForCausalLM": Architecture(hy_v4, NAMES)}
