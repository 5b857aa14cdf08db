"""GLM-4: neighbours of half a head turn in pairs, gate and up in one tensor; from 0414 on norms around each part.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain, with_placement
from quire.models.name_parts import GATE_UP_RULE
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import DecoderSpec


def glm(hf: HfConfig) -> DecoderSpec:
    """`GlmForCausalLM`; defaults as in GlmConfig. Source: arXiv 2406.12793."""
    mixer = attention(
        hf,
        bias=None,
        kv_heads=2,
        head_dim=128,
        part=("partial_rotary_factor", 0.5),
        interleaved=True,
        qkv_bias=hf.bool_("attention_bias", True),
    )
    return plain(hf, mixer, dense(hf), eps=1.5625e-7, max_len=131_072)


def glm4(hf: HfConfig) -> DecoderSpec:
    """`Glm4ForCausalLM`."""
    return with_placement(glm(hf), "sandwich")


_LAYER, _OURS = "model.layers.{layer}", "layers.{layer}"

GLM_NAMES = LLAMA_NAMES.without(f"{_OURS}.feed_forward.gate_up").with_rules(GATE_UP_RULE)
GLM4_NAMES = GLM_NAMES.with_rules(
    Rule(f"{_LAYER}.post_self_attn_layernorm.weight", f"{_OURS}.norm_after_mixer.weight"),
    Rule(f"{_LAYER}.post_mlp_layernorm.weight", f"{_OURS}.norm_after_feed_forward.weight"),
)

ARCHITECTURES = {
    "GlmForCausalLM": Architecture(glm, GLM_NAMES),
    "Glm4ForCausalLM": Architecture(glm4, GLM4_NAMES),
}
