"""Laguna: heads with gates above zero, another number of them in some layers, experts chosen by sigmoids.

Spellings shared with other families are in `models.hf_decoder` and `models.hf_deepseek`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, experts
from quire.models.hf_deepseek import named_parts
from quire.models.hf_parts import demand, rope, windows
from quire.models.name_parts import LAYER, OURS, choice_rule
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import DecoderSpec, LayerSpec
from quire.protocol.errors import ModelLoadError

_PART = ("partial_rotary_factor", 1.0)


def laguna(hf: HfConfig) -> DecoderSpec:
    """`LagunaForCausalLM`; defaults as in LagunaConfig."""
    hf.skip("qkv_bias", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers")
    _check_gates(hf)
    demand(hf, moe_apply_router_weight_on_input=False)
    if hf.float_("moe_router_logit_softcapping", 0.0):
        raise hf.refuse("moe_router_logit_softcapping", "it is not computed; 0 is")
    positions = hf.section("rope_parameters")
    if positions is None or positions.is_empty():
        raise hf.refuse("rope_parameters", "it must state positions for each kind of layer")
    positions.skip("original_max_position_embeddings")  # which the kinds state, too
    eps, size = hf.positive("rms_norm_eps", 1e-6), hf.int_("head_dim", 128)
    one = attention(hf, heads=48, kv_heads=8, head_dim=size, rope=None, normed=1e-6)
    one = replace(one, gate=True, gate_heads=True, gate_curve="softplus")
    count = hf.int_("num_hidden_layers", 40)
    numbers = hf.integers("num_attention_heads_per_layer") or [one.num_heads] * count
    found = windows(hf, lambda index: False, 512)
    turns = [rope(hf, head_size=size, sliding=slides, part=_PART) for slides in (False, True)]
    part = experts(
        hf,
        256,
        8,
        width=hf.int_("moe_intermediate_size", 512),
        scoring="sigmoid",
        scale=hf.positive("moe_routed_scaling_factor", 1.0),
        choice_bias=True,
        shared_width=hf.int_("shared_expert_intermediate_size", 512),
    )
    if len(numbers) != count or any(number % one.num_kv_heads for number in numbers):
        raise hf.refuse(
            "num_attention_heads_per_layer",
            f"it must be multiples of {one.num_kv_heads} heads of k for each of {count} layers",
        )
    layers = [
        LayerSpec(
            mixer=replace(one, num_heads=number, window=window, rope=turns[slides]),
            feed_forward=feed_forward,
            norm_eps=eps,
        )
        for number, (slides, window), feed_forward in zip(
            numbers, found, named_parts(hf, part, 1), strict=True
        )
    ]
    return decoder(hf, layers, max_len=131_072)


def _check_gates(hf: HfConfig) -> None:
    """Refuses gates of numbers, and none: heads have one each, as files say in either of two ways."""
    try:
        has_gates = hf.bool_("gating", True)
    except ModelLoadError:
        has_gates = hf.choice("gating", {"per-head": True})
    if not has_gates:
        raise hf.refuse("gating", "no checkpoint of this architecture is without gates of heads")


_NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES,
    Rule(f"{LAYER}.self_attn.g_proj.weight", f"{OURS}.mixer.gate.weight"),
    *expert_rules("mlp"),
    *router_rules("mlp.gate"),
    choice_rule("mlp.experts.e_score_correction_bias"),
    *shared_rules("mlp.shared_expert"),
)

ARCHITECTURES = {"LagunaForCausalLM": Architecture(laguna, _NAMES)}
