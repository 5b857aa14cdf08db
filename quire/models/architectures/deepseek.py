"""DeepSeek V2 to V3.2, and others that attend over a latent: Kimi K2, GLM 4.7 Flash and 5,
Mistral Large 3 and Small 4, openPangu Ultra, MiniCPM 3.

Spellings shared with other families are in `models.hf_deepseek` and `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, dense, layered, with_placement
from quire.models.hf_deepseek import (
    check_whole_heads,
    dense_first,
    growing_experts,
    in_groups,
    latent_attention,
    named_parts,
    own_indexers,
    picking,
    routed_experts,
    sigmoid_experts,
)
from quire.models.hf_parts import demand
from quire.models.hf_text import llava_names, text_alone
from quire.models.name_parts import (
    DEEPSEEK_RULES,
    INDEXER_RULES,
    LATENT_RULES,
    LAYER,
    OURS,
    for_placement,
    ours,
)
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import DecoderSpec, LayerSpec, Moe

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


def sarvam_mla(hf: HfConfig) -> DecoderSpec:
    """`SarvamMLAForCausalLM` (Sarvam 105B): V3 with one dense layer and experts without groups."""
    hf.skip("attn_implementation", "embedding_dropout", "output_dropout", "router_dtype")
    demand(hf, use_bias=False, use_qkv_bias=False, moe_router_enable_expert_bias=True)
    hf.choice("score_function", {"sigmoid": None}, "sigmoid")
    mixer = latent_attention(hf, interleaved=True, default_q_rank=0)
    part = sigmoid_experts(hf, top_k=8, scale=2.5, counts=("num_experts", "num_shared_experts"))
    width = hf.optional_int("moe_shared_expert_intermediate_size", part.width) or part.width
    part = replace(part, shared_width=part.shared_width // part.width * width)
    return layered(hf, mixer, dense_first(hf, part, 1), max_len=131_072)


def glm4_moe_lite(hf: HfConfig) -> DecoderSpec:
    """`Glm4MoeLiteForCausalLM` (GLM 4.7 Flash): `mlp_layer_types` says which layers have experts."""
    interleaved = hf.bool_("rope_interleave", True)
    check_whole_heads(hf)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=768)
    parts = named_parts(hf, sigmoid_experts(hf, top_k=4, scale=1.8), 1)
    return layered(hf, mixer, parts, max_len=202_752, eps=1e-5)


def axk1(hf: HfConfig) -> DecoderSpec:
    """`AXK1ForCausalLM` (A.X K1): V3 with a norm of what experts made. Defaults as in AXK1Config."""
    hf.add_defaults({"n_routed_experts": 192})
    interleaved = hf.bool_("rope_interleave", True)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=1536)
    if not mixer.q_rank:
        raise hf.refuse("q_lora_rank", "queries come from a latent in this architecture")
    part = sigmoid_experts(hf, top_k=8, scale=2.5, groups=8, top_groups=4)
    spec = layered(hf, mixer, named_parts(hf, part, 1), max_len=32_768)
    closed = [
        replace(one, placement="pre_closed") if isinstance(one.feed_forward, Moe) else one
        for one in spec.layers
    ]
    return replace(spec, layers=tuple(closed))


def deepseek_v32(hf: HfConfig) -> DecoderSpec:
    """`DeepseekV32ForCausalLM`: V3 whose queries see the `index_topk` tokens that an indexer picks.

    Source: arXiv 2512.02556.
    """
    hf.skip("layer_types")
    mixer = latent_attention(hf, interleaved=True, default_q_rank=1536)
    demand(hf, "no checkpoint of this architecture has it", mlp_bias=False)
    part = sigmoid_experts(hf, top_k=8, scale=2.5, groups=8, top_groups=4)
    spec = layered(hf, mixer, named_parts(hf, part, 3), max_len=163_840)
    return picking(hf, spec, [True] * len(spec.layers), num_heads=64, interleaved=False)


def glm_moe_dsa(hf: HfConfig) -> DecoderSpec:
    """`GlmMoeDsaForCausalLM` (GLM 5): as `deepseek_v32`, but layers may share the picks of one before."""
    if not hf.bool_("rope_interleave", True):
        raise hf.refuse("rope_interleave", "neighbours turn in pairs in this architecture")
    hf.skip("layer_types", "index_share_for_mtp_iteration")
    mixer = latent_attention(hf, interleaved=True, default_q_rank=2048)
    demand(hf, "no checkpoint of this architecture has it", mlp_bias=False)
    demand(hf, "neighbours turn in pairs here too", indexer_rope_interleave=True)
    part = sigmoid_experts(hf, top_k=8, scale=2.5)
    hf.choice("moe_router_dtype", {"float32": None}, "float32")
    spec = layered(hf, mixer, named_parts(hf, part, 3), max_len=202_752, eps=1e-5)
    own = own_indexers(hf, len(spec.layers))
    return picking(hf, spec, own, num_heads=32, interleaved=True)


def mistral4(hf: HfConfig) -> DecoderSpec:
    """`Mistral4ForCausalLM`: Mistral Small 4, and Large 3 in Mistral's own form."""
    return growing_experts(hf)


_PANGU_KEYS = {
    "attention_q_lora_dim": "q_lora_rank",
    "attention_kv_lora_dim": "kv_lora_rank",
    "attention_qk_dim": "qk_nope_head_dim",
    "attention_qk_rope_dim": "qk_rope_head_dim",
    "attention_v_dim": "v_head_dim",
    "num_routed_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "num_dense_layers": "first_k_dense_replace",
}


def pangu_ultra(hf: HfConfig) -> DecoderSpec:
    """`PanguUltraMoEForCausalLM` (openPangu Ultra 718B): norms around each part, experts without groups.

    Files call sizes as DeepSeek's do, or in words of their own. Source: arXiv 2505.04519.
    """
    for own, name in _PANGU_KEYS.items():
        if (value := hf.optional_int(own, minimum=0)) is not None:
            hf.add_defaults({name: value})
    hf.add_defaults({"n_routed_experts": 256})
    interleaved = hf.bool_("rope_interleave", True)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=1536, theta=25_600_000.0)
    demand(hf, router_enable_expert_bias=False, mlp_bias=False)
    part = replace(sigmoid_experts(hf, top_k=8, scale=2.5), choice_bias=False)
    spec = layered(hf, mixer, dense_first(hf, part, 3), max_len=131_072, eps=1e-5)
    return with_placement(spec, "sandwich" if hf.bool_("sandwich_norm", False) else "pre")


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

_PANGU = replace(
    _EXPERTS,
    rules=(
        *_EXPERTS.without("layers.{layer}.norm_before_feed_forward").rules,
        *for_placement(
            "pre", ours(LAYER, ("post_attention_layernorm", "norm_before_feed_forward"))
        ),
        *for_placement(
            "sandwich",
            ours(
                LAYER,
                ("post_attention_layernorm", "norm_after_mixer"),
                ("pre_mlp_layernorm", "norm_before_feed_forward"),
                ("post_mlp_layernorm", "norm_after_feed_forward"),
            ),
        ),
    ),
)

_AFTER = f"{LAYER}.post_mlp_layernorm.weight"
_CLOSED = _EXPERTS.with_rules(Rule(_AFTER, f"{OURS}.norm_after_feed_forward.weight"))
_CLOSED = replace(_CLOSED, ignored=(*_CLOSED.ignored, _AFTER))
"""Dense layers leave that norm unread."""

_INDEXED = _EXPERTS.with_rules(*INDEXER_RULES)
_INDEXED = replace(_INDEXED, ignored=(*_INDEXED.ignored, *(rule.source for rule in INDEXER_RULES)))
"""Where no sequence is longer than what is picked, what would pick is left unread."""

ARCHITECTURES = {
    "DeepseekV2ForCausalLM": Architecture(deepseek_v2, _EXPERTS),
    "DeepseekV3ForCausalLM": Architecture(deepseek_v3, _EXPERTS),
    "KimiK25ForConditionalGeneration": Architecture(
        text_alone(deepseek_v3), llava_names(_EXPERTS, ("vision_tower.", "mm_projector."))
    ),
    "SarvamMLAForCausalLM": Architecture(sarvam_mla, _EXPERTS),
    "DeepseekV32ForCausalLM": Architecture(deepseek_v32, _INDEXED),
    "GlmMoeDsaForCausalLM": Architecture(glm_moe_dsa, _INDEXED),
    "Glm4MoeLiteForCausalLM": Architecture(glm4_moe_lite, _EXPERTS),
    "Mistral4ForCausalLM": Architecture(mistral4, _EXPERTS),
    "PanguUltraMoEForCausalLM": Architecture(pangu_ultra, _PANGU),
    "AXK1ForCausalLM": Architecture(axk1, _CLOSED),
    "YoutuForCausalLM": Architecture(youtu, _LATENT),
    "MiniCPM3ForCausalLM": Architecture(minicpm3, _LATENT),
}
