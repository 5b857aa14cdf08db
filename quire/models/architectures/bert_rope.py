"""Encoders with rotary positions whose norms stand behind sums: GTE (Snowflake's Arctic too) and Jina v3; EuroBERT.

Those with learned positions, Nomic BERT and ModernBERT are in `architectures.bert`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain, with_attention
from quire.models.hf_encoder import EMBEDDING_RULES, SKIPPED, after_sums, heads_of_all
from quire.models.hf_parts import default_head_size, rope
from quire.models.name_parts import OURS, joined_heads, ours, pair
from quire.models.names import LLAMA_NAMES, Rule, WeightMap
from quire.models.positions import LinearScaling
from quire.models.spec import DecoderSpec, Dense, Rope

_GTE_KEYS = ("layer_norm_type", "unpad_inputs", "use_memory_efficient_attention", "pack_qkv")


def gte(hf: HfConfig) -> DecoderSpec:
    """`GteModel`, and `NewModel` as it was published with code: gates, and biases but of gate and up."""
    hf.skip(*_GTE_KEYS, "logn_attention_clip1")
    hf.choice("layer_norm_type", {"layer_norm": None}, "layer_norm")
    if hf.bool_("logn_attention_scale", False):
        raise hf.refuse("logn_attention_scale", "scores are not scaled by the length of a text")
    return _encoder(hf, dense(hf, default="gelu", down_bias=True), theta=160_000.0)


def jina_v3(hf: HfConfig) -> DecoderSpec:
    """`JinaEmbeddingsV3Model`, without the adapters of its tasks, and below jina-colbert-v2. Source: arXiv 2409.10173.

    Files of the code that both were published with name the base of positions otherwise, and must name it.
    """
    hf.skip("use_flash_attn", "use_reentrant", "load_trained_adapters", "truncate_dim")
    is_published = hf.text("position_embedding_type", "rope") == "rotary"
    if is_published and not hf.has("rotary_emb_base"):
        raise hf.refuse("rotary_emb_base", "the base of rotary positions must be there")
    theta = hf.positive("rotary_emb_base", 20_000.0)
    return _encoder(hf, dense(hf, default="gelu", bias=True, gated=False), theta=theta)


def eurobert(hf: HfConfig) -> DecoderSpec:
    """`EuroBertModel`: Llama's layers, each token with all others. Source: arXiv 2503.05500."""
    hf.skip("mask_token_id")
    spec = plain(hf, attention(hf), dense(hf, bias=hf.bool_("mlp_bias", False)), eps=1e-5)
    seen = with_attention(spec, lambda index, mixer: replace(mixer, bidirectional=True))
    return replace(seen, tie_head=True)


def _encoder(hf: HfConfig, part: Dense, *, theta: float) -> DecoderSpec:
    """theta  default of `rope_theta`."""
    hf.skip(*SKIPPED)
    hf.choice("position_embedding_type", {"rope": None, "absolute": None, "rotary": None}, "rope")
    mixer = heads_of_all(hf, bias=True, rope=_turns(hf, default_head_size(hf), theta))
    spec = after_sums(hf, mixer, part, hf.int_("num_hidden_layers"), hf.int_("hidden_size"))
    return replace(
        spec,
        max_position_embeddings=hf.int_("max_position_embeddings", 8192),
        token_types=hf.int_("type_vocab_size", 1, minimum=0),
    )


def _turns(hf: HfConfig, size: int, theta: float) -> Rope:
    """Positions; published files of GTE have a scaling "ntk": a larger base, and all angles a little smaller."""
    section = hf.section("rope_scaling")
    if section is None or section.text("type", "") != "ntk":
        return rope(hf, head_size=size, theta=("rope_theta", theta))
    factor = section.positive("factor")
    base = hf.positive("rope_theta", theta)
    if factor == 1:
        return Rope(dim=size, theta=base)
    return Rope(dim=size, theta=base * factor, scaling=LinearScaling(factor=factor ** (2 / size)))


_GATES = f"{OURS}.feed_forward.gate_up.weight"
_NEW, _JINA = "encoder.layer.{layer}", "encoder.layers.{layer}"
_NEW_RULES = (
    *EMBEDDING_RULES,
    *pair("embeddings.LayerNorm", "embedding_norm"),
    Rule(f"{_NEW}.mlp.up_gate_proj.weight", _GATES, parts=(0, 1), fold="swap_halves"),
    *ours(
        _NEW,
        ("attention.o_proj", "mixer.out"),
        ("attn_ln", "norm_after_mixer"),
        ("mlp.down_proj", "feed_forward.down"),
        ("mlp_ln", "norm_after_feed_forward"),
    ),
)
_JINA_RULES = (
    *EMBEDDING_RULES,
    *pair("emb_ln", "embedding_norm"),
    *joined_heads(f"{_JINA}.mixer.Wqkv"),
    *ours(
        _JINA,
        ("mixer.out_proj", "mixer.out"),
        ("norm1", "norm_after_mixer"),
        ("mlp.fc1", "feed_forward.up"),
        ("mlp.fc2", "feed_forward.down"),
        ("norm2", "norm_after_feed_forward"),
    ),
)


def _below(prefix: str, *rules: Rule) -> WeightMap:
    """The map of these rules, with `prefix` before each name unless the checkpoint leaves it out."""
    named = tuple(replace(rule, source=f"{prefix}{rule.source}") for rule in rules)
    return WeightMap(named, optional_prefix=prefix)


GTE_NAMES = _below("gte.", *_NEW_RULES, *joined_heads(f"{_NEW}.attention.qkv_proj"))
NEW_NAMES = _below("new.", *_NEW_RULES, *joined_heads(f"{_NEW}.attention.qkv_proj"))

ARCHITECTURES = {
    "GteModel": Architecture(gte, GTE_NAMES),
    "NewModel": Architecture(gte, NEW_NAMES),
    "JinaEmbeddingsV3Model": Architecture(jina_v3, _below("roberta.", *_JINA_RULES)),
    "EuroBertModel": Architecture(eurobert, LLAMA_NAMES),
}
