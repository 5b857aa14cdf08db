"""Arctic: a dense part behind attention, and experts that read what the layer was given, beside both.

Each layer of a checkpoint is two here. Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder, experts
from quire.models.hf_parts import demand
from quire.models.name_parts import OURS, for_placement, gate_and_up
from quire.models.names import LLAMA_NAMES, Rule, WeightMap
from quire.models.spec import DecoderSpec, Dense, LayerSpec

_TRAINING = (
    "moe_eval_capacity_factor",
    "moe_train_capacity_factor",
    "moe_min_capacity",
    "enable_expert_tensor_parallelism",
    "enc_index",
    "quantization",
    "sliding_window",
)


def arctic(hf: HfConfig) -> DecoderSpec:
    """`ArcticForCausalLM`; defaults as in ArcticConfig of the published files."""
    hf.skip(*_TRAINING)
    demand(hf, moe_token_dropping=False, use_residual=True)
    eps, act = hf.positive("rms_norm_eps", 1e-5), activation(hf)
    mixer = attention(hf, theta=("rope_theta", 1_000_000.0))
    routed = experts(hf, 8, 1, key="num_local_experts")
    routed = replace(routed, normalize=routed.top_k > 1)
    alone = LayerSpec(mixer=mixer, feed_forward=None, placement="mixer_only", norm_eps=eps)
    part = LayerSpec(mixer=None, feed_forward=routed, placement="feed_forward_only", norm_eps=eps)
    dense = replace(part, feed_forward=Dense(width=routed.width, activation=act))
    apart = replace(part, placement="shortcut_apart")
    beside = Dense(width=hf.int_("hidden_size"), activation=act)
    closing = replace(alone, feed_forward=beside, placement="shortcut_close")
    pair = [apart, closing] if hf.bool_("parallel_attn_mlp_res", False) else [alone, part]
    every = hf.int_("moe_layer_frequency", 2)
    layers: list[LayerSpec] = []
    for index in range(hf.int_("num_hidden_layers")):
        layers += [alone, dense] if (index + 1) % every else pair
    return decoder(hf, layers, max_len=4096)


_LAYER = "model.layers.{half}"
_ENDS = tuple(rule for rule in LLAMA_NAMES.rules if "{layer}" not in rule.source)
_ATTENTION = tuple(
    replace(rule, source=rule.source.replace("{layer}", "{half}"))
    for rule in LLAMA_NAMES.rules
    if ".self_attn." in rule.source or ".input_layernorm." in rule.source
)
_NORM = Rule(f"{_LAYER}.post_attention_layernorm.weight", f"{OURS}.norm_before_feed_forward.weight")


def _part(block: str) -> tuple[Rule, ...]:
    down = Rule(f"{_LAYER}.{block}.w2.weight", f"{OURS}.feed_forward.down.weight")
    return (*gate_and_up(f"{_LAYER}.{block}", "w1", "w3"), down)


_EXPERT, _OUR_EXPERT = (
    f"{_LAYER}.block_sparse_moe.experts.{{expert}}",
    f"{OURS}.feed_forward.experts.{{expert}}",
)
_ROUTED = (
    _NORM,
    Rule(f"{_LAYER}.block_sparse_moe.gate.weight", f"{OURS}.feed_forward.router.weight"),
    Rule(f"{_EXPERT}.w1.weight", f"{_OUR_EXPERT}.gate_up.weight", parts=(0,)),
    Rule(f"{_EXPERT}.w3.weight", f"{_OUR_EXPERT}.gate_up.weight", parts=(1,)),
    Rule(f"{_EXPERT}.w2.weight", f"{_OUR_EXPERT}.down.weight"),
)
_BESIDE = Rule(f"{_LAYER}.residual_layernorm.weight", f"{OURS}.norm_before_feed_forward.weight")

_NAMES = WeightMap(
    rules=(
        *_ENDS,
        *for_placement("mixer_only", _ATTENTION),
        *for_placement("feed_forward_only", (*_part("block_sparse_moe.mlp"), *_ROUTED)),
        *for_placement("shortcut_apart", _ROUTED),
        *for_placement("shortcut_close", (*_ATTENTION, *_part("residual_mlp"), _BESIDE)),
    ),
    ignored_if_tied=("lm_head.weight",),
)

ARCHITECTURES = {"ArcticForCausalLM": Architecture(arctic, _NAMES)}
