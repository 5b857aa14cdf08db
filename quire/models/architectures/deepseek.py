"""DeepSeek V2 and V3, and others whose layers attend over a latent: Kimi K2, GLM 4.7 Flash, MiniCPM 3.

Spellings shared with other families are in `models.hf_deepseek` and `models.hf_decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, dense
from quire.models.hf_deepseek import (
    dense_first,
    in_groups,
    latent_attention,
    routed_experts,
    sigmoid_experts,
)
from quire.models.names import DEEPSEEK_RULES, LATENT_RULES, LLAMA_NAMES
from quire.models.spec import DecoderSpec, FeedForward, LayerSpec, Mla

_GROUPED = {"greedy": False, "group_limited_greedy": True}


def deepseek_v2(hf: HfConfig) -> DecoderSpec:
    """`DeepseekV2ForCausalLM`: experts weighed by their share of all. Source: arXiv 2405.04434."""
    mixer = latent_attention(hf, interleaved=True, default_q_rank=1536)
    hf.choice("scoring_func", {"softmax": None}, "softmax")
    for key in ("norm_topk_prob", "mlp_bias"):
        if hf.bool_(key, False):
            raise hf.refuse(key, "no checkpoint of this architecture has it, and readings differ")
    part = replace(routed_experts(hf, top_k=6, scale=1.0), normalize=False)
    if hf.choice("topk_method", _GROUPED, "greedy"):
        part = in_groups(hf, part, 1, 1, best=1)
    hf.skip("n_group", "topk_group")
    return _decoder(hf, mixer, dense_first(hf, part, 0), max_len=2048)


def deepseek_v3(hf: HfConfig) -> DecoderSpec:
    """`DeepseekV3ForCausalLM` (V3, R1, Kimi K2, Moonlight): experts weighed by sigmoids."""
    interleaved = hf.bool_("rope_interleave", True)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=1536)
    part = sigmoid_experts(hf, top_k=8, scale=2.5, groups=8, top_groups=4)
    return _decoder(hf, mixer, dense_first(hf, part, 3), max_len=4096)


def glm4_moe_lite(hf: HfConfig) -> DecoderSpec:
    """`Glm4MoeLiteForCausalLM` (GLM 4.7 Flash): `mlp_layer_types` says which layers have experts."""
    interleaved = hf.bool_("rope_interleave", True)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=768)
    part = sigmoid_experts(hf, top_k=4, scale=1.8)
    parts = dense_first(hf, part, 1)
    names = hf.strings("mlp_layer_types")
    if names is not None:
        if len(names) != len(parts) or not set(names) <= {"dense", "sparse"}:
            raise hf.refuse("mlp_layer_types", "it must say dense or sparse for each layer")
        parts = [part if name == "sparse" else dense(hf) for name in names]
    return _decoder(hf, mixer, parts, max_len=202_752, eps=1e-5)


def minicpm3(hf: HfConfig) -> DecoderSpec:
    """`MiniCPM3ForCausalLM`: dense layers, with factors for embedding, residuals and logits."""
    size, num_layers = hf.int_("hidden_size"), hf.int_("num_hidden_layers")
    mixer = latent_attention(
        hf,
        interleaved=False,
        default_q_rank=768,
        default_kv_rank=256,
        out_size=size // hf.int_("num_attention_heads"),
    )
    depth = hf.optional_positive("scale_depth", 1.4)
    base = hf.optional_int("dim_model_base", 256)
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=dense(hf),
        norm_eps=hf.positive("rms_norm_eps", 1e-5),
        residual_scale=1.0 if depth is None else depth / sqrt(num_layers),
    )
    return decoder(
        hf,
        layer,
        max_len=32_768,
        tie=True,
        embedding_scale=hf.positive("scale_emb", 12.0),
        logit_scale=1.0 if base is None else base / size,
    )


def _decoder(
    hf: HfConfig, mixer: Mla, parts: Sequence[FeedForward], *, max_len: int, eps: float = 1e-6
) -> DecoderSpec:
    eps = hf.positive("rms_norm_eps", eps)
    layers = [LayerSpec(mixer=mixer, feed_forward=part, norm_eps=eps) for part in parts]
    return decoder(hf, layers, max_len=max_len)


_LATENT = LLAMA_NAMES.with_rules(*LATENT_RULES)
_EXPERTS = replace(_LATENT.with_rules(*DEEPSEEK_RULES), drafts="model.layers.{layer}")

ARCHITECTURES = {
    "DeepseekV2ForCausalLM": Architecture(deepseek_v2, _EXPERTS),
    "DeepseekV3ForCausalLM": Architecture(deepseek_v3, _EXPERTS),
    "Glm4MoeLiteForCausalLM": Architecture(glm4_moe_lite, _EXPERTS),
    "MiniCPM3ForCausalLM": Architecture(minicpm3, _LATENT),
}
