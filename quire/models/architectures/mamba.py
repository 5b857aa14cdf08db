"""Mamba, Falcon Mamba, Mamba 2: nothing but state-space mixers.

Spellings shared with hybrids are in `models.hf_mamba`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder
from quire.models.hf_mamba import (
    STATE_LEN,
    mamba1,
    mamba1_rules,
    mamba_rules,
    silu_only,
    skip_training,
    step_rank,
)
from quire.models.name_parts import OURS
from quire.models.names import Rule, WeightMap
from quire.models.recurrent import Mamba1, Mamba2
from quire.models.spec import DecoderSpec, LayerSpec


def mamba(hf: HfConfig) -> DecoderSpec:
    """`MambaForCausalLM`; defaults as in MambaConfig. Source: arXiv 2312.00752."""
    return _states(hf, mamba1(hf), tie=True)


def falcon_mamba(hf: HfConfig) -> DecoderSpec:
    """`FalconMambaForCausalLM`: norms without weights of what makes the states' steps and vectors."""
    mixer = mamba1(hf, norms="fixed", norm_eps=hf.positive("mixer_rms_eps", 1e-6))
    return _states(hf, mixer, tie=True)


def mamba_2(hf: HfConfig) -> DecoderSpec:
    """`Mamba2ForCausalLM`; defaults as in Mamba2Config. Source: arXiv 2405.21060."""
    heads, size = hf.int_("num_heads", 128), hf.int_("head_dim", 64)
    if heads * size != hf.int_("expand", 2) * hf.int_("hidden_size"):
        raise hf.refuse("num_heads", f"times head_dim {size} it must be expand times hidden_size")
    step_rank(hf)
    groups = hf.int_("n_groups", 8)
    mixer = Mamba2(
        num_heads=heads,
        head_size=size,
        state_size=hf.int_("state_size", 128),
        num_groups=groups,
        kernel=hf.int_("conv_kernel", 4),
        conv_bias=hf.bool_("use_conv_bias", True),
        bias=hf.bool_("use_bias", False),
        norm_groups=groups,
        norm_eps=hf.positive("layer_norm_epsilon", 1e-5),
        step_limit=hf.span("time_step_limit"),
    )
    return _states(hf, mixer, tie=False)


def _states(hf: HfConfig, mixer: Mamba1 | Mamba2, *, tie: bool) -> DecoderSpec:
    skip_training(hf)
    silu_only(hf)
    hf.skip("intermediate_size", "expand", "n_layer")
    hf.skip("norm_before_gate", "rms_norm")  # Transformers reads neither
    hf.skip("d_inner", "d_model", "dt_rank", "ssm_cfg")  # left over from the first package
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=None,
        placement="mixer_only",
        norm_eps=hf.positive("layer_norm_epsilon", 1e-5),
    )
    return decoder(hf, layer, tie=tie, max_len=STATE_LEN)


_LAYER = "backbone.layers.{layer}"

NAMES = WeightMap(
    rules=(
        Rule("backbone.embeddings.weight", "embedding.weight"),
        Rule(f"{_LAYER}.norm.weight", f"{OURS}.norm_before_mixer.weight"),
        Rule("backbone.norm_f.weight", "final_norm.weight"),
        Rule("lm_head.weight", "head.weight"),
    ),
    ignored_if_tied=("lm_head.weight",),
)
MAMBA_NAMES = replace(NAMES, rules=(*NAMES.rules, *mamba1_rules(f"{_LAYER}.mixer")))
MAMBA2_NAMES = replace(NAMES, rules=(*NAMES.rules, *mamba_rules(f"{_LAYER}.mixer")))

ARCHITECTURES = {
    "MambaForCausalLM": Architecture(mamba, MAMBA_NAMES),
    "FalconMambaForCausalLM": Architecture(falcon_mamba, MAMBA_NAMES),
    "Mamba2ForCausalLM": Architecture(mamba_2, MAMBA2_NAMES),
}
