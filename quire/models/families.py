"""Every architecture that is described here, by the name that config.json gives it, and its other names.

Plug-ins' and what a checkpoint's folder holds are `models.registry`'s.
"""

from __future__ import annotations

from typing import Any

from quire.models.architectures import (
    afmoe,
    arctic,
    bailing,
    bart,
    beam,
    bert,
    bert_kin,
    bert_rope,
    bitnet,
    bloom,
    cohere,
    dbrx,
    deepseek,
    deepseek_v4,
    diffllama,
    doge,
    ernie,
    exaone,
    flint,
    gemma,
    gemma_edge,
    glm,
    glm_moe,
    gpt_classic,
    gpt_kin,
    gpt_oss,
    gptj,
    granite,
    grok,
    hunyuan,
    hy_v4,
    hybrid,
    internlm,
    jetmoe,
    kimi,
    kolibri,
    laguna,
    lfm,
    ling,
    llama,
    llama4,
    llama_kin,
    llama_skips,
    longcat,
    mamba,
    mimo,
    minimax,
    minimax_m3,
    modern_decoder,
    nanochat,
    nemotron,
    nemotron_nas,
    olmo,
    olmo_hybrid,
    ouro,
    phi,
    phimoe,
    plamo,
    qwen,
    qwen_next,
    recurrent_gemma,
    rwkv,
    stablelm,
    step,
    t5,
    xlstm,
    zamba,
)
from quire.models.family import Architecture

_FAMILIES: list[Any] = [
    bert,
    bert_kin,
    bert_rope,
    llama,
    qwen,
    qwen_next,
    gemma,
    phi,
    olmo,
    cohere,
    granite,
]
_FAMILIES += [gpt_classic, deepseek, deepseek_v4, dbrx, glm_moe, gpt_oss, phimoe, bloom, exaone]
_FAMILIES += [ernie, glm, gptj, hunyuan, hybrid, internlm, kimi, lfm, llama4, llama_kin]
_FAMILIES += [mamba, nemotron, nemotron_nas, bailing, stablelm, gemma_edge]
_FAMILIES += [olmo_hybrid, afmoe, minimax, jetmoe, doge, flint, xlstm, beam]
_FAMILIES += [ouro, zamba, nanochat, mimo]
_FAMILIES += [llama_skips, plamo, step]
_FAMILIES += [gpt_kin, grok, longcat, bart, t5]
_FAMILIES += [modern_decoder, bitnet, arctic, diffllama, laguna, recurrent_gemma, rwkv]
_FAMILIES += [kolibri, ling, hy_v4, minimax_m3]
ARCHITECTURES: dict[str, Architecture] = {
    name: found for family in _FAMILIES for name, found in family.ARCHITECTURES.items()
}

ALIASES = {
    "MPTForCausalLM": "MptForCausalLM",
    "MiniMaxText01ForCausalLM": "MiniMaxForCausalLM",
    "MiniMaxM1ForCausalLM": "MiniMaxForCausalLM",
    "ChatGLMModel": "ChatGLMForConditionalGeneration",
    "GteNewModel": "NewModel",
    "SnowflakeGteNewModel": "GteModel",
    "AquilaModel": "LlamaForCausalLM",
    "AquilaForCausalLM": "LlamaForCausalLM",
    "LLaMAForCausalLM": "LlamaForCausalLM",
    "XverseForCausalLM": "LlamaForCausalLM",
    "BailingMoeV3ForCausalLM": "BailingHybridForCausalLM",
    "TeleChat3ForCausalLM": "LlamaForCausalLM",
    "Kimi_K25ForConditionalGeneration": "KimiK25ForConditionalGeneration",
    "MistralLarge3ForCausalLM": "Mistral4ForCausalLM",
    "RWForCausalLM": "FalconForCausalLM",
    "JetMoEForCausalLM": "JetMoeForCausalLM",
    "StableLMEpochForCausalLM": "StableLmForCausalLM",
}
"""Other names under which published files know an architecture above."""


def known_as(name: str) -> str:
    """The name in ARCHITECTURES of an alias, else the same name."""
    return ALIASES.get(name, name)
