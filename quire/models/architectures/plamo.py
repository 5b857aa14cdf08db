"""PLaMo 3: Gemma's order of norms with weights around other numbers, windows in most layers, SwiGLU.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.hf_parts import demand, yarn_magnitude
from quire.models.name_parts import OURS, with_head
from quire.models.names import Rule
from quire.models.spec import DecoderSpec, Rope, YarnScaling


def plamo3(hf: HfConfig) -> DecoderSpec:
    """`Plamo3ForCausalLM`; defaults as in Plamo3Config. Source: the code that comes with the published files."""
    demand(hf, attention_bias=False, scale_embedding=False)
    # Copies of what the window and its pattern say, which some versions wrote.
    hf.skip("sliding_window", "interleaved_sliding_window")
    size = hf.int_("head_dim", 128)
    everywhere = Rope(dim=size, theta=hf.positive("rope_theta", 150_000.0))
    factor, first = (
        hf.positive("rope_scaling_factor", 1.0),
        hf.optional_int("initial_context_length"),
    )
    if (factor == 1) != (first is None):
        raise hf.refuse(
            "initial_context_length", "it must stand beside a rope_scaling_factor other than 1"
        )
    if first is not None:
        growth = yarn_magnitude(factor, 1.0)
        scaling = YarnScaling(
            factor=factor, original_len=first, attention_factor=growth, truncate=False
        )
        everywhere = replace(everywhere, scaling=scaling)
    near = Rope(dim=size, theta=hf.positive("rope_local_theta", 10_000.0))
    window, pattern = hf.int_("window_size"), hf.int_("sliding_window_pattern", 8)
    one = attention(hf, bias=None, kv_heads=4, head_dim=128, rope=everywhere, normed=1e-6)
    slid = replace(one, rope=near, window=window)
    mixers = [
        one if (index + 1) % pattern == 0 else slid for index in range(hf.int_("num_hidden_layers"))
    ]
    hf.choice("hidden_activation", {"swiglu": None}, "swiglu")
    part = dense(hf, activation="silu")
    return plain(hf, mixers, part, placement="sandwich", tie=True)


_LAYER = "model.layers.layers.{layer}"
NAMES = with_head(
    Rule("model.embed_tokens.weight", "embedding.weight"),
    Rule(f"{_LAYER}.mixer.qkv_proj.weight", f"{OURS}.mixer.qkv.weight", parts=(0, 1, 2)),
    Rule(f"{_LAYER}.mixer.q_norm.weight", f"{OURS}.mixer.q_norm.weight", fold="add_one"),
    Rule(f"{_LAYER}.mixer.k_norm.weight", f"{OURS}.mixer.k_norm.weight", fold="add_one"),
    Rule(f"{_LAYER}.mixer.o_proj.weight", f"{OURS}.mixer.out.weight"),
    Rule(f"{_LAYER}.mlp.gate_up_proj.weight", f"{OURS}.feed_forward.gate_up.weight", parts=(0, 1)),
    Rule(f"{_LAYER}.mlp.down_proj.weight", f"{OURS}.feed_forward.down.weight"),
    Rule(f"{_LAYER}.pre_mixer_norm.weight", f"{OURS}.norm_before_mixer.weight", fold="add_one"),
    Rule(f"{_LAYER}.post_mixer_norm.weight", f"{OURS}.norm_after_mixer.weight", fold="add_fifth"),
    Rule(
        f"{_LAYER}.pre_mlp_norm.weight", f"{OURS}.norm_before_feed_forward.weight", fold="add_one"
    ),
    Rule(
        f"{_LAYER}.post_mlp_norm.weight",
        f"{OURS}.norm_after_feed_forward.weight",
        fold="add_eleventh",
    ),
    Rule("model.norm.weight", "final_norm.weight", fold="add_one"),
)

ARCHITECTURES = {"Plamo3ForCausalLM": Architecture(plamo3, NAMES)}
