"""Ouro: a decoder whose layers run several times, each time with keys and values of their own.

The rest of it is Llama's, with norms on both sides of each part. Source: arXiv 2510.25741.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.hf_parts import demand, layer_kinds
from quire.models.name_parts import LAYER, ours
from quire.models.names import LLAMA_NAMES
from quire.models.spec import DecoderSpec


def ouro(hf: HfConfig) -> DecoderSpec:
    """`OuroForCausalLM`. All loops run: a file that lets tokens leave earlier is refused."""
    demand(hf, "this architecture has no windows", use_sliding_window=False)
    hf.skip("sliding_window", "max_window_layers")
    layer_kinds(hf, ("full_attention",), lambda index: "full_attention")
    if hf.float_("early_exit_threshold", 1.0) != 1.0:
        raise hf.refuse("early_exit_threshold", "all tokens run all loops here, which is 1.0")
    return plain(
        hf,
        attention(hf, bias=None, head_dim=128, theta=("rope_theta", 1_000_000.0)),
        dense(hf),
        placement="sandwich",
        max_len=65_536,
        loops=hf.int_("total_ut_steps", 4),
    )


NAMES = LLAMA_NAMES.with_rules(
    *ours(
        LAYER,
        ("input_layernorm_2", "norm_after_mixer"),
        ("post_attention_layernorm_2", "norm_after_feed_forward"),
    )
)
_GATE = tuple(f"model.early_exit_gate.{kind}" for kind in ("weight", "bias"))

ARCHITECTURES = {
    "OuroForCausalLM": Architecture(ouro, replace(NAMES, ignored=(*NAMES.ignored, *_GATE))),
}
