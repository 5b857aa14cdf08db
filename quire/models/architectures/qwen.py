"""Qwen 2, Qwen 3 and Mellum: biases on q, k and v, or a norm over each head of q and k; some with experts.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import (
    attention,
    decoder,
    dense,
    experts,
    plain,
    with_parts,
)
from quire.models.hf_deepseek import named_parts
from quire.models.hf_parts import moe_layers, rope, sliding_layers, windows
from quire.models.hf_text import beside_visual, text_alone
from quire.models.name_parts import (
    GPT_LAYER,
    GPT_PARTS,
    gate_and_up,
    joined_heads,
    ours,
    transformer_map,
)
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Moe


def qwen2(hf: HfConfig, *, qkv_bias: bool = True) -> DecoderSpec:
    """`Qwen2ForCausalLM` (Qwen 2 and 2.5): q, k and v have biases, the output has none."""
    return _decoder(hf, attention(hf, bias=None, qkv_bias=qkv_bias))


def qwen3(hf: HfConfig) -> DecoderSpec:
    """`Qwen3ForCausalLM`: an RMS norm over each head of q and k before RoPE."""
    return _decoder(hf, attention(hf, head_dim=128, normed=1e-6))


def qwen(hf: HfConfig) -> DecoderSpec:
    """`QWenLMHeadModel`, up to the trained length: what it changes beyond that is not computed here.

    `intermediate_size` is that of gate and up together. Source: arXiv 2309.16609.
    """
    hf.skip("use_dynamic_ntk", "use_logn_attn", "max_position_embeddings")
    # Numbers and kernels of other code; sizes that are told twice.
    hf.skip("bf16", "fp16", "fp32", "softmax_in_fp32", "onnx_safe", "use_flash_attn")
    hf.skip("use_cache_quantization", "use_cache_kernel", "tokenizer_type", "scale_attn_weights")
    hf.skip("attn_dropout_prob", "emb_dropout_prob", "kv_channels")
    if not hf.bool_("no_bias", True):
        raise hf.refuse("no_bias", "only q, k and v have biases in this architecture")
    one = attention(
        hf,
        bias=None,
        theta=("rotary_emb_base", 10_000.0),
        part=("rotary_pct", 1.0),
        qkv_bias=True,
    )
    layer = LayerSpec(
        mixer=one,
        feed_forward=Dense(width=hf.int_("intermediate_size") // 2),
        norm_eps=hf.positive("layer_norm_epsilon", 1e-6),
    )
    return decoder(hf, layer, max_position_embeddings=hf.int_("seq_length", 2048))


def mimo(hf: HfConfig) -> DecoderSpec:
    """`MiMoForCausalLM`: Qwen 2 beside layers that draft further tokens. Source: arXiv 2505.07608."""
    hf.skip("num_nextn_predict_layers")
    return qwen2(hf, qkv_bias=hf.bool_("attention_bias", True))


def qwen2_moe(hf: HfConfig) -> DecoderSpec:
    """`Qwen2MoeForCausalLM`: beside the experts a part that all tokens pass, weighed by a gate."""
    return _with_experts(
        hf,
        qwen2(hf, qkv_bias=hf.bool_("qkv_bias", True)),
        shared_width=hf.int_("shared_expert_intermediate_size", 5632),
        shared_gate=True,
        counts=(60, 4),
        width=hf.int_("moe_intermediate_size", 1408),
    )


def qwen3_moe(hf: HfConfig) -> DecoderSpec:
    """`Qwen3MoeForCausalLM`."""
    return _with_experts(
        hf, qwen3(hf), counts=(128, 8), width=hf.int_("moe_intermediate_size", 768)
    )


def mellum(hf: HfConfig) -> DecoderSpec:
    """`MellumForCausalLM`: as Qwen 3, and layers with a window have positions of their own."""
    hf.skip("num_mtp_layers", "mtp_layer_types", "mtp_mlp_layer_types")
    one = attention(hf, kv_heads=4, head_dim=128, rope=None, normed=1e-6)
    mixers = [
        replace(
            one,
            window=window,
            rope=rope(
                hf,
                head_size=one.head_size,
                sliding=slides,
                theta=("rope_theta", 10_000.0 if slides else 500_000.0),
            ),
        )
        for slides, window in windows(hf, lambda index: False, 1024)
    ]
    part = _experts(hf, (64, 8), width=hf.int_("moe_intermediate_size", 896), normalized=True)
    spec = plain(hf, mixers, dense(hf), max_len=131_072)
    return with_parts(spec, *named_parts(hf, part, 0))


def _experts(
    hf: HfConfig, counts: tuple[int, int], *, normalized: bool = False, **sizes: Any
) -> Moe:
    """Their number in the older spelling or the newer one; `counts` are defaults."""
    number = hf.optional_int("num_local_experts") or counts[0]
    normalize = hf.bool_("norm_topk_prob", normalized)
    return experts(hf, number, counts[1], normalize=normalize, **sizes)


def _with_experts(
    hf: HfConfig, spec: DecoderSpec, counts: tuple[int, int], **sizes: Any
) -> DecoderSpec:
    part = _experts(hf, counts, **sizes)
    return with_parts(spec, *moe_layers(hf, part, spec.layers[0].feed_forward))


def _decoder(hf: HfConfig, mixer: Attention) -> DecoderSpec:
    first_window = hf.int_("max_window_layers", 28, minimum=0)
    window = None
    if hf.bool_("use_sliding_window", False):
        window = hf.optional_int("sliding_window", 4096)
    hf.skip("sliding_window")
    sliding = sliding_layers(hf, lambda index: window is not None and index >= first_window)
    if any(sliding) and window is None:
        raise hf.refuse("layer_types", "sliding layers need sliding_window and use_sliding_window")
    mixers = [replace(mixer, window=window if slides else None) for slides in sliding]
    return plain(hf, mixers, dense(hf), max_len=32_768)


MOE_RULES = (*expert_rules("mlp"), *router_rules("mlp.gate"))


QWEN_NAMES = transformer_map(
    *joined_heads(f"{GPT_LAYER}.attn.c_attn"),
    *ours(
        GPT_LAYER,
        *GPT_PARTS,
        ("attn.c_proj", "mixer.out"),
    ),
    *gate_and_up(f"{GPT_LAYER}.mlp", "w2", "w1"),
    ignored=("transformer.rotary_emb.inv_freq",),
)

ARCHITECTURES = {
    "QWenLMHeadModel": Architecture(qwen, QWEN_NAMES),
    "MiMoForCausalLM": Architecture(mimo, replace(LLAMA_NAMES, drafts=("model.mtp_layers.",))),
    "Qwen2ForCausalLM": Architecture(qwen2, LLAMA_NAMES),
    "Qwen3ForCausalLM": Architecture(qwen3, LLAMA_NAMES.with_rules(*QK_NORM_RULES)),
    "Qwen2MoeForCausalLM": Architecture(
        qwen2_moe,
        LLAMA_NAMES.with_rules(
            *MOE_RULES,
            *shared_rules("mlp.shared_expert"),
            Rule(
                "model.layers.{layer}.mlp.shared_expert_gate.weight",
                "layers.{layer}.feed_forward.shared_gate.weight",
            ),
        ),
    ),
    "MellumForCausalLM": Architecture(mellum, LLAMA_NAMES.with_rules(*QK_NORM_RULES, *MOE_RULES)),
    "Qwen3MoeForCausalLM": Architecture(
        qwen3_moe, LLAMA_NAMES.with_rules(*QK_NORM_RULES, *MOE_RULES)
    ),
    "Qwen2VLForConditionalGeneration": Architecture(
        text_alone(qwen2, flat=True), beside_visual(LLAMA_NAMES)
    ),
    "Qwen2_5_VLForConditionalGeneration": Architecture(
        text_alone(qwen2, flat=True), beside_visual(LLAMA_NAMES)
    ),
    "Qwen3VLForConditionalGeneration": Architecture(
        text_alone(qwen3, outer_ties=True), beside_visual(LLAMA_NAMES.with_rules(*QK_NORM_RULES))
    ),
    "Qwen3VLMoeForConditionalGeneration": Architecture(
        text_alone(qwen3_moe, defaults={"norm_topk_prob": True}, outer_ties=True),
        beside_visual(LLAMA_NAMES.with_rules(*QK_NORM_RULES, *MOE_RULES)),
    ),
}
