"""MiMo V2: windows with sinks in most layers, values narrower than keys, experts without shared ones.

Spellings shared with other families are in `models.hf_decoder`; the first MiMo is in `qwen`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, experts
from quire.models.hf_deepseek import in_groups
from quire.models.hf_parts import demand, rope, sliding_layers
from quire.models.name_parts import CHOICE_RULE, LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule, expert_rules, router_rules
from quire.models.spec import Attention, DecoderSpec, FeedForward, LayerSpec, Rope

_PART = ("partial_rotary_factor", 0.334)
_BASES = (("rope_theta", 5_000_000.0), ("swa_rope_theta", 10_000.0))


def mimo_v2_flash(hf: HfConfig) -> DecoderSpec:
    """`MiMoV2FlashForCausalLM`; defaults as in MiMoV2FlashConfig, and the keys of the published files."""
    hf.skip("attention_chunk_size", "max_window_layers", "attention_projection_layout")
    demand(hf, add_swa_attention_sink_bias=True, add_full_attention_sink_bias=False)
    eps = hf.positive("rms_norm_eps", hf.positive("layernorm_epsilon", 1e-5))
    count = hf.int_("num_hidden_layers")
    pattern = hf.integers("hybrid_layer_pattern")
    slides = sliding_layers(
        hf, lambda i: bool(pattern[i]) if len(pattern) == count else i != 0 and (i + 1) % 6 != 0
    )
    mixers, parts = _mixers(hf), _parts(hf, count)
    layers = [
        LayerSpec(mixer=mixers[slid], feed_forward=part, norm_eps=eps)
        for slid, part in zip(slides, parts, strict=True)
    ]
    return decoder(hf, layers, max_len=131_072)


def _mixers(hf: HfConfig) -> tuple[Attention, Attention]:
    """Of layers without and with a window, which have twice as many heads of k and v."""
    size, value_size = hf.int_("head_dim", 192), hf.int_("v_head_dim", 128)
    bias = hf.bool_("attention_bias", False)
    one = attention(
        hf,
        bias=None,
        heads=64,
        kv_heads=4,
        head_dim=192,
        rope=_rope(hf, size, sliding=False),
        qkv_bias=bias,
        value_head=value_size,
        value_scale=hf.optional_positive("attention_value_scale", 0.707) or 1.0,
    )
    own = {"num_attention_heads": one.num_heads, "num_key_value_heads": 2 * one.num_kv_heads}
    for key, value in (own | {"head_dim": size, "v_head_dim": value_size}).items():
        if hf.int_(f"swa_{key}", value) != value:
            raise hf.refuse(f"swa_{key}", f"with the other keys of the file it must be {value}")
    looks_back = hf.optional_int("sliding_window_size")
    window = hf.int_("sliding_window", 129) if looks_back is None else looks_back + 1
    hf.skip("sliding_window")
    if one.num_heads % (2 * one.num_kv_heads):
        raise hf.refuse("num_key_value_heads", "twice as many must divide the heads")
    slid = replace(
        one,
        num_kv_heads=2 * one.num_kv_heads,
        rope=_rope(hf, size, sliding=True),
        window=window,
        sinks=True,
    )
    return one, slid


def _rope(hf: HfConfig, size: int, *, sliding: bool) -> Rope:
    base = hf.positive(*_BASES[sliding])
    if hf.has("rope_parameters") or hf.has("rope_scaling"):
        return rope(hf, head_size=size, sliding=sliding, part=_PART)
    return Rope(dim=int(size * hf.positive(*_PART)), theta=base)


def _parts(hf: HfConfig, count: int) -> list[FeedForward]:
    hf.choice("scoring_func", {"sigmoid": None}, "sigmoid")
    hf.choice("topk_method", {"noaux_tc": None}, "noaux_tc")
    part = experts(
        hf,
        256,
        8,
        key="n_routed_experts",
        width=hf.int_("moe_intermediate_size", 2048),
        scoring="sigmoid",
        normalize=hf.bool_("norm_topk_prob", True),
        scale=hf.optional_positive("routed_scaling_factor", 1.0) or 1.0,
        choice_bias=True,
        router_float32=True,
    )
    part = in_groups(hf, part, 1, 1, best=2)
    kinds, numbers = hf.strings("mlp_layer_types"), hf.integers("moe_layer_freq")
    routed = [bool(one) for one in numbers] or [index > 0 for index in range(count)]
    if kinds:
        routed = [kind == "sparse" for kind in kinds]
    if len(routed) != count or (kinds and set(kinds) - {"dense", "sparse"}):
        raise hf.refuse("mlp_layer_types", f"it must be dense or sparse for each of {count} layers")
    plain = dense(hf)
    return [part if one else plain for one in routed]


NAMES = replace(
    LLAMA_NAMES.with_rules(
        *expert_rules("mlp"),
        *router_rules("mlp.gate"),
        CHOICE_RULE,
        Rule(f"{LAYER}.self_attn.attention_sink_bias", f"{OURS}.mixer.sinks"),
    ),
    drafts=("model.mtp.",),
)

ARCHITECTURES = {"MiMoV2FlashForCausalLM": Architecture(mimo_v2_flash, NAMES)}
