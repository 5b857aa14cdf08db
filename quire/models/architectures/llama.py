"""Llama, Mistral and Mixtral: the plain layer, with windows in some checkpoints, or with experts.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    attention,
    dense,
    experts,
    plain,
    with_parts,
)
from quire.models.hf_parts import sliding_layers
from quire.models.names import LLAMA_NAMES, expert_rules, router_rules
from quire.models.spec import DecoderSpec


def llama(hf: HfConfig) -> DecoderSpec:
    """`LlamaForCausalLM`. Defaults are those of Transformers' LlamaConfig."""
    return plain(hf, attention(hf), dense(hf, bias=hf.bool_("mlp_bias", False)))


def mistral(hf: HfConfig, *, window: int | None = 4096) -> DecoderSpec:
    """`MistralForCausalLM`, `MinistralForCausalLM`: windows, unless null, in all layers or as `layer_types` says."""
    size = hf.optional_int("sliding_window", window)
    mixer = attention(hf, bias=None, kv_heads=8)
    slides = sliding_layers(hf, lambda index: size is not None)
    mixers = [replace(mixer, window=size if slide else None) for slide in slides]
    return plain(hf, mixers, dense(hf), max_len=131_072)


def mixtral(hf: HfConfig) -> DecoderSpec:
    """`MixtralForCausalLM`: Mistral with experts of `intermediate_size`. Source: arXiv 2401.04088."""
    part = experts(
        hf,
        num_experts=hf.int_("num_local_experts", 8),
        top_k=hf.int_("num_experts_per_tok", 2),
    )
    return with_parts(mistral(hf, window=None), part)


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(llama, LLAMA_NAMES),
    "MistralForCausalLM": Architecture(mistral, LLAMA_NAMES),
    "MinistralForCausalLM": Architecture(mistral, LLAMA_NAMES),
    "MixtralForCausalLM": Architecture(
        mixtral,
        LLAMA_NAMES.with_rules(
            *expert_rules("block_sparse_moe", ("w1", "w3", "w2")),
            *router_rules("block_sparse_moe.gate"),
        ),
    ),
}
