"""Llama, Mistral, Ministral and Mixtral: the plain layer, with windows in some checkpoints, or with experts.

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
from quire.models.hf_deepseek import growing_experts
from quire.models.hf_parts import growth_of, windows
from quire.models.hf_text import llava_names, text_alone
from quire.models.name_parts import DEEPSEEK_RULES, LATENT_RULES
from quire.models.names import LLAMA_NAMES, expert_rules, router_rules
from quire.models.spec import DecoderSpec


def llama(hf: HfConfig) -> DecoderSpec:
    """`LlamaForCausalLM`. Defaults are those of Transformers' LlamaConfig."""
    return plain(hf, attention(hf), dense(hf, bias=hf.bool_("mlp_bias", False)))


def mistral(hf: HfConfig, *, window: int | None = 4096) -> DecoderSpec:
    """`MistralForCausalLM`, `MinistralForCausalLM`: windows, unless null, in all layers or as `layer_types` says."""
    mixer = attention(hf, bias=None, kv_heads=8)
    mixers = [replace(mixer, window=size) for _, size in windows(hf, lambda index: True, window)]
    return plain(hf, mixers, dense(hf), max_len=131_072)


def mixtral(hf: HfConfig) -> DecoderSpec:
    """`MixtralForCausalLM`: Mistral with experts of `intermediate_size`. Source: arXiv 2401.04088."""
    return with_parts(mistral(hf, window=None), experts(hf, 8, 2, key="num_local_experts"))


def ministral3(hf: HfConfig) -> DecoderSpec:
    """`Ministral3ForCausalLM`: queries grow with each trained length that they stand behind."""
    one = attention(
        hf,
        bias=None,
        kv_heads=8,
        head_dim=128,
        window=hf.optional_int("sliding_window"),
        temperature=growth_of(hf),
    )
    return plain(hf, one, dense(hf), max_len=262_144, eps=1e-5)


def mistral3(hf: HfConfig) -> DecoderSpec:
    """The text of `Mistral3ForConditionalGeneration`: the decoder that its `model_type` names."""
    kinds = {"mistral": mistral, "ministral3": ministral3, "mistral4": growing_experts}
    spec: DecoderSpec = hf.choice("model_type", kinds, "mistral")(hf)
    return spec


def llava(hf: HfConfig) -> DecoderSpec:
    """The text of `LlavaForConditionalGeneration`: a decoder with Llama's names, which `model_type` tells."""
    spec: DecoderSpec = hf.choice("model_type", {"llama": llama, "mistral": mistral}, "llama")(hf)
    return spec


_LLAMA_SIZES = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
"""Those of Transformers' LlamaConfig, which files of models that see leave out."""

_ANY_NAMES = replace(LLAMA_NAMES, rules=(*LATENT_RULES, *LLAMA_NAMES.rules, *DEEPSEEK_RULES))
"""With latent attention and experts, or without: `q_proj` stands in both."""

ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(llama, LLAMA_NAMES),
    "MistralForCausalLM": Architecture(mistral, LLAMA_NAMES),
    "MinistralForCausalLM": Architecture(mistral, LLAMA_NAMES),
    "Ministral3ForCausalLM": Architecture(ministral3, LLAMA_NAMES),
    "Mistral3ForConditionalGeneration": Architecture(
        text_alone(mistral3),
        llava_names(_ANY_NAMES),
    ),
    "LlavaForConditionalGeneration": Architecture(
        text_alone(llava, defaults=_LLAMA_SIZES), llava_names(LLAMA_NAMES)
    ),
    "LlavaNextForConditionalGeneration": Architecture(
        text_alone(llava, defaults=_LLAMA_SIZES),
        llava_names(LLAMA_NAMES, ("vision_tower.", "multi_modal_projector.", "image_newline")),
    ),
    "MixtralForCausalLM": Architecture(
        mixtral,
        LLAMA_NAMES.with_rules(
            *expert_rules("block_sparse_moe", ("w1", "w3", "w2")),
            *router_rules("block_sparse_moe.gate"),
        ),
    ),
}
