"""Models with Llama's names that differ from it in a point: positions, windows, biases, the activation.

SmolLM3, Ministral, CWM, Seed-OSS, InternLM3, IQuest-Coder, Helium and Arcee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.hf_parts import sliding_layers
from quire.models.name_parts import PLAIN_MLP_RULES
from quire.models.names import LLAMA_NAMES
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec


def smollm3(hf: HfConfig) -> DecoderSpec:
    """`SmolLM3ForCausalLM`: some layers have no positions, by default every fourth."""
    num_layers = hf.int_("num_hidden_layers")
    every = hf.int_("no_rope_layer_interval", 4)
    turns = hf.integers("no_rope_layers") or [(index + 1) % every for index in range(num_layers)]
    if len(turns) < num_layers:
        raise hf.refuse("no_rope_layers", f"it must have num_hidden_layers {num_layers} entries")
    window = hf.optional_int("sliding_window")
    if not hf.bool_("use_sliding_window", False):
        window = None
    plain = attention(hf, kv_heads=4, theta=("rope_theta", 2_000_000.0))
    slides = sliding_layers(hf, lambda index: window is not None and not turns[index])
    mixers = [
        replace(plain, window=window if slide else None, rope=plain.rope if turn else None)
        for slide, turn in zip(slides, turns, strict=False)
    ]
    return _decoder(hf, mixers, dense(hf, bias=hf.bool_("mlp_bias", False)), 32_768, tie=True)


def ministral(hf: HfConfig) -> DecoderSpec:
    """`MinistralForCausalLM`: windows in the layers that `layer_types` names, else in all."""
    window = hf.optional_int("sliding_window", 4096)
    plain = attention(hf, bias=None, kv_heads=8)
    slides = sliding_layers(hf, lambda index: window is not None)
    mixers = [replace(plain, window=window if slide else None) for slide in slides]
    return _decoder(hf, mixers, dense(hf), 131_072)


def cwm(hf: HfConfig) -> DecoderSpec:
    """`CwmForCausalLM`: windows in three of four layers. Source: arXiv 2510.02387."""
    window = hf.optional_int("sliding_window", 8192)
    plain = attention(hf, bias=None, kv_heads=8, head_dim=128, theta=("rope_theta", 1_000_000.0))
    slides = sliding_layers(hf, lambda index: index % 4 != 0)
    mixers = [replace(plain, window=window if slide else None) for slide in slides]
    part = dense(hf, bias=hf.bool_("mlp_bias", False))
    return _decoder(hf, mixers, part, 131_072, eps=1e-5)


def seed_oss(hf: HfConfig) -> DecoderSpec:
    """`SeedOssForCausalLM`: q, k and v have biases, the output as `attention_out_bias` says."""
    hf.skip("residual_dropout")
    plain = attention(
        hf,
        bias=None,
        head_dim=128,
        qkv_bias=hf.bool_("attention_bias", True),
        out_bias=hf.bool_("attention_out_bias", False),
    )
    return _decoder(hf, [plain], dense(hf, bias=hf.bool_("mlp_bias", False)), 524_288)


def internlm3(hf: HfConfig) -> DecoderSpec:
    """`InternLM3ForCausalLM`: `qkv_bias` is for q, k, v and output, `bias` for the feed-forward part."""
    bias = hf.bool_("attention_bias", hf.bool_("qkv_bias", False))
    plain = attention(hf, bias=None, head_dim=128, qkv_bias=bias, out_bias=bias)
    part = dense(hf, bias=hf.bool_("mlp_bias", hf.bool_("bias", False)))
    return _decoder(hf, [plain], part, 32_768, eps=1e-5)


def iquestcoder(hf: HfConfig) -> DecoderSpec:
    """`IQuestCoderForCausalLM`."""
    if hf.bool_("use_sliding_window", False):
        raise hf.refuse("use_sliding_window", "this architecture has no windows")
    hf.skip("sliding_window", "max_window_layers")
    plain = attention(hf, head_dim=128, kv_heads=8)
    return _decoder(hf, [plain], dense(hf, bias=hf.bool_("mlp_bias", False)), 131_072, eps=1e-5)


def helium(hf: HfConfig) -> DecoderSpec:
    """`HeliumForCausalLM`: neighbours turn in pairs; the output never has a bias."""
    plain = attention(
        hf,
        bias=None,
        head_dim=128,
        theta=("rope_theta", 100_000.0),
        interleaved=True,
        qkv_bias=hf.bool_("attention_bias", False),
    )
    part = dense(hf, bias=hf.bool_("mlp_bias", False))
    return _decoder(hf, [plain], part, 4096, eps=1e-8)


def arcee(hf: HfConfig) -> DecoderSpec:
    """`ArceeForCausalLM`: a feed-forward part without gate, of squared ReLU."""
    part = dense(hf, activation="relu2", gated=False, bias=hf.bool_("mlp_bias", False))
    return _decoder(hf, [attention(hf)], part, 4096, eps=1e-5)


def _decoder(
    hf: HfConfig,
    mixers: Sequence[Attention],
    part: Dense,
    max_len: int,
    *,
    eps: float = 1e-6,
    tie: bool = False,
) -> DecoderSpec:
    """Plain layers with these mixers, one for each layer or one for all."""
    eps = hf.positive("rms_norm_eps", eps)
    layers = [LayerSpec(mixer=mixer, feed_forward=part, norm_eps=eps) for mixer in mixers]
    return decoder(hf, layers[0] if len(layers) == 1 else layers, max_len=max_len, tie=tie)


ARCHITECTURES = {
    "SmolLM3ForCausalLM": Architecture(smollm3, LLAMA_NAMES),
    "MinistralForCausalLM": Architecture(ministral, LLAMA_NAMES),
    "CwmForCausalLM": Architecture(cwm, LLAMA_NAMES),
    "SeedOssForCausalLM": Architecture(seed_oss, LLAMA_NAMES),
    "InternLM3ForCausalLM": Architecture(internlm3, LLAMA_NAMES),
    "IQuestCoderForCausalLM": Architecture(iquestcoder, LLAMA_NAMES),
    "HeliumForCausalLM": Architecture(helium, LLAMA_NAMES),
    "ArceeForCausalLM": Architecture(arcee, LLAMA_NAMES.with_rules(*PLAIN_MLP_RULES)),
}
