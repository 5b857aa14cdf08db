"""GLM 4.5, dots.llm1, Solar Open, MiniMax M2: ordinary attention before experts weighed by sigmoids.

That routing, and its spelling, is in `models.hf_deepseek`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder
from quire.models.hf_deepseek import check_whole_heads, dense_first, sigmoid_experts
from quire.models.hf_parts import sliding_layers
from quire.models.name_parts import DEEPSEEK_RULES
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
)
from quire.models.spec import Attention, DecoderSpec, FeedForward, LayerSpec, Moe


def glm4_moe(hf: HfConfig) -> DecoderSpec:
    """`Glm4MoeForCausalLM` (GLM 4.5 to 4.7): half of a head turns; the output has no bias."""
    eps = hf.positive("rms_norm_eps", 1e-5)
    mixer = attention(hf, kv_heads=8, part=("partial_rotary_factor", 0.5), out_bias=False)
    if hf.bool_("use_qk_norm", False):
        mixer = replace(mixer, qk_norm="per_head", norm_eps=eps)
    part = sigmoid_experts(hf, top_k=8, scale=1.0)
    return _decoder(hf, mixer, dense_first(hf, part, 1), eps=eps, max_len=131_072)


def dots1(hf: HfConfig) -> DecoderSpec:
    """`Dots1ForCausalLM`: an RMS norm over each head of q and k; windows from `max_window_layers` on."""
    eps = hf.positive("rms_norm_eps", 1e-6)
    mixer = attention(hf, qk_norm="per_head", norm_eps=eps)
    part = sigmoid_experts(hf, top_k=6, scale=1.0, normalize=False)
    hf.skip("use_sliding_window")  # Transformers looks at the window only
    window = hf.optional_int("sliding_window", 4096)
    first = hf.optional_int("max_window_layers", 62, minimum=0) or 0
    sliding = sliding_layers(hf, lambda index: window is not None and index >= first)
    spec = _decoder(hf, mixer, dense_first(hf, part, 0), eps=eps, max_len=2048)
    layers = [
        replace(layer, mixer=replace(mixer, window=window)) if slides else layer
        for layer, slides in zip(spec.layers, sliding, strict=True)
    ]
    return replace(spec, layers=tuple(layers))


def solar_open(hf: HfConfig) -> DecoderSpec:
    """`SolarOpenForCausalLM`: experts in every layer; the output has no bias."""
    hf.skip("intermediate_size", "first_k_dense_replace", "use_qk_norm")
    check_whole_heads(hf)
    theta = ("rope_theta", 1_000_000.0)
    mixer = attention(hf, kv_heads=8, head_dim=128, theta=theta, out_bias=False)
    part = sigmoid_experts(hf, top_k=8, scale=1.0)
    parts = [part] * hf.int_("num_hidden_layers")
    return _decoder(hf, mixer, parts, eps=hf.positive("rms_norm_eps", 1e-5), max_len=131_072)


def minimax_m2(hf: HfConfig) -> DecoderSpec:
    """`MiniMaxM2ForCausalLM`: one RMS norm over all heads of q, one of k; `rotary_dim` of a head turn."""
    eps = hf.positive("rms_norm_eps", 1e-6)
    head_size = hf.int_("head_dim", 128)
    turning = hf.int_("rotary_dim", head_size) / head_size
    mixer = attention(
        hf,
        bias=None,
        kv_heads=8,
        head_dim=head_size,
        theta=("rope_theta", 5_000_000.0),
        part=("partial_rotary_factor", turning),
        qk_norm="full",
        norm_eps=eps,
    )
    _check_minimax(hf)
    part = Moe(
        num_experts=hf.int_("num_local_experts", 256),
        top_k=hf.int_("num_experts_per_tok", 8),
        width=hf.int_("intermediate_size", 1536),
        activation=activation(hf),
        scoring="sigmoid",
        choice_bias=True,
        router_float32=True,
    )
    return _decoder(hf, mixer, [part] * hf.int_("num_hidden_layers"), eps=eps, max_len=196_608)


def _check_minimax(hf: HfConfig) -> None:
    """Keys that published files have beside those of the config class, and what they must say."""
    hf.skip("mtp_transformer_layers", "num_mtp_modules", "use_mtp")  # modules that draft tokens
    hf.choice("scoring_func", {"sigmoid": None}, "sigmoid")
    hf.choice("qk_norm_type", {"per_layer": None}, "per_layer")
    for key, only in (("attn_type_list", 1), ("shared_intermediate_size", 0)):
        if hf.each_layer(key, only) != only:
            raise hf.refuse(key, f"this architecture is described for {only} only")
    for key in ("use_qk_norm", "use_routing_bias"):
        if not hf.bool_(key, True):
            raise hf.refuse(key, "this architecture has it")


def _decoder(
    hf: HfConfig, mixer: Attention, parts: Sequence[FeedForward], *, eps: float, max_len: int
) -> DecoderSpec:
    layers = [LayerSpec(mixer=mixer, feed_forward=part, norm_eps=eps) for part in parts]
    return decoder(hf, layers, max_len=max_len)


_NAMES = replace(LLAMA_NAMES.with_rules(*DEEPSEEK_RULES), drafts=("model.layers.{layer}.",))
_MINIMAX = "block_sparse_moe"

ARCHITECTURES = {
    "Glm4MoeForCausalLM": Architecture(glm4_moe, _NAMES.with_rules(*QK_NORM_RULES)),
    "Dots1ForCausalLM": Architecture(dots1, _NAMES.with_rules(*QK_NORM_RULES)),
    "SolarOpenForCausalLM": Architecture(solar_open, _NAMES),
    "MiniMaxM2ForCausalLM": Architecture(
        minimax_m2,
        replace(LLAMA_NAMES, drafts=("model.layers.{layer}.",)).with_rules(
            *QK_NORM_RULES,
            *expert_rules(_MINIMAX, ("w1", "w3", "w2")),
            *router_rules(f"{_MINIMAX}.gate"),
            Rule(
                f"model.layers.{{layer}}.{_MINIMAX}.e_score_correction_bias",
                "layers.{layer}.feed_forward.choice.bias",
            ),
        ),
    ),
}
