"""Pieces of a description in the spelling of DeepSeek's config.json, which other families took over.

Latent attention, experts chosen by groups beside shared ones, leading dense layers. The rest is
`models.hf_parts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import layered
from quire.models.hf_parts import ACTIVATIONS, demand, growth_of, rope, yarn_magnitude
from quire.models.spec import DecoderSpec, Dense, FeedForward, Indexer, Mla, Moe, Picks

_TRAINING = ("aux_loss_alpha", "ep_size", "seq_aux", "num_nextn_predict_layers", "num_mtp_layers")
COUNTS = ("n_routed_experts", "n_shared_experts")


def latent_attention(
    hf: HfConfig,
    *,
    interleaved: bool,
    default_q_rank: int,
    default_kv_rank: int = 512,
    out_size: int = 128,
    theta: float = 10_000.0,
) -> Mla:
    """The mixer of every layer; a long context raises the scale of scores by YaRN's `mscale_all_dim`.

    Each head has keys of its own, so that `num_key_value_heads` says nothing; `head_dim` is the part
    with a position. out_size: where `v_head_dim` does not say it. theta: where `rope_theta` does not.
    """
    hf.skip("num_key_value_heads", "head_dim", "qk_head_dim")
    heads = hf.int_("num_attention_heads")
    turned = rope(hf, head_size=hf.int_("qk_rope_head_dim", 64), theta=("rope_theta", theta))
    nope_size = hf.int_("qk_nope_head_dim", 128)
    growth = _score_growth(hf)
    return Mla(
        num_heads=heads,
        q_rank=hf.optional_int("q_lora_rank", default_q_rank or None) or 0,
        kv_rank=hf.int_("kv_lora_rank", default_kv_rank),
        nope_size=nope_size,
        out_size=hf.optional_int("v_head_dim", out_size) or out_size,
        rope=replace(turned, interleaved=interleaved),
        scale=None if growth is None else (nope_size + turned.dim) ** -0.5 * growth * growth,
        bias=hf.bool_("attention_bias", False),
    )


def picking(
    hf: HfConfig, spec: DecoderSpec, own: Sequence[bool], *, num_heads: int, interleaved: bool
) -> DecoderSpec:
    """The decoder whose queries see `index_topk` tokens at most.

    own  for each layer whether it has an indexer, or sees what the last one before picked.
    num_heads  the default of `index_n_heads`. interleaved: neighbours turn in pairs in indexers.
    """
    count = hf.int_("index_topk", 2048)
    heads, head_size = hf.int_("index_n_heads", num_heads), hf.int_("index_head_dim", 128)
    layers = []
    for layer, is_own in zip(spec.layers, own, strict=True):
        mixer = layer.mixer
        assert isinstance(mixer, Mla)
        if not mixer.q_rank:
            raise hf.refuse("q_lora_rank", "an indexer makes its queries of the queries' latent")
        if head_size < mixer.rope.dim:
            raise hf.refuse("index_head_dim", f"{mixer.rope.dim} numbers of a key have a position")
        indexer = Indexer(
            num_heads=heads, head_size=head_size, q_rank=mixer.q_rank, interleaved=interleaved
        )
        picks = Picks(count=count, indexer=indexer if is_own else None)
        layers.append(replace(layer, mixer=replace(mixer, picks=picks)))
    return replace(spec, layers=tuple(layers))


def own_indexers(hf: HfConfig, num_layers: int) -> list[bool]:
    """For each layer whether it has an indexer of its own, or sees what an earlier one picked.

    The first that there is says it: `indexer_types`, `index_topk_pattern`, or a frequency and where it begins.
    """
    every = max(hf.int_("index_topk_freq", 1, minimum=0), 1)
    first = hf.int_("index_skip_topk_offset", 2, minimum=0)
    own = [max(index - first + 1, 0) % every == 0 for index in range(num_layers)]
    key = "index_topk_freq"
    hf.skip("index_topk_pattern")
    if hf.has("index_topk_pattern"):
        key = "index_topk_pattern"
        own = _full_or_shared(hf, key, list(hf.text(key, "")), "F", "S")
    kinds = hf.strings("indexer_types")
    if kinds is not None:
        key = "indexer_types"
        own = _full_or_shared(hf, key, kinds, "full", "shared")
    if len(own) != num_layers or not own[0]:
        raise hf.refuse(key, f"it must be about {num_layers} layers, of which the first one picks")
    return own


def _full_or_shared(hf: HfConfig, key: str, kinds: list[str], full: str, shared: str) -> list[bool]:
    if not set(kinds) <= {full, shared}:
        raise hf.refuse(key, f"it must say {full} or {shared} for each layer")
    return [kind == full for kind in kinds]


def check_whole_heads(hf: HfConfig) -> None:
    """Refuses a `partial_rotary_factor` other than 1, beside the positions or among them."""
    for reader in (hf, hf.section("rope_scaling"), hf.section("rope_parameters")):
        if reader is not None and reader.float_("partial_rotary_factor", 1.0) != 1.0:
            raise reader.refuse("partial_rotary_factor", "this architecture turns all or none")


def _score_growth(hf: HfConfig) -> float | None:
    section = hf.section("rope_scaling" if hf.has("rope_scaling") else "rope_parameters")
    if section is None or not section.has("mscale_all_dim"):
        return None
    return yarn_magnitude(section.positive("factor"), section.positive("mscale_all_dim"))


def sigmoid_experts(
    hf: HfConfig,
    *,
    top_k: int,
    scale: float,
    groups: int = 1,
    top_groups: int = 1,
    normalize: bool = True,
    counts: tuple[str, str] = COUNTS,
) -> Moe:
    """Experts weighed by sigmoids, chosen with a bias among the best groups. Source: arXiv 2412.19437.

    The arguments are the defaults of the config class; counts are keys, as in `routed_experts`.
    """
    hf.choice("scoring_func", {"sigmoid": None, "noaux_tc": None}, "sigmoid")
    hf.choice("topk_method", {"noaux_tc": None}, "noaux_tc")
    return replace(
        in_groups(
            hf,
            routed_experts(hf, top_k=top_k, scale=scale, counts=counts),
            groups,
            top_groups,
            best=2,
        ),
        scoring="sigmoid",
        normalize=hf.bool_("norm_topk_prob", normalize),
        choice_bias=True,
    )


def in_groups(
    hf: HfConfig, part: Moe, groups: int, top_groups: int, *, best: int, key: str = "n_group"
) -> Moe:
    """`part` with experts chosen among `topk_group` of `n_group` (or `key`) groups, whose defaults are given.

    best  how many of its choices a group counts by.
    """
    groups = hf.optional_int(key, groups) or 1
    top_groups = hf.optional_int("topk_group", top_groups) or 1
    if groups == 1:
        return part
    each = part.num_experts // groups
    if part.num_experts % groups or each < best:
        raise hf.refuse(key, f"{part.num_experts} experts must stand in equal groups")
    if top_groups > groups or top_groups * each < part.top_k:
        raise hf.refuse(
            "topk_group", f"{groups} groups of {each} experts, of which {part.top_k} are chosen"
        )
    return replace(part, groups=groups, top_groups=top_groups, group_best=best)


def routed_experts(
    hf: HfConfig, *, top_k: int, scale: float, counts: tuple[str, str] = COUNTS
) -> Moe:
    """What both kinds of routing share; shared experts are one part of their common width.

    counts  the keys of the numbers of routed and of shared experts.
    """
    hf.skip(*_TRAINING)
    if hf.int_("moe_layer_freq", 1) != 1:
        raise hf.refuse("moe_layer_freq", "only experts in every layer behind the dense ones")
    width = hf.int_("moe_intermediate_size")
    routed, common = counts
    shared = hf.optional_int(common, 1, minimum=0) or 0
    return Moe(
        num_experts=hf.int_(routed, hf.optional_int("num_local_experts") or 64),
        top_k=hf.int_("num_experts_per_tok", top_k),
        width=width,
        activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
        scale=hf.positive("routed_scaling_factor", scale),
        shared_width=shared * width,
        router_float32=True,
    )


def dense_first(hf: HfConfig, part: Moe, default: int) -> Sequence[FeedForward]:
    """The feed-forward part of each layer: the first `first_k_dense_replace` have no experts."""
    dense = _dense(hf)
    first = hf.int_("first_k_dense_replace", default, minimum=0)
    return [dense if index < first else part for index in range(hf.int_("num_hidden_layers"))]


def _dense(hf: HfConfig) -> Dense:
    return Dense(
        width=hf.int_("intermediate_size"), activation=hf.choice("hidden_act", ACTIVATIONS, "silu")
    )


def growing_experts(hf: HfConfig) -> DecoderSpec:
    """Mistral's with a latent: experts weighed by their share of all, queries that grow with their position."""
    hf.add_defaults({"n_routed_experts": 128, "qk_nope_head_dim": 64})
    growth = growth_of(hf)
    interleaved = hf.bool_("rope_interleave", True)
    mixer = latent_attention(hf, interleaved=interleaved, default_q_rank=1024, default_kv_rank=256)
    section, part = hf.section("rope_parameters"), mixer.rope.dim / mixer.query_size
    if section is not None and section.float_("partial_rotary_factor", part) != part:
        raise section.refuse("partial_rotary_factor", f"qk_rope_head_dim is {part} of a head")
    demand(hf, "no checkpoint of this architecture has it", mlp_bias=False)
    hf.choice("scoring_func", {"softmax": None}, "softmax")
    experts = in_groups(hf, routed_experts(hf, top_k=4, scale=1.0), 1, 1, best=2)
    experts = replace(experts, normalize=hf.bool_("norm_topk_prob", True))
    mixer = replace(mixer, temperature=growth)
    return layered(hf, mixer, dense_first(hf, experts, 0), max_len=1_048_576)


def named_parts(hf: HfConfig, part: Moe, first: int) -> Sequence[FeedForward]:
    """The feed-forward part of each layer as `mlp_layer_types` says, or with leading dense layers."""
    parts = dense_first(hf, part, first)
    names = hf.strings("mlp_layer_types")
    if names is None:
        return parts
    if len(names) != len(parts) or not set(names) <= {"dense", "sparse"}:
        raise hf.refuse("mlp_layer_types", "it must say dense or sparse for each layer")
    dense = _dense(hf)
    return [part if name == "sparse" else dense for name in names]
