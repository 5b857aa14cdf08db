"""Kimi Linear: delta nets with a decay for each channel, and latent attention without positions in between.

Spellings of latent attention and of delta nets are in `models.hf_deepseek` and `models.hf_delta`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, decoder
from quire.models.hf_deepseek import in_groups, latent_attention, named_parts
from quire.models.hf_delta import (
    KINDS,
    channel_net,
    conv_rules,
    product_rules,
    state_rules,
)
from quire.models.hf_parts import layer_kinds
from quire.models.name_parts import LATENT_RULES, LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule, expert_rules, router_rules, shared_rules
from quire.models.spec import DecoderSpec, LayerSpec, Mixer, Moe, Rope


def kimi_linear(hf: HfConfig) -> DecoderSpec:
    """`KimiLinearForCausalLM`, in the spelling of the published file. Source: arXiv 2510.26692."""
    eps = hf.positive("rms_norm_eps", 1e-5)
    hf.skip("num_nextn_predict_layers", "use_grouped_topk")
    if not hf.bool_("mla_use_nope", True):
        raise hf.refuse("mla_use_nope", "this architecture has no positions")
    whole = latent_attention(hf, interleaved=False, default_q_rank=0)
    whole = replace(whole, rope=Rope(dim=whole.rope.dim), turned=False)
    old = hf.section("linear_attn_config") or HfConfig({})
    size, kernel = old.int_("head_dim", 128), old.int_("short_conv_kernel_size", 4, minimum=2)
    heads = old.int_("num_heads", 32)
    delta = channel_net(hf, heads=heads, size=size, kernel=kernel, norm_eps=eps)
    mixers: dict[str, Mixer] = {KINDS[0]: replace(delta, rank=delta.key_size), KINDS[1]: whole}
    layers = [
        LayerSpec(mixer=mixers[kind], feed_forward=part, norm_eps=eps)
        for kind, part in zip(_kinds(hf, old), named_parts(hf, _experts(hf), 1), strict=True)
    ]
    longest = hf.optional_int("max_position_embeddings", 1_048_576) or 1_048_576
    return decoder(hf, layers, max_position_embeddings=hf.int_("model_max_length", longest))


def _kinds(hf: HfConfig, old: HfConfig) -> list[str]:
    """Of all layers: by `layer_types`, or by the older lists, which count from 1; else every fourth is whole."""
    deltas, wholes = set(old.integers("kda_layers")), set(old.integers("full_attn_layers"))
    count = hf.int_("num_hidden_layers")
    if (deltas or wholes) and (deltas & wholes or deltas | wholes != set(range(1, count + 1))):
        raise old.refuse("kda_layers", f"with full_attn_layers it must name 1 to {count} once each")
    if not deltas and not wholes:
        wholes = {number for number in range(1, count + 1) if number > 1 and (number - 1) % 4 == 0}
    return layer_kinds(hf, KINDS, lambda index: KINDS[index + 1 in wholes])


def _experts(hf: HfConfig) -> Moe:
    """Experts weighed by sigmoids, in groups, beside ones that all tokens pass."""
    hf.choice("moe_router_activation_func", {"sigmoid": None}, "sigmoid")
    if hf.int_("moe_layer_freq", 1) != 1:
        raise hf.refuse("moe_layer_freq", "only experts in every layer behind the dense ones")
    width = hf.int_("moe_intermediate_size", 1024)
    part = Moe(
        num_experts=hf.int_("num_experts", 256),
        top_k=hf.int_("num_experts_per_token", 8),
        width=width,
        activation=activation(hf),
        scoring="sigmoid",
        normalize=hf.bool_("moe_renormalize", True),
        scale=hf.positive("routed_scaling_factor", 2.446),
        choice_bias=True,
        router_float32=True,
        shared_width=width * hf.int_("num_shared_experts", 1),
    )
    return in_groups(hf, part, 1, 1, best=2, key="num_expert_group")


_BLOCK, _MOE = "self_attn", "block_sparse_moe"

NAMES = LLAMA_NAMES.with_rules(
    *LATENT_RULES,
    Rule(f"{LAYER}.{_BLOCK}.o_proj.weight", f"{OURS}.mixer.out.weight"),
    *product_rules(
        _BLOCK,
        *((f"{name}_proj", "in", part) for part, name in enumerate("qkv")),
        *((f"{name}_proj", "steps", part) for part, name in enumerate(("b", "f_a", "g_a"))),
        ("f_b_proj", "decay_up", 0),
        ("g_b_proj", "gate_up", 0),
        ("o_norm", "norm", 0),
        ("o_proj", "back", 0),
    ),
    *conv_rules(_BLOCK, *(f"{name}_conv1d" for name in "qkv")),
    *state_rules(_BLOCK),
    *expert_rules(_MOE, ("w1", "w3", "w2")),
    *router_rules(f"{_MOE}.gate"),
    *shared_rules(f"{_MOE}.shared_experts"),
    Rule(f"{LAYER}.{_MOE}.gate.e_score_correction_bias", f"{OURS}.feed_forward.choice.bias"),
)

ARCHITECTURES = {"KimiLinearForCausalLM": Architecture(kimi_linear, NAMES)}
