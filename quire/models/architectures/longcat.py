"""LongCat Flash: two attentions over latents and two dense parts beside one part of experts in each of its layers.

Each of its layers is two of ours: what the experts of the first make is added at the end of the second.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder
from quire.models.hf_deepseek import latent_attention
from quire.models.hf_parts import ACTIVATIONS, demand
from quire.models.name_parts import LATENT_RULES, choice_rule, for_placement
from quire.models.names import LLAMA_NAMES, Rule, WeightMap, expert_rules, router_rules
from quire.models.spec import DecoderSpec, Dense, LayerSpec, Moe


def longcat_flash(hf: HfConfig) -> DecoderSpec:
    """`LongcatFlashForCausalLM`: experts weighed by their share of all, some of which give what they get.

    Queries and latents grow by the root of how much narrower than the model they are. Source: arXiv 2509.01322.
    """
    hf.skip("num_hidden_layers", "attention_method")
    demand(hf, router_bias=False, norm_topk_prob=False)
    hf.choice("zero_expert_type", {"identity": None}, "identity")
    mixer = latent_attention(hf, interleaved=True, default_q_rank=1536, theta=1e7)
    size, eps = hf.int_("hidden_size"), hf.positive("rms_norm_eps", 1e-5)
    if not mixer.q_rank:
        raise hf.refuse("q_lora_rank", "queries of this architecture come from a latent")
    if hf.bool_("mla_scale_q_lora", True):
        mixer = replace(mixer, scale=mixer.query_scale * sqrt(size / mixer.q_rank))
    if hf.bool_("mla_scale_kv_lora", True):
        mixer = replace(mixer, kv_factor=sqrt(size / mixer.kv_rank))
    act = hf.choice("hidden_act", ACTIVATIONS, "silu")
    dense = Dense(width=hf.int_("ffn_hidden_size"), activation=act)
    experts = Moe(
        num_experts=hf.int_("n_routed_experts", 512),
        num_identity=hf.optional_int("zero_expert_num", 256, minimum=0) or 0,
        top_k=hf.int_("moe_topk", 12),
        width=hf.int_("expert_ffn_hidden_size", 2048),
        activation=act,
        normalize=False,
        scale=hf.positive("routed_scaling_factor", 6.0),
        router_float32=True,
        choice_bias=True,
        shared_width=dense.width,
    )
    first = LayerSpec(mixer=mixer, feed_forward=experts, norm_eps=eps, placement="shortcut_open")
    second = replace(first, feed_forward=dense, placement="shortcut_close")
    return decoder(hf, [first, second] * hf.int_("num_layers"), max_len=131_072)


def _at(place: int, rule: Rule) -> Rule:
    """The rule of a part of which each layer of the checkpoint has two, for the one at `place`."""
    source = rule.source.replace("{layer}", "{half}")
    for part in ("self_attn", "mlps", "input_layernorm", "post_attention_layernorm"):
        source = source.replace(f".{part}.", f".{part}.{place}.")
    return replace(rule, source=source)


_PLAIN = LLAMA_NAMES.with_rules(*LATENT_RULES)
_OF_LAYERS = [
    replace(rule, source=rule.source.replace(".mlp.", ".mlps."))
    for rule in _PLAIN.rules
    if "{layer}" in rule.source
]
_ENDS = [rule for rule in _PLAIN.rules if "{layer}" not in rule.source]
_EXPERTS = [
    *expert_rules("mlp"),
    *router_rules("mlp.router.classifier"),
    choice_rule("mlp.router.e_score_correction_bias"),
]
_OPENING = [
    replace(rule, target=rule.target.replace(".feed_forward.", ".feed_forward.shared."))
    for rule in _OF_LAYERS
]

_NAMES = WeightMap(
    rules=(
        *_ENDS,
        *for_placement("shortcut_open", (_at(0, rule) for rule in (*_OPENING, *_EXPERTS))),
        *for_placement("shortcut_close", (_at(1, rule) for rule in _OF_LAYERS)),
    ),
    # Transformers writes gates for the experts that have no weights, too.
    ignored=(
        *(
            f"model.layers.{{layer}}.mlp.experts.{{expert}}.{name}_proj.weight"
            for name in ("gate", "up")
        ),
    ),
    ignored_if_tied=("lm_head.weight",),
    drafts=("model.mtp.",),
)

ARCHITECTURES = {"LongcatFlashForCausalLM": Architecture(longcat_flash, _NAMES)}
