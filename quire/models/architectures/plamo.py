"""PLaMo 3: Gemma's order of norms with weights around other numbers, windows in most layers, SwiGLU.

PLaMo 2 has the same order, and state-space mixers in some layers.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.hf_mamba import STATE_LEN, with_mixers
from quire.models.hf_parts import demand, yarn_magnitude
from quire.models.name_parts import OURS, with_head
from quire.models.names import Rule
from quire.models.recurrent import HeadMamba
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


def plamo2(hf: HfConfig) -> DecoderSpec:
    """`Plamo2ForCausalLM`; defaults as in Plamo2Config. Source: the code that comes with the published files."""
    hf.skip("mamba_chunk_size", "sliding_window", *_OTHER_KEYS)
    demand(hf, mamba_enabled=True)
    hf.choice("linear_type", {"normal": None}, "normal")
    size, count = hf.int_("hidden_size_per_head", 128), hf.int_("num_hidden_layers", 32)
    eps, theta = hf.positive("rms_norm_eps", 1e-6), hf.positive("rope_theta", 10_000.0)
    one = attention(
        hf,
        bias=None,
        heads=32,
        kv_heads=4,
        head_dim=size,
        rope=Rope(dim=size, theta=theta),
        qk_norm="own_per_head",
    )
    local = Rope(dim=size, theta=hf.positive("rope_local_theta", theta))
    slid = replace(one, rope=local, window=hf.int_("attention_window_size", 2048) + 1)
    whole = hf.integers("full_attention_idx")
    mixers = [one if index in whole else slid for index in range(count)]
    width = hf.int_("hidden_size", 4096)
    mamba = HeadMamba(
        num_heads=hf.int_("mamba_num_heads", 64),
        head_size=size,
        state_size=hf.int_("mamba_d_state", 64),
        step_rank=max(64, width // 16),
        kernel=hf.int_("mamba_d_conv", 4),
        norm_eps=eps,
    )
    step = hf.int_("mamba_step", 2, minimum=2)
    part, length = dense(hf, activation="silu"), hf.int_("max_position_embeddings", STATE_LEN)
    spec = plain(hf, mixers, part, placement="sandwich", tie=True)
    spec = replace(spec, max_position_embeddings=min(length, STATE_LEN))
    few = count <= step // 2
    return with_mixers(
        spec, mamba, lambda index: index == count - 1 if few else index % step == step // 2
    )


_OTHER_KEYS = (
    "image_token_id",
    "image_feature_size",
    "image_proj_type",
    "fp8_accum_dtype",
    "eval_attention_n_bit",
    "eval_mlp_n_bit",
    "capacity_factor",
    "expert_dropout",
)
"""Of images, of storage, and of how the model was tried."""

_LAYER = "model.layers.layers.{layer}"
_BOTH = with_head(
    Rule("model.embed_tokens.weight", "embedding.weight"),
    Rule(f"{_LAYER}.mixer.qkv_proj.weight", f"{OURS}.mixer.qkv.weight", parts=(0, 1, 2)),
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

NAMES = _BOTH.with_rules(
    Rule(f"{_LAYER}.mixer.q_norm.weight", f"{OURS}.mixer.q_norm.weight", fold="add_one"),
    Rule(f"{_LAYER}.mixer.k_norm.weight", f"{OURS}.mixer.k_norm.weight", fold="add_one"),
)
_STATES = _BOTH.with_rules(
    Rule(f"{_LAYER}.mixer.q_weight", f"{OURS}.mixer.q_norm.weight"),
    Rule(f"{_LAYER}.mixer.k_weight", f"{OURS}.mixer.k_norm.weight"),
    Rule(f"{_LAYER}.mixer.in_proj.weight", f"{OURS}.mixer.in.weight", (0, 1), fold="gather_heads"),
    Rule(f"{_LAYER}.mixer.conv1d.weight", f"{OURS}.mixer.conv.weight"),
    Rule(f"{_LAYER}.mixer.bcdt_proj.weight", f"{OURS}.mixer.made.weight", parts=(0, 1, 2)),
    Rule(f"{_LAYER}.mixer.B_norm_weight", f"{OURS}.mixer.write_norm.weight"),
    Rule(f"{_LAYER}.mixer.C_norm_weight", f"{OURS}.mixer.read_norm.weight"),
    Rule(f"{_LAYER}.mixer.dt_norm_weight", f"{OURS}.mixer.step_norm.weight"),
    Rule(f"{_LAYER}.mixer.dt_proj.weight", f"{OURS}.mixer.step.weight"),
    Rule(f"{_LAYER}.mixer.dt_bias", f"{OURS}.mixer.step_bias"),
    Rule(f"{_LAYER}.mixer.A_log", f"{OURS}.mixer.decay", fold="minus_exp"),
    Rule(f"{_LAYER}.mixer.D", f"{OURS}.mixer.skip"),
    Rule(f"{_LAYER}.mixer.out_proj.weight", f"{OURS}.mixer.back.weight"),
)

ARCHITECTURES = {
    "Plamo2ForCausalLM": Architecture(plamo2, _STATES),
    "Plamo3ForCausalLM": Architecture(plamo3, NAMES),
}
