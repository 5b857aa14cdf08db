"""Rules of weight maps that several families share and Llama's names have not.

The rules' language and Llama's names are in `models.names`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from quire.models.names import Fold, Rule, WeightMap, expert_rules, router_rules, shared_rules
from quire.models.spec import Placement

LAYER, GPT_LAYER, OURS = "model.layers.{layer}", "transformer.h.{layer}", "layers.{layer}"
"""Where a layer stands in Llama's names, in GPT-2's, and in ours."""
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
        for rule in pair(f"{layer}.{source}", f"{OURS}.{target}", transpose=transpose)
    )


def separate_heads(layer: str, *names: str) -> tuple[Rule, ...]:
    """Pairs of rules for q, k and v with a tensor each, `names` below `layer`."""
    return tuple(
        rule
        for part, name in enumerate(names)
        for rule in pair(f"{layer}.{name}", f"{OURS}.mixer.qkv", parts=(part,))
    )


def joined_heads(source: str, *, fold: Fold = "none") -> tuple[Rule, Rule]:
    """A pair of rules for q, k and v in one tensor, in order or as `fold` says."""
    return pair(source, f"{OURS}.mixer.qkv", parts=ALL_HEADS, fold=fold)


def gate_and_up(block: str, gate: str, up: str) -> tuple[Rule, Rule]:
    """Rules for gate and up with a tensor each below `block`."""
    target = f"{OURS}.feed_forward.gate_up.weight"
    return Rule(f"{block}.{gate}.weight", target, (0,)), Rule(f"{block}.{up}.weight", target, (1,))


GPT_PARTS = (
    ("ln_1", "norm_before_mixer"),
    ("ln_2", "norm_before_feed_forward"),
    ("mlp.c_proj", "feed_forward.down"),
)
"""What layers in GPT-2's names mostly have in common, for `ours`."""

MEGATRON_PARTS = (
    ("input_layernorm", "norm_before_mixer"),
    ("post_attention_layernorm", "norm_before_feed_forward"),
    ("mlp.dense_4h_to_h", "feed_forward.down"),
)
"""The same in Megatron's names."""


def transformer_map(
    *rules: Rule, ignored: tuple[str, ...] = (), optional_prefix: str = ""
) -> WeightMap:
    """The map of files in GPT-2's names: `transformer.wte`, `transformer.ln_f`, `lm_head`, and these rules."""
    return WeightMap(
        rules=(
            Rule("transformer.wte.weight", "embedding.weight"),
            *rules,
            *pair("transformer.ln_f", "final_norm"),
            Rule("lm_head.weight", "head.weight"),
        ),
        ignored=ignored,
        ignored_if_tied=("lm_head.weight",),
        optional_prefix=optional_prefix,
    )


def with_head(*rules: Rule, ignored: tuple[str, ...] = (), optional_prefix: str = "") -> WeightMap:
    """The map of these rules and of the output matrix `lm_head`, which files with a tied embedding may have too."""
    return WeightMap(
        rules=(*rules, Rule("lm_head.weight", "head.weight")),
        ignored=ignored,
        ignored_if_tied=("lm_head.weight",),
        optional_prefix=optional_prefix,
    )


def nested(names: WeightMap, *others: str) -> WeightMap:
    """The map of a decoder that stands below `model.language_model`, beside `others` below `model`."""
    rules = tuple(replace(rule, source=_inside(rule.source)) for rule in names.rules)
    ignored = tuple(_inside(name) for name in names.ignored)
    drafts = (*names.drafts, *(f"model.{other}" for other in others))
    return replace(names, rules=rules, ignored=ignored, drafts=drafts)


def _inside(name: str) -> str:
    return re.sub(r"^model\.", "model.language_model.", name)


def for_placement(placement: Placement, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules for layers of one placement of norms only."""
    return tuple(replace(rule, placement=placement) for rule in rules)


GATE_UP_RULE = Rule(
    f"{LAYER}.mlp.gate_up_proj.weight", f"{OURS}.feed_forward.gate_up.weight", parts=(0, 1)
)
"""Gate and up in one tensor."""

PLAIN_MLP_RULES = pair(f"{LAYER}.mlp.up_proj", f"{OURS}.feed_forward.up")
"""A feed-forward part without gate in Llama's names."""

NORM_BIAS_RULES = (
    Rule(f"{LAYER}.input_layernorm.bias", f"{OURS}.norm_before_mixer.bias"),
    Rule(f"{LAYER}.post_attention_layernorm.bias", f"{OURS}.norm_before_feed_forward.bias"),
    Rule("model.norm.bias", "final_norm.bias"),
)
"""LayerNorms in Llama's names."""


def choice_rule(source: str) -> Rule:
    """The rule for a bias of each expert in the choice, `source` below a layer."""
    return Rule(f"{LAYER}.{source}", f"{OURS}.feed_forward.choice.bias")


CHOICE_RULE = choice_rule("mlp.gate.e_score_correction_bias")
"""A bias of each expert in the choice, as DeepSeek names it."""

LATENT_RULES = (
    Rule(f"{LAYER}.self_attn.q_proj.weight", f"{OURS}.mixer.q.weight"),
    *(
        Rule(f"{LAYER}.self_attn.{source}.{kind}", f"{OURS}.mixer.{target}.{kind}")
        for source, target in (("q_a_proj", "q_down"), ("kv_a_proj_with_mqa", "kv_down"))
        for kind in ("weight", "bias")
    ),
    Rule(f"{LAYER}.self_attn.q_a_layernorm.weight", f"{OURS}.mixer.q_norm.weight"),
    Rule(f"{LAYER}.self_attn.q_b_proj.weight", f"{OURS}.mixer.q_up.weight"),
    Rule(f"{LAYER}.self_attn.kv_a_layernorm.weight", f"{OURS}.mixer.kv_norm.weight"),
    Rule(f"{LAYER}.self_attn.kv_b_proj.weight", f"{OURS}.mixer.kv_up.weight"),
)
"""Latent attention."""

INDEXER_RULES = tuple(
    Rule(f"{LAYER}.self_attn.indexer.{source}", f"{OURS}.mixer.indexer.{target}")
    for source, target in (
        ("wq_b.weight", "q.weight"),
        ("wk.weight", "key.weight"),
        ("k_norm.weight", "key_norm.weight"),
        ("k_norm.bias", "key_norm.bias"),
        ("weights_proj.weight", "weigh.weight"),
    )
)
"""What picks the tokens that a query sees, as DeepSeek names it."""

DEEPSEEK_RULES = (
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    CHOICE_RULE,
    *shared_rules("mlp.shared_experts"),
)
"""Experts beside ones that all tokens pass, as DeepSeek names them."""
