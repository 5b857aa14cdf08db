"""DiffLlama: Llama whose heads come in pairs, of which one is taken off the other.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace
from math import exp

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.hf_parts import demand
from quire.models.name_parts import LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import DecoderSpec


def diffllama(hf: HfConfig) -> DecoderSpec:
    """`DiffLlamaForCausalLM`; defaults as in DiffLlamaConfig. Source: arXiv 2410.05258."""
    hf.skip("lambda_std_dev", "gradient_accumulation_steps", "patch_size")  # of training
    demand(hf, "no checkpoint of this architecture has it", mlp_bias=False)
    one = attention(hf, norm_eps=hf.positive("rms_norm_eps", 1e-5))
    if one.num_kv_heads % 2:
        raise hf.refuse("num_key_value_heads", "heads of k come in pairs; it must be even")
    one = replace(one, value_head=2 * one.head_size)
    mixers = [
        replace(one, pairs=0.8 - 0.6 * exp(-0.3 * index))
        for index in range(hf.int_("num_hidden_layers"))
    ]
    return plain(hf, mixers, dense(hf), eps=1e-5)


_VALUES = (f"{LAYER}.self_attn.v_proj.weight", f"{LAYER}.self_attn.v_proj.bias")
_NAMES = LLAMA_NAMES.folded("paired_rows", *_VALUES).with_rules(
    *(
        Rule(f"{LAYER}.self_attn.lambda_{name}", f"{OURS}.mixer.halves", parts=(place,))
        for place, name in enumerate(("q1", "k1", "q2", "k2"))
    )
)

ARCHITECTURES = {"DiffLlamaForCausalLM": Architecture(diffllama, _NAMES)}
