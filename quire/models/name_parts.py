"""Rules of weight maps that several families share and Llama's names have not.

The rules' language and Llama's names are in `models.names`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quire.models.names import Fold, Rule, expert_rules, router_rules, shared_rules
from quire.models.spec import Placement

_LAYER, _OURS = "model.layers.{layer}", "layers.{layer}"
ALL_HEADS = (0, 1, 2)
"""q, k and v in one tensor."""


def pair(
    source: str,
    target: str,
    *,
    parts: tuple[int, ...] = (0,),
    transpose: bool = False,
    fold: Fold = "none",
) -> tuple[Rule, Rule]:
    """The rules of a weight and of the bias beside it."""
    return (
        Rule(f"{source}.weight", f"{target}.weight", parts, transpose, fold),
        Rule(f"{source}.bias", f"{target}.bias", parts, fold=fold),
    )


def ours(layer: str, *names: tuple[str, str], transpose: bool = False) -> tuple[Rule, ...]:
    """Pairs of rules for (name below `layer`, our name below `layers.{layer}`)."""
    return tuple(
        rule
        for source, target in names
        for rule in pair(f"{layer}.{source}", f"{_OURS}.{target}", transpose=transpose)
    )


def separate_heads(layer: str, *names: str) -> tuple[Rule, ...]:
    """Pairs of rules for q, k and v with a tensor each, `names` below `layer`."""
    return tuple(
        rule
        for part, name in enumerate(names)
        for rule in pair(f"{layer}.{name}", f"{_OURS}.mixer.qkv", parts=(part,))
    )


def joined_heads(source: str, *, fold: Fold = "none") -> tuple[Rule, Rule]:
    """A pair of rules for q, k and v in one tensor, in order or as `fold` says."""
    return pair(source, f"{_OURS}.mixer.qkv", parts=ALL_HEADS, fold=fold)


def gate_and_up(block: str, gate: str, up: str) -> tuple[Rule, Rule]:
    """Rules for gate and up with a tensor each below `block`."""
    target = f"{_OURS}.feed_forward.gate_up.weight"
    return Rule(f"{block}.{gate}.weight", target, (0,)), Rule(f"{block}.{up}.weight", target, (1,))


def for_placement(placement: Placement, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules for layers of one placement of norms only."""
    return tuple(replace(rule, placement=placement) for rule in rules)


GATE_UP_RULE = Rule(
    f"{_LAYER}.mlp.gate_up_proj.weight", f"{_OURS}.feed_forward.gate_up.weight", parts=(0, 1)
)
"""Gate and up in one tensor."""

PLAIN_MLP_RULES = pair(f"{_LAYER}.mlp.up_proj", f"{_OURS}.feed_forward.up")
"""A feed-forward part without gate in Llama's names."""

NORM_BIAS_RULES = (
    Rule(f"{_LAYER}.input_layernorm.bias", f"{_OURS}.norm_before_mixer.bias"),
    Rule(f"{_LAYER}.post_attention_layernorm.bias", f"{_OURS}.norm_before_feed_forward.bias"),
    Rule("model.norm.bias", "final_norm.bias"),
)
"""LayerNorms in Llama's names."""


CHOICE_RULE = Rule(
    f"{_LAYER}.mlp.gate.e_score_correction_bias", f"{_OURS}.feed_forward.choice.bias"
)
"""A bias of each expert in the choice, as DeepSeek names it."""

LATENT_RULES = (
    Rule(f"{_LAYER}.self_attn.q_proj.weight", f"{_OURS}.mixer.q.weight"),
    *(
        Rule(f"{_LAYER}.self_attn.{source}.{kind}", f"{_OURS}.mixer.{target}.{kind}")
        for source, target in (("q_a_proj", "q_down"), ("kv_a_proj_with_mqa", "kv_down"))
        for kind in ("weight", "bias")
    ),
    Rule(f"{_LAYER}.self_attn.q_a_layernorm.weight", f"{_OURS}.mixer.q_norm.weight"),
    Rule(f"{_LAYER}.self_attn.q_b_proj.weight", f"{_OURS}.mixer.q_up.weight"),
    Rule(f"{_LAYER}.self_attn.kv_a_layernorm.weight", f"{_OURS}.mixer.kv_norm.weight"),
    Rule(f"{_LAYER}.self_attn.kv_b_proj.weight", f"{_OURS}.mixer.kv_up.weight"),
)
"""Latent attention."""

DEEPSEEK_RULES = (
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    CHOICE_RULE,
    *shared_rules("mlp.shared_experts"),
)
"""Experts beside ones that all tokens pass, as DeepSeek names them."""
