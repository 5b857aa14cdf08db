"""LFM2: gated short convolutions with attention in between, dense or with experts.

Spellings shared with other families are in `models.hf_decoder` and `models.hf_parts`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, experts
from quire.models.hf_parts import LAYER_KINDS, layer_kinds, rope
from quire.models.name_parts import LAYER, OURS, gate_and_up, ours, pair, separate_heads
from quire.models.names import QK_NORM_RULES, Rule, WeightMap, expert_rules, router_rules
from quire.models.recurrent import ShortConv
from quire.models.spec import (
    DecoderSpec,
    Dense,
    FeedForward,
    LayerSpec,
    Mixer,
    Placement,
    ProportionalScaling,
    Rope,
)


def lfm2(hf: HfConfig) -> DecoderSpec:
    """`Lfm2ForCausalLM`; defaults as in Lfm2Config. Source: arXiv 2511.23404."""
    whole = set(range(hf.int_("num_hidden_layers")))
    if hf.has("full_attn_idxs"):
        whole = set(hf.integers("full_attn_idxs"))
    return _decoder(hf, [Dense(width=_width(hf))] * hf.int_("num_hidden_layers"), whole)


def lfm2_moe(hf: HfConfig) -> DecoderSpec:
    """`Lfm2MoeForCausalLM`: experts weighed by sigmoids behind the first layers."""
    part = experts(
        hf,
        32,
        4,
        activation="silu",
        width=hf.int_("moe_intermediate_size", 1792),
        scoring="sigmoid",
        normalize=hf.bool_("norm_topk_prob", True),
        scale=hf.positive("routed_scaling_factor", 1.0),
        choice_bias=hf.bool_("use_expert_bias", True),
    )
    dense = Dense(width=hf.int_("intermediate_size", 7168))
    first = hf.int_("num_dense_layers", 2, minimum=0)
    count = hf.int_("num_hidden_layers")
    return _decoder(hf, [dense if index < first else part for index in range(count)], set())


def lfm3(hf: HfConfig) -> DecoderSpec:
    """`Lfm3ForCausalLM`: windows in some layers, norms on both sides of each part; defaults as in Lfm3Config."""
    eps = hf.positive("norm_eps", 1e-5)
    size, gated = hf.int_("head_dim", 128), hf.bool_("use_attention_gate", True)
    window = hf.optional_int("sliding_window", 256)
    mixers: dict[str, Mixer] = {"conv": _convolution(hf, 7)}
    for kind, slides in LAYER_KINDS.items():
        mixers[kind] = attention(
            hf,
            kv_heads=4,
            head_dim=128,
            rope=_rope3(hf, size, sliding=slides),
            qk_norm="per_head",
            norm_eps=eps,
            gate=gated,
            gate_heads=gated,
            window=window if slides else None,
        )
    placement: Placement = "sandwich" if hf.bool_("use_sandwich_norm", True) else "pre"
    kinds = layer_kinds(hf, tuple(mixers), _kind3)
    part = Dense(width=hf.int_("intermediate_size", 7680))
    layers = [
        LayerSpec(mixer=mixers[kind], feed_forward=part, placement=placement, norm_eps=eps)
        for kind in kinds
    ]
    return decoder(hf, layers, max_len=128_000, tie=True)


def _kind3(index: int) -> str:
    if index % 4 == 2:
        return "full_attention"
    return "conv" if index % 4 or not index else "sliding_attention"


def _rope3(hf: HfConfig, size: int, *, sliding: bool) -> Rope:
    """Without `rope_parameters` half of the pairs of heads without a window turns."""
    if hf.has("rope_parameters"):
        return rope(hf, head_size=size, sliding=sliding)
    if sliding:
        return Rope(dim=size)
    return Rope(dim=size, theta=1_000_000.0, scaling=ProportionalScaling(turning=size // 4))


def _convolution(hf: HfConfig, kernel: int) -> ShortConv:
    return ShortConv(
        width=hf.int_("hidden_size"),
        kernel=hf.int_("conv_L_cache", kernel, minimum=2),
        bias=hf.bool_("conv_bias", False),
    )


def _decoder(hf: HfConfig, parts: list[FeedForward], whole: set[int]) -> DecoderSpec:
    """The layers with attention are those that `layer_types` names, or `whole`."""
    hf.skip(*_TRAINING)
    eps = hf.positive("norm_eps", 1e-5)
    mixers: dict[str, Mixer] = {
        "full_attention": attention(
            hf, bias=None, kv_heads=8, theta=("rope_theta", 1e6), qk_norm="per_head", norm_eps=eps
        ),
        "conv": _convolution(hf, 3),
    }
    kinds = layer_kinds(hf, tuple(mixers), lambda i: "full_attention" if i in whole else "conv")
    layers = [
        LayerSpec(mixer=mixers[kind], feed_forward=part, norm_eps=eps)
        for kind, part in zip(kinds, parts, strict=True)
    ]
    tie = hf.bool_("tie_word_embeddings", True)
    return decoder(hf, layers, max_len=128_000, tie_head=hf.bool_("tie_embedding", tie))


def _width(hf: HfConfig) -> int:
    """Of the feed-forward part: two thirds of what the file says, made a round number, unless it says not to."""
    width = hf.int_("block_ff_dim", hf.int_("intermediate_size", 12_288))
    factor = hf.optional_positive("block_ffn_dim_multiplier", 1.0)
    multiple = hf.int_("block_multiple_of", 256)
    if not hf.bool_("block_auto_adjust_ff_dim", True):
        return width
    width = 2 * width // 3
    return width if factor is None else -(-int(factor * width) // multiple) * multiple


_TRAINING: tuple[str, ...] = (
    "block_dim",
    "block_mlp_init_scale",
    "block_norm_eps",
    "block_out_init_scale",
)
_TRAINING += ("block_use_swiglu", "block_use_xavier_init", "conv_dim", "conv_dim_out")
_TRAINING += ("conv_use_xavier_init", "num_heads", "use_pos_enc")
"""Keys of published files that Transformers does not look at."""

_PARTS = (
    ("operator_norm", "norm_before_mixer"),
    ("ffn_norm", "norm_before_feed_forward"),
    ("self_attn.out_proj", "mixer.out"),
    ("self_attn.q_layernorm", "mixer.q_norm"),
    ("self_attn.k_layernorm", "mixer.k_norm"),
    ("conv.out_proj", "mixer.back"),
    ("feed_forward.w2", "feed_forward.down"),
)

LFM2_NAMES = WeightMap(
    rules=(
        Rule("model.embed_tokens.weight", "embedding.weight"),
        *ours(LAYER, *_PARTS),
        *separate_heads(LAYER, *(f"self_attn.{name}_proj" for name in "qkv")),
        *pair(f"{LAYER}.conv.in_proj", f"{OURS}.mixer.in", parts=(0, 1, 2)),
        Rule(f"{LAYER}.conv.conv.weight", f"{OURS}.mixer.conv.weight", squeeze=True),
        Rule(f"{LAYER}.conv.conv.bias", f"{OURS}.mixer.conv.bias"),
        *gate_and_up(f"{LAYER}.feed_forward", "w1", "w3"),
        Rule("model.embedding_norm.weight", "final_norm.weight"),
        Rule("lm_head.weight", "head.weight"),
    ),
    ignored_if_tied=("lm_head.weight",),
)

LFM3_NAMES = LFM2_NAMES.without(
    *(f"{OURS}.mixer.{name}" for name in ("out", "q_norm", "k_norm"))
).with_rules(
    *ours(
        LAYER,
        ("post_operator_norm", "norm_after_mixer"),
        ("post_ffn_norm", "norm_after_feed_forward"),
        ("self_attn.o_proj", "mixer.out"),
        ("self_attn.gate_proj", "mixer.gate"),
    ),
    *QK_NORM_RULES,
)

ARCHITECTURES = {
    "Lfm3ForCausalLM": Architecture(lfm3, LFM3_NAMES),
    "Lfm2ForCausalLM": Architecture(lfm2, LFM2_NAMES),
    "Lfm2MoeForCausalLM": Architecture(
        lfm2_moe,
        LFM2_NAMES.with_rules(
            *expert_rules("feed_forward", ("w1", "w3", "w2")),
            *router_rules("feed_forward.gate"),
            Rule(f"{LAYER}.feed_forward.expert_bias", f"{OURS}.feed_forward.choice.bias"),
        ),
    ),
}
