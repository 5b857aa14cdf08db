"""Grok 1: norms around each part, capped scores, experts weighed by their share of all.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, experts, plain, with_parts
from quire.models.name_parts import LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule, WeightMap, expert_rules, router_rules
from quire.models.spec import DecoderSpec


def grok1(hf: HfConfig) -> DecoderSpec:
    """`Grok1ModelForCausalLM` and `Grok1ForCausalLM`: factors of embedding, scores and logits.

    Defaults as in Grok1Config. Source: github.com/xai-org/grok-1, whose weights of experts do not sum to one.
    """
    one = attention(
        hf,
        bias=None,
        heads=48,
        kv_heads=8,
        scale=hf.positive("attn_output_multiplier", 128**-0.5),
        softcap=hf.positive("max_attn_value", 30.0),
    )
    hf.choice(
        "hidden_act", {"gelu": None}, "gelu"
    )  # which stands for its form with tanh in that code
    part = experts(hf, 8, 2, normalize=False, activation="gelu_tanh", router_float32=True)
    spec = plain(
        hf,
        one,
        dense(hf, activation="gelu_tanh"),
        eps=1e-5,
        placement="sandwich",
        max_len=8192,
        tie=True,
        embedding_scale=hf.positive("embedding_multiplier_scale", 6144**0.5),
        logit_scale=hf.positive("output_multiplier_scale", 3**-0.5),
    )
    return with_parts(spec, part)


def _names(kind: str) -> WeightMap:
    """The map where a norm's weight is called `kind`."""
    names = LLAMA_NAMES.without(
        f"{OURS}.norm_before_mixer", f"{OURS}.norm_before_feed_forward", "final_norm"
    )
    places = (
        ("pre_attn", "before_mixer"),
        ("post_attn", "after_mixer"),
        ("pre_moe", "before_feed_forward"),
        ("post_moe", "after_feed_forward"),
    )
    rules = (
        replace(rule, source=rule.source.replace(".self_attn.", ".attn.")) for rule in names.rules
    )
    return replace(names, rules=tuple(rules)).with_rules(
        *(Rule(f"{LAYER}.{at}_norm.{kind}", f"{OURS}.norm_{place}.weight") for at, place in places),
        *expert_rules("moe_block", ("linear", "linear_v", "linear_1")),
        *router_rules("moe_block.gate"),
        Rule(f"model.norm.{kind}", "final_norm.weight"),
    )


ARCHITECTURES = {
    "Grok1ModelForCausalLM": Architecture(grok1, _names("scale")),
    "Grok1ForCausalLM": Architecture(grok1, _names("weight")),
}
