"""Step 3.5, and the text of 3.7: windows in most layers, gates of heads, experts with limits in some layers.

Step 3, alone or beside a tower, whose queries are made of few numbers beside one head of keys, and Step 1, whose
scores fall with roots of distances.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, layered, plain
from quire.models.hf_parts import LAYER_KINDS, demand, section_rope
from quire.models.hf_text import text_alone
from quire.models.name_parts import LAYER, OURS, choice_rule
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES, Rule, router_rules, shared_rules
from quire.models.spec import Attention, DecoderSpec, FeedForward, LayerSpec, Moe, Rope
from quire.protocol.errors import ModelLoadError

_SLIDES = "sliding_attention"


def step3p5(hf: HfConfig) -> DecoderSpec:
    """`Step3p5ForCausalLM`; lists go on for the layers that draft. Source: `modeling_step3p5.py` of the files."""
    hf.skip("max_seq_len", "moe_every_n_layer", "moe_layer_offset", "sink", "use_moe")
    demand(hf, use_qk_norm=True, zero_centered=True)
    hf.choice("att_impl_type", {"GQA": None}, "GQA")
    count = hf.int_("num_hidden_layers")
    drafts = hf.int_("num_nextn_predict_layers", 0, minimum=0)
    kinds = (hf.strings("layer_types") or [])[:count]
    if len(kinds) < count or not set(kinds) <= set(LAYER_KINDS):
        raise hf.refuse("layer_types", f"it must name the kind of each of {count} layers")
    turns = _turns(hf, kinds, drafts)
    layers = [
        LayerSpec(mixer=replace(mixer, rope=turn), feed_forward=part, norm_eps=mixer.norm_eps)
        for mixer, turn, part in zip(
            _mixers(hf, kinds), turns, _parts(hf, count, drafts), strict=True
        )
    ]
    return decoder(hf, layers, max_len=128_000)


def step1(hf: HfConfig) -> DecoderSpec:
    """`Step1ForCausalLM`: Llama without turns, where slopes take roots of distances off scores.

    Source: `modeling_step1.py` of the published files.
    """
    length = hf.int_("max_seq_len", hf.int_("max_position_embeddings", 4096))
    hf.add_defaults({"num_key_value_heads": hf.int_("num_attention_groups", 1)})
    mixer = attention(hf, rope=None, root_alibi=length)
    part = dense(hf, bias=hf.bool_("mlp_bias", False))
    return plain(hf, mixer, part, eps=1e-5, max_position_embeddings=length)


def step3_text(hf: HfConfig) -> DecoderSpec:
    """`Step3TextForCausalLM` (Step 3): attention as in arXiv 2412.19255. Defaults as in Step3TextConfig."""
    hf.skip("max_seq_len")
    hf.add_defaults({"num_key_value_heads": hf.int_("num_attention_groups", 1)})
    rank, eps = hf.int_("share_q_dim", 2048), hf.positive("rms_norm_eps", 1e-5)
    theta = ("rope_theta", 500_000.0)
    mixer = attention(hf, bias=None, head_dim=256, theta=theta, rank=rank, norm_eps=eps)
    part = Moe(
        num_experts=hf.int_("moe_num_experts", 48),
        top_k=hf.int_("moe_top_k", 3),
        width=hf.int_("moe_intermediate_size", 5120),
        normalize=hf.bool_("norm_expert_weight", False),
        shared_width=hf.int_("share_expert_dim", 5120),
    )
    count = hf.int_("num_hidden_layers")
    routed = _routed(hf) if hf.has("moe_layers_enum") else set(range(1, count))
    parts = [part if number in routed else dense(hf) for number in range(count)]
    length = hf.int_("max_position_embedding", hf.int_("max_position_embeddings", 65_536))
    return layered(hf, mixer, parts, eps=1e-5, max_position_embeddings=length)


def _routed(hf: HfConfig) -> set[int]:
    """The layers with experts: numbers with commas between them, or a list."""
    try:
        return set(hf.integers("moe_layers_enum"))
    except ModelLoadError:
        found = hf.text("moe_layers_enum", "").split(",")
        return {int(one) for one in found if one.strip().isdigit()}


def _mixers(hf: HfConfig, kinds: list[str]) -> list[Attention]:
    """The attention of each layer, without positions."""
    if not hf.bool_("use_head_wise_attn_gate", False):
        raise hf.refuse("use_head_wise_attn_gate", "no checkpoint is without gates of heads")
    hf.add_defaults({"num_key_value_heads": hf.int_("num_attention_groups")})
    one = attention(hf, normed=1e-5, rope=None, gate=True, gate_heads=True)
    slid = replace(one, window=hf.int_("sliding_window"))
    other = hf.section("attention_other_setting")
    if other is not None:
        other.choice("attention_type", {_SLIDES: None})
        same = {"num_attention_groups": one.num_kv_heads, "head_dim": one.head_size}
        for key, value in (same | {"true_head_dim": one.head_size}).items():
            if other.int_(key, value) != value:
                raise other.refuse(key, f"it must be as in the other layers, {value}")
        slid = replace(slid, num_heads=other.int_("num_attention_heads"))
    if slid.num_heads % slid.num_kv_heads:
        raise hf.refuse("num_attention_groups", "it must divide the heads of each layer")
    return [slid if kind == _SLIDES else one for kind in kinds]


def _turns(hf: HfConfig, kinds: list[str], drafts: int) -> list[Rope]:
    """The positions of each layer; those without a window alone are scaled."""
    count, size = len(kinds), hf.int_("head_dim")
    thetas = hf.for_layers("rope_theta", count, 10_000.0, drafts=drafts)
    shares = hf.for_layers("partial_rotary_factors", count, 1.0, drafts=drafts)
    scaled = hf.strings("yarn_only_types") or ["full_attention"]
    section = hf.section("rope_scaling")
    if scaled != ["full_attention"] or thetas is None or 0 in (*thetas, *(shares or ())):
        raise hf.refuse("yarn_only_types", "positions without a window alone are scaled here")
    found = []
    for kind, theta, share in zip(kinds, thetas, shares or [1.0] * count, strict=True):
        one = Rope(dim=int(size * share), theta=theta)
        if section is not None and kind != _SLIDES:
            one = section_rope(hf, section, dim=one.dim, theta=theta, interleaved=False)
        found.append(one)
    return found


def _parts(hf: HfConfig, count: int, drafts: int) -> list[FeedForward]:
    """The feed-forward part of each layer: those of `moe_layers_enum` have experts."""
    demand(hf, use_moe_router_bias=True, need_fp32_gate=True, norm_expert_weight=True)
    hf.choice("moe_router_activation", {"sigmoid": None}, "sigmoid")
    routed = _routed(hf)
    part = Moe(
        num_experts=hf.int_("moe_num_experts"),
        top_k=hf.int_("moe_top_k"),
        width=hf.int_("moe_intermediate_size"),
        scoring="sigmoid",
        scale=hf.positive("moe_router_scaling_factor", 1.0),
        choice_bias=True,
        router_float32=True,
        shared_width=hf.int_("share_expert_dim"),
    )
    plain: list[FeedForward] = [dense(hf)] * count
    bounds, shared = (
        hf.for_layers(key, count, 0.0, drafts=drafts) or [0.0] * count
        for key in ("swiglu_limits", "swiglu_limits_shared")
    )
    for number in range(count):
        limit, other = bounds[number], shared[number]
        if number not in routed and other:
            raise hf.refuse("swiglu_limits_shared", f"layer {number} has no experts to be limited")
        if number in routed:
            after = bool(limit or other)
            own = None if other == limit else other
            plain[number] = replace(part, limit=limit, limit_after=after, shared_limit=own)
    return plain


_EXPERTS = LLAMA_NAMES.with_rules(
    *router_rules("moe.gate"),
    choice_rule("moe.router_bias"),
    *(
        Rule(
            f"{LAYER}.moe.{name}_proj.weight",
            f"{OURS}.feed_forward.experts.{{expert}}.gate_up.weight",
            (place,),
        )
        for place, name in enumerate(("gate", "up"))
    ),
    Rule(f"{LAYER}.moe.down_proj.weight", f"{OURS}.feed_forward.experts.{{expert}}.down.weight"),
    *shared_rules("share_expert"),
)
_NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
_NAMES = _EXPERTS.with_rules(
    *QK_NORM_RULES, Rule(f"{LAYER}.self_attn.g_proj.weight", f"{OURS}.mixer.gate.weight")
)
_LOW_RANK = _EXPERTS.with_rules(
    Rule(f"{LAYER}.self_attn.inter_norm.weight", f"{OURS}.mixer.latent_norm.weight"),
    Rule(f"{LAYER}.self_attn.wq.weight", f"{OURS}.mixer.up.weight"),
)
NAMES = replace(
    _NAMES.folded("add_one", "model.norm.weight", *(f"{LAYER}.{name}.weight" for name in _NORMS)),
    drafts=(f"{LAYER}.",),
)

ARCHITECTURES = {
    "Step1ForCausalLM": Architecture(step1, LLAMA_NAMES),
    "Step3TextForCausalLM": Architecture(step3_text, _LOW_RANK),
    "Step3VLForConditionalGeneration": Architecture(
        text_alone(step3_text), replace(_LOW_RANK, drafts=("vision_model.", "vit_"))
    ),
    "Step3p5ForCausalLM": Architecture(step3p5, NAMES),
    "Step3p7ForConditionalGeneration": Architecture(
        text_alone(step3p5),
        replace(NAMES, drafts=(*NAMES.drafts, "vision_model.", "vit_large_projector.")),
    ),
}
