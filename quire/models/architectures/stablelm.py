"""StableLM, Orion and StarCoder 2: LayerNorm with bias in Llama's names, with a gate or without.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.name_parts import LAYER, NORM_BIAS_RULES, ours
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import DecoderSpec, LayerSpec


def stablelm(hf: HfConfig) -> DecoderSpec:
    """`StableLmForCausalLM`, and with keys of its own `StableLMEpochForCausalLM`: a quarter of each head turns.

    Source: arXiv 2402.17834.
    """
    if hf.bool_("qk_layernorm", False):
        raise hf.refuse("qk_layernorm", "norms of q and k with a tensor a head are not supported")
    bias = hf.bool_("use_qkv_bias", False)
    if hf.float_("rotary_scaling_factor", 1.0) != 1.0:
        raise hf.refuse("rotary_scaling_factor", "only 1, which changes nothing, is supported")
    part = hf.positive("rope_pct", 0.25)
    mixer = attention(
        hf, bias=None, kv_heads=32, part=("partial_rotary_factor", part), qkv_bias=bias
    )
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=dense(hf),
        placement="parallel_shared" if hf.bool_("use_parallel_residual", False) else "pre",
        norm="layer",
        norm_eps=hf.positive("layer_norm_eps", hf.positive("norm_eps", 1e-5)),
    )
    return decoder(hf, layer, max_len=4096)


def orion(hf: HfConfig) -> DecoderSpec:
    """`OrionForCausalLM`: Llama with LayerNorm. Source: arXiv 2401.12246."""
    hf.skip("max_sequence_length")
    layer = LayerSpec(
        mixer=attention(hf),
        feed_forward=dense(hf),
        norm="layer",
        norm_eps=hf.positive("rms_norm_eps", 1e-5),
    )
    return decoder(hf, layer, max_len=4096)


def starcoder2(hf: HfConfig) -> DecoderSpec:
    """`Starcoder2ForCausalLM`: biases throughout, windows. Source: arXiv 2402.19173."""
    bias = hf.bool_("use_bias", True)
    # Training, and the same thing again for other code.
    hf.skip("residual_dropout", "embedding_dropout", "mlp_type", "norm_type")
    hf.skip("activation_function", "layer_norm_epsilon", "scale_attn_weights")
    hf.skip("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
    mixer = attention(
        hf,
        bias=None,
        kv_heads=2,
        qkv_bias=bias,
        out_bias=bias,
        window=hf.optional_int("sliding_window"),
    )
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=dense(hf, default="gelu_pytorch_tanh", gated=False, bias=bias),
        norm="layer",
        norm_eps=hf.positive("norm_epsilon", 1e-5),
    )
    return decoder(hf, layer, max_len=4096, tie=True)


STABLELM_NAMES = LLAMA_NAMES.with_rules(
    *NORM_BIAS_RULES[1:],
    *(
        Rule(f"{LAYER}.input_layernorm.{kind}", f"layers.{{layer}}.{norm}.{kind}")
        for norm in ("norm_before_mixer", "norm_before_parts")
        for kind in ("weight", "bias")
    ),
)

STARCODER2_NAMES = LLAMA_NAMES.without("layers.{layer}.feed_forward.down").with_rules(
    *NORM_BIAS_RULES,
    *ours(LAYER, ("mlp.c_fc", "feed_forward.up"), ("mlp.c_proj", "feed_forward.down")),
)

ARCHITECTURES = {
    "StableLmForCausalLM": Architecture(stablelm, STABLELM_NAMES),
    "OrionForCausalLM": Architecture(orion, LLAMA_NAMES.with_rules(*NORM_BIAS_RULES)),
    "Starcoder2ForCausalLM": Architecture(starcoder2, STARCODER2_NAMES),
}
