"""Qwen3-Next and the text of Qwen 3.5: gated delta nets, and gated attention in every fourth layer.

Spellings of delta nets are in `models.hf_delta`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, experts
from quire.models.hf_delta import conv_rules, delta_net, every_fourth, product_rules, state_rules
from quire.models.hf_parts import moe_layers
from quire.models.hf_text import text_alone
from quire.models.name_parts import LAYER, OURS, nested
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import DecoderSpec, FeedForward, LayerSpec, Moe


def qwen3_next(hf: HfConfig) -> DecoderSpec:
    """`Qwen3NextForCausalLM`; defaults as in Qwen3NextConfig."""
    part = _experts(hf, 512, 10, normalize=hf.bool_("norm_topk_prob", True))
    hf.skip("use_sliding_window")
    return _decoder(hf, moe_layers(hf, part, dense(hf)))


def qwen3_5(hf: HfConfig) -> DecoderSpec:
    """`Qwen3_5ForCausalLM`: the text model, with one position a token."""
    return _decoder(hf, [dense(hf)] * hf.int_("num_hidden_layers"))


def qwen3_5_moe(hf: HfConfig) -> DecoderSpec:
    """`Qwen3_5MoeForCausalLM`: likewise, with experts in every layer."""
    hf.skip("intermediate_size")
    return _decoder(hf, [_experts(hf, 256, 8)] * hf.int_("num_hidden_layers"))


def _experts(hf: HfConfig, num_experts: int, top_k: int, *, normalize: bool = True) -> Moe:
    """Experts beside a part that all tokens pass, weighed by a gate; the numbers are defaults."""
    return experts(
        hf,
        num_experts,
        top_k,
        width=hf.int_("moe_intermediate_size", 512),
        normalize=normalize,
        shared_width=hf.int_("shared_expert_intermediate_size", 512),
        shared_gate=True,
    )


def _decoder(hf: HfConfig, parts: Sequence[FeedForward | None]) -> DecoderSpec:
    eps = hf.positive("rms_norm_eps", 1e-6)
    if not hf.bool_("attn_output_gate", True):
        raise hf.refuse("attn_output_gate", "attention of this architecture has gates")
    hf.choice("output_gate_type", {"swish": None}, "swish")  # of delta nets
    hf.skip("mtp_num_hidden_layers", "mtp_use_dedicated_embeddings", "mamba_ssm_dtype")
    whole = attention(
        hf,
        head_dim=256,
        part=("partial_rotary_factor", 0.25),
        qk_norm="per_head",
        norm_eps=eps,
        gate=True,
    )
    if whole.qkv_bias:
        raise hf.refuse("attention_bias", "gates with a bias are not computed")
    mixers = every_fourth(hf, delta_net(hf, norm_eps=eps), whole)
    layers = [
        LayerSpec(mixer=mixer, feed_forward=part, norm_eps=eps)
        for mixer, part in zip(mixers, parts, strict=True)
    ]
    return decoder(hf, layers, max_len=32_768)


_BLOCK, _Q = "linear_attn", f"{LAYER}.self_attn.q_proj.weight"
_GATED_NAMES = replace(
    LLAMA_NAMES.with_rules(
        Rule(_Q, f"{OURS}.mixer.qkv.weight", fold="first_halves"),
        Rule(_Q, f"{OURS}.mixer.gate.weight", fold="second_halves"),
        *QK_NORM_RULES,
        *conv_rules(_BLOCK, "conv1d"),
        *state_rules(_BLOCK),
        *product_rules(_BLOCK, ("norm", "norm", 0), ("out_proj", "back", 0)),
    ).folded(
        "add_one",
        *(f"{LAYER}.{name}_layernorm.weight" for name in ("input", "post_attention")),
        *(f"{LAYER}.self_attn.{name}_norm.weight" for name in "qk"),
        "model.norm.weight",
    ),
    drafts=("mtp.",),
)

_EXPERT_RULES = (
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    *shared_rules("mlp.shared_expert"),
    Rule(f"{LAYER}.mlp.shared_expert_gate.weight", f"{OURS}.feed_forward.shared_gate.weight"),
)

_JOINED = tuple(
    Rule(
        f"{LAYER}.{_BLOCK}.{name}.weight",
        f"{OURS}.mixer.{target}.weight",
        parts,
        fold="gather_heads",
    )
    for name, target, parts in (
        ("in_proj_qkvz", "in", (0, 1, 2, 3)),
        ("in_proj_ba", "steps", (0, 1)),
    )
)

_APART = (
    Rule(f"{LAYER}.{_BLOCK}.in_proj_qkv.weight", f"{OURS}.mixer.in.weight", (0, 1, 2)),
    *product_rules(
        _BLOCK, ("in_proj_z", "in", 3), ("in_proj_b", "steps", 0), ("in_proj_a", "steps", 1)
    ),
)

_QWEN3_5 = _GATED_NAMES.with_rules(*_APART)

ARCHITECTURES = {
    "Qwen3NextForCausalLM": Architecture(
        qwen3_next, _GATED_NAMES.with_rules(*_JOINED, *_EXPERT_RULES)
    ),
    "Qwen3_5ForCausalLM": Architecture(qwen3_5, _QWEN3_5),
    "Qwen3_5MoeForCausalLM": Architecture(qwen3_5_moe, _QWEN3_5.with_rules(*_EXPERT_RULES)),
    "Qwen3_5ForConditionalGeneration": Architecture(
        text_alone(qwen3_5), nested(_QWEN3_5, "visual.")
    ),
    "Qwen3_5MoeForConditionalGeneration": Architecture(
        text_alone(qwen3_5_moe), nested(_QWEN3_5.with_rules(*_EXPERT_RULES), "visual.")
    ),
}
