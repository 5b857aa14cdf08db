"""DeepSeek V2 to V3.2, and others that attend over a latent: Kimi K2, GLM 4.7 Flash and 5, MiniCPM 3.

Spellings shared with other families are in `models.hf_deepseek` and `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, dense, layered
from quire.models.hf_deepseek import (
    check_whole_heads,
    dense_first,
    in_groups,
    latent_attention,
    named_parts,
    routed_experts,
    sigmoid_experts,
)
from quire.models.hf_parts import demand
from quire.models.name_parts import DEEPSEEK_RULES, LATENT_RULES
from quire.models.names import LLAMA_NAMES
from quire.models.spec import DecoderSpec, LayerSpec

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
    return layered(hf, mixer, dense_first(hf, part, 0), max_len=2048)


def deepseek_v3(hf: HfConfig) -> DecoderSpec:
    """`DeepseekV3ForCausalLM` (V3, R1, Kimi K2, Moonlight): experts weighed by sigmoids."""
    interleaved = hf.bool_("rope_interleave", True)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=1536)
    part = sigmoid_experts(hf, top_k=8, scale=2.5, groups=8, top_groups=4)
    return layered(hf, mixer, dense_first(hf, part, 3), max_len=4096)


def glm4_moe_lite(hf: HfConfig) -> DecoderSpec:
    """`Glm4MoeLiteForCausalLM` (GLM 4.7 Flash): `mlp_layer_types` says which layers have experts."""
    interleaved = hf.bool_("rope_interleave", True)
    check_whole_heads(hf)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=768)
    parts = named_parts(hf, sigmoid_experts(hf, top_k=4, scale=1.8), 1)
    return layered(hf, mixer, parts, max_len=202_752, eps=1e-5)


def deepseek_v32(hf: HfConfig) -> DecoderSpec:
    """`DeepseekV32ForCausalLM`: V3 whose queries see the `index_topk` tokens that an indexer picks.

    Served up to that length, where it picks all of them; its weights are left unread.
    Source: arXiv 2512.02556.
    """
    mixer = latent_attention(hf, interleaved=True, default_q_rank=1536)
    part = sigmoid_experts(hf, top_k=8, scale=2.5, groups=8, top_groups=4)
    return _indexed(hf, layered(hf, mixer, named_parts(hf, part, 3), max_len=163_840))


def glm_moe_dsa(hf: HfConfig) -> DecoderSpec:
    """`GlmMoeDsaForCausalLM` (GLM 5): as `deepseek_v32`, with other sizes."""
    if not hf.bool_("rope_interleave", True):
        raise hf.refuse("rope_interleave", "neighbours turn in pairs in this architecture")
    mixer = latent_attention(hf, interleaved=True, default_q_rank=2048)
    part = sigmoid_experts(hf, top_k=8, scale=2.5)
    hf.skip("indexer_types", "indexer_rope_interleave", "index_topk_freq", "index_topk_pattern")
    hf.skip("index_skip_topk_offset", "index_share_for_mtp_iteration")
    hf.choice("moe_router_dtype", {"float32": None}, "float32")
    spec = layered(hf, mixer, named_parts(hf, part, 3), max_len=202_752, eps=1e-5)
    return _indexed(hf, spec)


def _indexed(hf: HfConfig, spec: DecoderSpec) -> DecoderSpec:
    """The decoder for lengths at which the indexer of sparse attention leaves nothing out."""
    hf.skip("index_head_dim", "index_n_heads", "layer_types")
    demand(hf, "no checkpoint of this architecture has it", mlp_bias=False)
    return replace(spec, max_len=min(hf.int_("index_topk", 2048), spec.max_position_embeddings))


def youtu(hf: HfConfig) -> DecoderSpec:
    """`YoutuForCausalLM`: dense layers with latent attention."""
    hf.skip("embedding_initializer_range")
    turns = hf.bool_("rope_interleave", True)
    mixer = latent_attention(hf, interleaved=turns, default_q_rank=1536)
    parts = [dense(hf)] * hf.int_("num_hidden_layers")
    return layered(hf, mixer, parts, max_len=131_072, tie=True)


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
        feed_forward=dense(hf, bias=hf.bool_("mlp_bias", False)),
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


_LATENT = LLAMA_NAMES.with_rules(*LATENT_RULES)
_EXPERTS = replace(_LATENT.with_rules(*DEEPSEEK_RULES), drafts=("model.layers.{layer}.",))

_INDEXER = "model.layers.{layer}.self_attn.indexer"
_INDEXED = replace(
    _EXPERTS,
    ignored=(
        *_EXPERTS.ignored,
        *(f"{_INDEXER}.{name}.weight" for name in ("wq_b", "wk", "k_norm", "weights_proj")),
        f"{_INDEXER}.k_norm.bias",
    ),
)

ARCHITECTURES = {
    "DeepseekV2ForCausalLM": Architecture(deepseek_v2, _EXPERTS),
    "DeepseekV3ForCausalLM": Architecture(deepseek_v3, _EXPERTS),
    "DeepseekV32ForCausalLM": Architecture(deepseek_v32, _INDEXED),
    "GlmMoeDsaForCausalLM": Architecture(glm_moe_dsa, _INDEXED),
    "Glm4MoeLiteForCausalLM": Architecture(glm4_moe_lite, _EXPERTS),
    "YoutuForCausalLM": Architecture(youtu, _LATENT),
    "MiniCPM3ForCausalLM": Architecture(minicpm3, _LATENT),
}
