"""Ling 3: delta nets with a decay of each channel, every few layers attention over latents with gates, experts.

Kimi Linear is in `kimi`; spellings shared with DeepSeek's models are in `models.hf_deepseek`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder
from quire.models.hf_deepseek import latent_attention, named_parts, sigmoid_experts
from quire.models.hf_delta import (
    KINDS,
    channel_net,
    conv_rules,
    product_rules,
    state_rules,
)
from quire.models.hf_parts import demand, demand_each, layer_kinds
from quire.models.name_parts import DEEPSEEK_RULES, LATENT_RULES, LAYER, OURS, choice_rule, ours
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.recurrent import GatedDeltaNet
from quire.models.spec import DecoderSpec, LayerSpec, Mixer


def bailing_hybrid(hf: HfConfig) -> DecoderSpec:
    """`BailingHybridForCausalLM`, in published files `BailingMoeV3ForCausalLM`; defaults as in BailingHybridConfig.

    Sources: arXiv 2510.26692 of the delta net, 2412.19437 of latents and experts.
    """
    _check(hf)
    hf.add_defaults({"num_experts": 512, "moe_intermediate_size": 768, "intermediate_size": 6144})
    eps = hf.positive("rms_norm_eps", 1e-6)
    whole = latent_attention(hf, interleaved=True, default_q_rank=0, theta=6_000_000.0)
    mixers: dict[str, Mixer] = {KINDS[0]: _delta_net(hf, eps)}
    mixers[KINDS[1]] = replace(whole, gate="heads")
    counts = ("num_experts", "num_shared_experts")
    part = sigmoid_experts(hf, top_k=8, scale=2.5, groups=8, top_groups=4, counts=counts)
    shared = hf.int_("moe_shared_expert_intermediate_size", part.width)
    part = replace(part, shared_width=part.shared_width // part.width * shared)
    every = hf.int_("layer_group_size", 6)
    kinds = layer_kinds(hf, KINDS, lambda index: KINDS[(index + 1) % every == 0])
    layers = [
        LayerSpec(mixer=mixers[kind], feed_forward=one, norm_eps=eps)
        for kind, one in zip(kinds, named_parts(hf, part, 2), strict=True)
    ]
    return decoder(hf, layers, max_len=262_144)


def _delta_net(hf: HfConfig, eps: float) -> GatedDeltaNet:
    kernel = hf.int_("short_conv_kernel_size", 4, minimum=2)
    heads, size = hf.int_("num_attention_heads"), hf.int_("head_dim", 128)
    net = channel_net(hf, heads=heads, size=size, kernel=kernel, by_channel=True, norm_eps=eps)
    if not hf.bool_("kda_safe_gate", True):
        hf.skip("kda_lower_bound")
        return net
    bound = -hf.float_("kda_lower_bound", -5.0)
    if bound <= 0:
        raise hf.refuse("kda_lower_bound", "it is the logarithm of the least that is left, below 0")
    return replace(net, bound=bound)


def _check(hf: HfConfig) -> None:
    """Numbers that Transformers calls by names of its own, and keys of published files that have one value here."""
    same = {"model_max_length": "max_position_embeddings", "num_expert_group": "n_group"}
    for own, name in (same | {"num_experts_per_token": "num_experts_per_tok"}).items():
        if (value := hf.optional_int(own)) is not None:
            hf.add_defaults({name: value})
    hf.add_defaults({"norm_topk_prob": hf.bool_("moe_renormalize", True)})
    hf.skip("embedding_dropout", "output_dropout", "max_window_layers", "router_dtype")
    hf.skip("mtp_loss_scaling_factor", "mtp_use_kda", "rotary_dim", "partial_rotary_factor")
    never = "use_bias use_qkv_bias use_kda_lora use_mla_nope use_nGPT value_norm up_proj_norm"
    never = f"{never} scale_router_input"
    demand(hf, "it is not described for this architecture", **dict.fromkeys(never.split(), False))
    always = "no_kda_lora use_qk_norm linear_silu rope_interleave moe_router_enable_expert_bias"
    demand(hf, "this architecture has it", **dict.fromkeys(always.split(), True))
    hf.choice("score_function", {"sigmoid": None}, "sigmoid")
    hf.choice("gated_attention_proj_granularity_type", {"head_wise": None}, "head_wise")
    demand_each(hf, group_norm_size=1, num_kv_heads_for_linear_attn=0)
    if (section := hf.section("rope_parameters")) is not None:
        section.skip("partial_rotary_factor")  # of head_dim, which qk_rope_head_dim says too


_BLOCK = "attention"
NAMES = replace(
    LLAMA_NAMES.without("embedding", f"{OURS}.mixer.qkv", f"{OURS}.mixer.out")
    .with_rules(
        Rule("model.word_embeddings.weight", "embedding.weight"),
        *(replace(rule, source=rule.source.replace("self_attn", _BLOCK)) for rule in LATENT_RULES),
        *ours(LAYER, (f"{_BLOCK}.dense", "mixer.out"), (f"{_BLOCK}.g_proj", "mixer.gate")),
        *product_rules(
            _BLOCK,
            *((f"{name}_proj", "in", part) for part, name in enumerate("qkvg")),
            *((f"{name}_proj", "steps", part) for part, name in enumerate("bf")),
            ("o_norm", "norm", 0),
            ("o_proj", "back", 0),
        ),
        *conv_rules(_BLOCK, *(f"{name}_conv1d" for name in "qkv")),
        *state_rules(_BLOCK),
        *DEEPSEEK_RULES,
        choice_rule("mlp.gate.expert_bias"),
    )
    .without_source(f"{LAYER}.mlp.gate.e_score_correction_bias"),
    drafts=("model.layers.{layer}.", "model.mtp"),
)

ARCHITECTURES = {"BailingHybridForCausalLM": Architecture(bailing_hybrid, NAMES)}
