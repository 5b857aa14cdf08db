"""Nemotron, Jais 2 and Persimmon: a feed-forward part of squared ReLU without gate; Nemotron-H.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

import math
from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder, dense
from quire.models.hf_deepseek import sigmoid_experts
from quire.models.hf_mamba import mamba_rules, silu_only, skip_training
from quire.models.name_parts import (
    LAYER,
    MEGATRON_PARTS,
    NORM_BIAS_RULES,
    OURS,
    PLAIN_MLP_RULES,
    joined_heads,
    ours,
    pair,
    separate_heads,
    with_head,
)
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.recurrent import Mamba2
from quire.models.spec import (
    Attention,
    DecoderSpec,
    Dense,
    FeedForward,
    LayerSpec,
    Mixer,
    Moe,
)


def nemotron(hf: HfConfig) -> DecoderSpec:
    """`NemotronForCausalLM`: parts of heads turned, norms of 1 + w. Source: arXiv 2402.16819."""
    hf.skip("kv_channels")
    return _decoder(
        hf,
        attention(hf, part=("partial_rotary_factor", 0.5)),
        bias=hf.bool_("mlp_bias", False),
        eps=hf.positive("norm_eps", 1e-5),
        max_len=4096,
    )


def jais2(hf: HfConfig) -> DecoderSpec:
    """`Jais2ForCausalLM`."""
    return _decoder(
        hf,
        attention(hf, bias=True),
        bias=hf.bool_("mlp_bias", True),
        eps=hf.positive("layer_norm_eps", 1e-5),
        max_len=8192,
    )


def persimmon(hf: HfConfig) -> DecoderSpec:
    """`PersimmonForCausalLM`: a LayerNorm over each head of q and k, biases throughout.

    Defaults as in PersimmonConfig.
    """
    eps = hf.positive("layer_norm_eps", 1e-5)
    has_norm = hf.bool_("qk_layernorm", True)
    mixer = attention(
        hf,
        bias=None,
        theta=("rope_theta", 10_000.0),
        part=("partial_rotary_factor", 0.5),
        qkv_bias=True,
        out_bias=True,
        qk_norm="layer" if has_norm else "none",
        norm_eps=eps if has_norm else Attention.norm_eps,
    )
    return _decoder(hf, mixer, bias=True, eps=eps, max_len=16_384)


def _decoder(
    hf: HfConfig, mixer: Attention, *, bias: bool, eps: float, max_len: int
) -> DecoderSpec:
    part = dense(hf, default="relu2", gated=False, bias=bias)
    layer = LayerSpec(mixer=mixer, feed_forward=part, norm="layer", norm_eps=eps)
    return decoder(hf, layer, max_len=max_len)


def nemotron_h(hf: HfConfig) -> DecoderSpec:
    """`NemotronHForCausalLM`: each layer is a state-space mixer, attention without positions, or a
    feed-forward part, each behind one norm. Defaults as in NemotronHConfig. Source: arXiv 2504.03624.
    """
    skip_training(hf)
    hf.skip("expand", "mamba_expand", "num_hidden_layers", "num_logits_to_keep", "rms_norm_eps")
    hf.skip(
        "mamba_ssm_cache_dtype",
        "attention_head_dim",
        "sliding_window",
        "mamba_proj_bias",
        "norm_eps",
    )
    hf.skip("time_step_limit", "time_step_rank", "rope_theta", "partial_rotary_factor")
    hf.skip(*_DRAFTS)
    eps = hf.positive("layer_norm_epsilon", 1e-5)
    silu_only(hf, "mamba_hidden_act")
    groups = hf.int_("n_groups", 8)
    states = Mamba2(
        num_heads=hf.int_("mamba_num_heads", 128),
        head_size=hf.int_("mamba_head_dim", 64),
        state_size=hf.int_("ssm_state_size", 128),
        num_groups=groups,
        kernel=hf.int_("conv_kernel", 4),
        conv_bias=hf.bool_("use_conv_bias", True),
        bias=hf.bool_("use_bias", False),
        norm_groups=groups,
        norm_eps=eps,
        step_limit=(hf.positive("time_step_min", 0.001), math.inf),
    )
    heads = attention(hf, heads=32, kv_heads=8, head_dim=128, bias=False, rope=None)
    act = activation(hf, "relu2", key="mlp_hidden_act")
    width, bias = hf.int_("intermediate_size", 21_504), hf.bool_("mlp_bias", False)
    part = dense(hf, width=width, activation=act, gated=False, bias=bias)
    kinds: dict[str, Mixer | FeedForward] = {"M": states, "*": heads, "-": part}
    pattern = _pattern(hf)
    if "E" in pattern:
        kinds["E"] = _experts(hf, part)
    hf.skip(*_EXPERTS)
    layers = []
    for letter in pattern:
        one = kinds[letter]
        if isinstance(one, Dense | Moe):
            layer = LayerSpec(mixer=None, feed_forward=one, placement="feed_forward_only")
        else:
            layer = LayerSpec(mixer=one, feed_forward=None, placement="mixer_only")
        layers.append(replace(layer, norm_eps=eps))
    return decoder(hf, layers, max_len=4096)


def _experts(hf: HfConfig, part: Dense) -> Moe:
    """Squared ReLU without a gate. They may work on a latent of the layer's input."""
    if part.activation != "relu2" or part.bias:
        key = "mlp_bias" if part.bias else "mlp_hidden_act"
        raise hf.refuse(key, "experts are of squared ReLU without biases")
    found = sigmoid_experts(hf, top_k=2, scale=1.0)
    return replace(
        found,
        activation=part.activation,
        gated=False,
        shared_width=hf.int_("moe_shared_expert_intermediate_size", 7688),
        latent=hf.optional_int("moe_latent_size") or 0,
    )


_DRAFTS = ("num_nextn_predict_layers", "mtp_layers_block_type", "mtp_hybrid_override_pattern")
_EXPERTS = (
    *("n_routed_experts", "n_shared_experts", "moe_intermediate_size", "moe_latent_size"),
    *("moe_shared_expert_intermediate_size", "moe_shared_expert_overlap", "num_experts_per_tok"),
    *("routed_scaling_factor", "n_group", "topk_group", "norm_topk_prob"),
)
"""What experts are like, of which a model may have none."""

_BLOCKS = {
    "linear_attention": "M",
    "mamba": "M",
    "full_attention": "*",
    "attention": "*",
    "mlp": "-",
    "moe": "E",
}


def _pattern(hf: HfConfig) -> str:
    """A letter for each layer, as `hybrid_override_pattern` has it."""
    names = hf.strings("layers_block_type") or hf.strings("layer_types")
    text = hf.text("hybrid_override_pattern", "")
    hf.skip("layer_types")
    pattern = "".join(_BLOCKS.get(name, "?") for name in names) if names else text
    key = "layers_block_type" if names else "hybrid_override_pattern"
    if not pattern or not set(pattern) <= set("M*-E"):
        raise hf.refuse(key, "layers are M, *, - or E: mamba, attention, mlp or moe")
    return pattern


JAIS2_NAMES = LLAMA_NAMES.with_rules(*PLAIN_MLP_RULES, *NORM_BIAS_RULES)


NEMOTRON_NAMES = JAIS2_NAMES.folded(
    "add_one",
    f"{LAYER}.input_layernorm.weight",
    f"{LAYER}.post_attention_layernorm.weight",
    "model.norm.weight",
)

_MIXER, _PART = "backbone.layers.{layer}.mixer", f"{OURS}.feed_forward"
_PARTS = (("experts.{expert}", "experts.{expert}"), ("shared_experts", "shared"))
NEMOTRON_H_NAMES = with_head(
    Rule("backbone.embeddings.weight", "embedding.weight"),
    *(
        Rule("backbone.layers.{layer}.norm.weight", f"{OURS}.norm_before_{part}.weight")
        for part in ("mixer", "feed_forward")
    ),
    *separate_heads("backbone.layers.{layer}.mixer", "q_proj", "k_proj", "v_proj"),
    *ours(
        "backbone.layers.{layer}.mixer",
        ("o_proj", "mixer.out"),
        ("up_proj", "feed_forward.up"),
        ("down_proj", "feed_forward.down"),
    ),
    *mamba_rules(_MIXER),
    *(
        Rule(f"{_MIXER}.{theirs}.{way}_proj.weight", f"{_PART}.{part}.{way}.weight")
        for theirs, part in _PARTS
        for way in ("up", "down")
    ),
    Rule(f"{_MIXER}.gate.weight", f"{_PART}.router.weight"),
    Rule(f"{_MIXER}.gate.e_score_correction_bias", f"{_PART}.choice.bias"),
    Rule(f"{_MIXER}.fc1_latent_proj.weight", f"{_PART}.latent_down.weight"),
    Rule(f"{_MIXER}.fc2_latent_proj.weight", f"{_PART}.latent_up.weight"),
    Rule("backbone.norm_f.weight", "final_norm.weight"),
)

PERSIMMON_NAMES = with_head(
    Rule("model.embed_tokens.weight", "embedding.weight"),
    *joined_heads(f"{LAYER}.self_attn.query_key_value", fold="gather_heads"),
    *ours(
        LAYER,
        *MEGATRON_PARTS,
        ("self_attn.q_layernorm", "mixer.q_norm"),
        ("self_attn.k_layernorm", "mixer.k_norm"),
        ("self_attn.dense", "mixer.out"),
        ("mlp.dense_h_to_4h", "feed_forward.up"),
    ),
    *pair("model.final_layernorm", "final_norm"),
    ignored=(f"{LAYER}.self_attn.rotary_emb.inv_freq",),
)

ARCHITECTURES = {
    "NemotronForCausalLM": Architecture(nemotron, NEMOTRON_NAMES),
    "Jais2ForCausalLM": Architecture(jais2, JAIS2_NAMES),
    "PersimmonForCausalLM": Architecture(persimmon, PERSIMMON_NAMES),
    "NemotronHForCausalLM": Architecture(nemotron_h, NEMOTRON_H_NAMES),
}
