"""Doge: keys that add to their scores what is made of values, factors of the stream's numbers.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.hf_parts import demand
from quire.models.lengths import derived_max_len
from quire.models.name_parts import LAYER, OURS, pair
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES, Rule
from quire.models.spec import DecoderSpec

_TOLD = 8  # numbers kept for one of each key, so that heads stay whole vectors


def doge(hf: HfConfig) -> DecoderSpec:
    """`DogeForCausalLM` without experts; defaults as in DogeConfig. Source: arXiv 2412.11834.

    No sequence is longer than `keep_window_size`, from which on each query would see that many keys alone.
    """
    demand(hf, "its experts are chosen by all tokens of a step together", is_moe=False)
    hf.skip("num_experts", "num_experts_per_tok", "norm_topk_prob", "expert_retrieval_size")
    hf.skip("num_cdmoe_experts", "num_cdmoe_experts_per_head", "num_cdmoe_heads")
    demand(hf, "no checkpoint of this architecture has it", hidden_bias=False)
    if hf.float_("dynamic_mask_ratio", 0.0):
        raise hf.refuse("dynamic_mask_ratio", "keys are never left out; it must be 0")
    one = attention(hf, window=hf.optional_int("sliding_window"), normed=1e-6)
    one = replace(
        one,
        head_size=one.head_size + _TOLD,
        value_head=one.head_size,
        scale=one.query_scale,
        told=_TOLD,
    )
    part = dense(hf, bias=hf.bool_("mlp_bias", False))
    spec = plain(hf, one, part, placement="pre_weighed")
    return replace(spec, max_len=min(hf.int_("keep_window_size", 2048), derived_max_len(spec)))


_NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES,
    Rule(f"{LAYER}.self_attn.A", f"{OURS}.mixer.rates"),
    *pair(f"{LAYER}.self_attn.dt_proj", f"{OURS}.mixer.steps"),
    Rule(f"{LAYER}.input_residual", f"{OURS}.kept_by_mixer"),
    Rule(f"{LAYER}.post_attention_residual", f"{OURS}.kept_by_feed_forward"),
)

ARCHITECTURES = {"DogeForCausalLM": Architecture(doge, _NAMES)}
