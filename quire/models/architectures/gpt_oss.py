"""gpt-oss: attention sinks, every other layer with a window, experts with biases and a clamped gate.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, experts
from quire.models.hf_parts import windows
from quire.models.names import LLAMA_NAMES, Rule, router_rules
from quire.models.spec import DecoderSpec, LayerSpec

_SLOPE = 1.702  # of the gate's sigmoid, which `ops.moe` has as a constant


def gpt_oss(hf: HfConfig) -> DecoderSpec:
    """`GptOssForCausalLM` with the experts' numbers in floats. Source: arXiv 2508.10925."""
    hf.skip(
        "experts_per_token", "initial_context_length", "hidden_act"
    )  # said elsewhere, or unused
    if hf.float_("swiglu_alpha", _SLOPE) != _SLOPE:
        raise hf.refuse("swiglu_alpha", f"only {_SLOPE} is computed")
    eps = hf.positive("rms_norm_eps", 1e-5)
    mixer = attention(
        hf,
        bias=True,
        heads=64,
        kv_heads=8,
        head_dim=64,
        theta=("rope_theta", 150_000.0),
        sinks=True,
    )
    part = experts(
        hf,
        128,
        4,
        key="num_local_experts",
        activation="swiglu_clamped",
        limit=hf.positive("swiglu_limit", 7.0),
        bias=True,
        router_bias=True,
    )
    layers = [
        LayerSpec(mixer=replace(mixer, window=window), feed_forward=part, norm_eps=eps)
        for _, window in windows(hf, lambda index: index % 2 == 0, 128)
    ]
    return decoder(hf, layers, max_len=131_072)


_LAYER = "model.layers.{layer}"
_EXPERTS, _OURS = f"{_LAYER}.mlp.experts", "layers.{layer}.feed_forward.experts.{expert}"

ARCHITECTURES = {
    "GptOssForCausalLM": Architecture(
        gpt_oss,
        LLAMA_NAMES.with_rules(
            Rule(f"{_LAYER}.self_attn.sinks", "layers.{layer}.mixer.sinks"),
            *router_rules("mlp.router"),
            Rule(
                f"{_EXPERTS}.gate_up_proj",
                f"{_OURS}.gate_up.weight",
                parts=(0, 1),
                transpose=True,
                fold="split_turns",
            ),
            Rule(
                f"{_EXPERTS}.gate_up_proj_bias",
                f"{_OURS}.gate_up.bias",
                parts=(0, 1),
                fold="split_turns",
            ),
            Rule(f"{_EXPERTS}.down_proj", f"{_OURS}.down.weight", transpose=True),
            Rule(f"{_EXPERTS}.down_proj_bias", f"{_OURS}.down.bias"),
        ),
    ),
}
