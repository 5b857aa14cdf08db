"""DeepSeek V4: several residual streams, attention over a window and over entries that stand for many tokens.

Spellings shared with earlier ones are in `models.hf_deepseek`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder
from quire.models.hf_parts import ACTIVATIONS, demand, layer_kinds, section_rope
from quire.models.name_parts import OURS
from quire.models.names import Rule, WeightMap
from quire.models.spec import (
    Compressed,
    DecoderSpec,
    HyperStreams,
    LayerSpec,
    Moe,
    Rope,
    YarnScaling,
)

_WINDOW, _SPARSE, _HEAVY = (
    "sliding_attention",
    "compressed_sparse_attention",
    "heavily_compressed_attention",
)
_KIND_OF_RATIO = {0: _WINDOW, 4: _SPARSE, 128: _HEAVY}


def deepseek_v4(hf: HfConfig) -> DecoderSpec:
    """`DeepseekV4ForCausalLM`; defaults as in DeepseekV4Config."""
    hf.skip("num_nextn_predict_layers", "num_key_value_heads")
    demand(hf, attention_bias=False, mlp_bias=False, norm_topk_prob=True)
    if hf.text("expert_dtype", "bf16") not in ("bf16", "bfloat16"):
        raise hf.refuse(
            "expert_dtype",
            "experts in FP4 beside weights in FP8 are not read; use a copy in bfloat16",
        )
    count, eps = hf.int_("num_hidden_layers"), hf.positive("rms_norm_eps", 1e-6)
    hashed = _hashed(hf, count)
    part = _experts(hf)
    mixers = _mixers(hf, _kinds(hf, count), eps)
    layers = [
        LayerSpec(
            mixer=mixer,
            feed_forward=replace(part, hashed=True, choice_bias=False) if by_token else part,
            placement="hyper",
            norm_eps=eps,
        )
        for mixer, by_token in zip(mixers, hashed, strict=True)
    ]
    streams = HyperStreams(
        count=hf.int_("hc_mult", 4, minimum=2),
        rounds=hf.int_("hc_sinkhorn_iters", 20),
        eps=hf.positive("hc_eps", 1e-6),
    )
    return decoder(hf, layers, max_len=1_048_576, streams=streams)


def _kinds(hf: HfConfig, count: int) -> list[str]:
    """The kind of each layer's attention: as `layer_types` or the older `compress_ratios` say."""
    ratios = hf.integers("compress_ratios")  # of draft layers behind the last one too
    if hf.has("layer_types") or not ratios:
        first = [_HEAVY] * 2
        return layer_kinds(
            hf, (_WINDOW, _SPARSE, _HEAVY), lambda i: (first + [_HEAVY, _SPARSE] * i)[i]
        )
    hf.skip("layer_types")
    if len(ratios) < count or set(ratios) - set(_KIND_OF_RATIO):
        raise hf.refuse("compress_ratios", f"it must say 0, 4 or 128 for each of {count} layers")
    return [_KIND_OF_RATIO[ratio] for ratio in ratios[:count]]


def _hashed(hf: HfConfig, count: int) -> list[bool]:
    """For each layer whether the token alone tells its experts."""
    first = hf.int_("num_hash_layers", 3, minimum=0)
    names = hf.strings("mlp_layer_types") or [
        "hash_moe" if i < first else "moe" for i in range(count)
    ]
    if len(names) != count or set(names) - {"hash_moe", "moe"}:
        raise hf.refuse("mlp_layer_types", "it must say hash_moe or moe for each layer")
    return [name == "hash_moe" for name in names]


def _experts(hf: HfConfig) -> Moe:
    hf.skip("router_jitter_noise")
    hf.choice("topk_method", {"noaux_tc": None}, "noaux_tc")
    if hf.int_("n_shared_experts", 1) != 1:
        raise hf.refuse("n_shared_experts", "this architecture has one that all tokens pass")
    width = hf.int_("moe_intermediate_size", 2048)
    return Moe(
        num_experts=hf.int_("n_routed_experts", 256),
        top_k=hf.int_("num_experts_per_tok", 6),
        width=width,
        activation=hf.choice("hidden_act", ACTIVATIONS, "silu"),
        limit=hf.positive("swiglu_limit", 10.0),
        scoring=hf.choice("scoring_func", {"sqrtsoftplus": "softplus_root"}, "sqrtsoftplus"),
        scale=hf.positive("routed_scaling_factor", 1.5),
        router_float32=True,
        choice_bias=True,
        shared_width=width,
    )


def _mixers(hf: HfConfig, kinds: list[str], eps: float) -> list[Compressed]:
    rates = _rates(hf)
    plain, scaled = _ropes(hf)
    heads, size = hf.int_("num_attention_heads", 64), hf.int_("head_dim", 512)
    groups = hf.int_("o_groups", 8)
    if heads % groups:
        raise hf.refuse("o_groups", f"{heads} heads must stand in equal groups")
    base = Compressed(
        num_heads=heads,
        head_size=size,
        q_rank=hf.int_("q_lora_rank", 1024),
        rope=plain,
        window=hf.int_("sliding_window", 128),
        rate=0,
        index_heads=0,
        index_size=0,
        index_top_k=0,
        out_groups=groups,
        out_rank=hf.int_("o_lora_rank", 1024),
        norm_eps=eps,
    )
    heavy = replace(base, rope=scaled, rate=rates[_HEAVY])
    sparse = replace(
        heavy,
        rate=rates[_SPARSE],
        index_heads=hf.int_("index_n_heads", 64),
        index_size=hf.int_("index_head_dim", 128),
        index_top_k=hf.int_("index_topk", 512),
    )
    if sparse.index_size < scaled.dim:
        raise hf.refuse("index_head_dim", f"{scaled.dim} numbers of it have a position")
    return [{_WINDOW: base, _SPARSE: sparse, _HEAVY: heavy}[kind] for kind in kinds]


def _rates(hf: HfConfig) -> dict[str, int]:
    """Tokens of an entry by kind of layer."""
    section = hf.section("compress_rates") or hf
    keys = {_SPARSE: ("compress_rate_csa", 4), _HEAVY: ("compress_rate_hca", 128)}
    return {
        kind: hf.optional_int(older) or section.int_(kind, default)
        for kind, (older, default) in keys.items()
    }


def _ropes(hf: HfConfig) -> tuple[Rope, Rope]:
    """Positions of layers with a window alone, and of those with entries."""
    dim = _turned(hf)
    bases = hf.positive("rope_theta", 10_000.0), hf.positive("compress_rope_theta", 160_000.0)
    both = hf.section("rope_parameters")
    if both is not None and both.has("main"):
        found = []
        for name, base in zip(("main", "compress"), bases, strict=True):
            section = both.section(name)
            if section is None:
                raise hf.refuse("rope_parameters", "it must have main and compress")
            section.skip("partial_rotary_factor")
            found.append(section_rope(hf, section, dim=dim, theta=base, interleaved=True))
        return found[0], found[1]
    plain = Rope(dim=dim, theta=bases[0], interleaved=True)
    section = hf.section("rope_scaling") or both
    if section is None:
        return plain, replace(plain, theta=bases[1])
    section.skip("rope_theta")
    scaled = section_rope(hf, section, dim=dim, theta=bases[1], interleaved=True)
    if isinstance(scaled.scaling, YarnScaling) and not section.has("attention_factor"):
        scaled = replace(scaled, scaling=replace(scaled.scaling, attention_factor=1.0))
    return plain, replace(scaled, theta=bases[1])


def _turned(hf: HfConfig) -> int:
    """How many numbers of a head have a position."""
    size = hf.int_("head_dim", 512)
    part = hf.optional_positive("partial_rotary_factor")
    stated = hf.int_("qk_rope_head_dim", size * 64 // 512)
    dim = stated if part is None else int(size * part)
    if dim % 2 or not 0 < dim <= size:
        raise hf.refuse("qk_rope_head_dim", f"an even number of the {size} of a head must turn")
    return dim


_LAYER, _HEAD = "model.layers.{layer}", "model.hc_head.hc_"


def _entries(source: str, target: str) -> tuple[Rule, ...]:
    source, target = f"{_LAYER}.attn.{source}", f"{OURS}.mixer.{target}"
    return (
        Rule(f"{source}.wkv.weight", f"{target}.weight", parts=(0,)),
        Rule(f"{source}.wgate.weight", f"{target}.weight", parts=(1,)),
        Rule(f"{source}.ape", f"{target}.slots"),
        Rule(f"{source}.norm.weight", f"{target}.norm.weight"),
    )


def _expert(source: str, target: str) -> tuple[Rule, ...]:
    source, target = f"{_LAYER}.ffn.{source}", f"{OURS}.feed_forward.{target}"
    return (
        Rule(f"{source}.w1.weight", f"{target}.gate_up.weight", parts=(0,)),
        Rule(f"{source}.w3.weight", f"{target}.gate_up.weight", parts=(1,)),
        Rule(f"{source}.w2.weight", f"{target}.down.weight"),
    )


_ATTENTION = (
    ("wq_a", "q_down"),
    ("q_norm", "q_norm"),
    ("wq_b", "q_up"),
    ("wkv", "kv"),
    ("norm", "kv_norm"),
    ("wo_a", "out_down"),
    ("wo_b", "out"),
    ("indexer.wq_b", "index.q"),
    ("indexer.weights_proj", "index.shares"),
)
_STREAMS = (("fn", "weight"), ("base", "base"), ("scale", "scale"))

NAMES = WeightMap(
    rules=(
        Rule("model.embed_tokens.weight", "embedding.weight"),
        Rule("model.norm.weight", "final_norm.weight"),
        Rule("head.weight", "head.weight"),
        Rule(f"{_LAYER}.attn_norm.weight", f"{OURS}.norm_before_mixer.weight"),
        Rule(f"{_LAYER}.ffn_norm.weight", f"{OURS}.norm_before_feed_forward.weight"),
        *(Rule(f"{_HEAD}{source}", f"streams.close.{kind}") for source, kind in _STREAMS),
        *(
            Rule(f"{_LAYER}.hc_{part}_{source}", f"{OURS}.around_{place}.{kind}")
            for part, place in (("attn", "mixer"), ("ffn", "feed_forward"))
            for source, kind in _STREAMS
        ),
        Rule(f"{_LAYER}.attn.attn_sink", f"{OURS}.mixer.sinks"),
        *(
            Rule(f"{_LAYER}.attn.{source}.weight", f"{OURS}.mixer.{target}.weight")
            for source, target in _ATTENTION
        ),
        *_entries("compressor", "compress"),
        *_entries("indexer.compressor", "index.compress"),
        Rule(f"{_LAYER}.ffn.gate.weight", f"{OURS}.feed_forward.router.weight"),
        Rule(f"{_LAYER}.ffn.gate.bias", f"{OURS}.feed_forward.choice.bias"),
        Rule(f"{_LAYER}.ffn.gate.tid2eid", f"{OURS}.feed_forward.chosen"),
        *_expert("experts.{expert}", "experts.{expert}"),
        *_expert("shared_experts", "shared"),
    ),
    ignored_if_tied=("head.weight",),
    older=(
        ("model.embed_tokens.", "embed."),
        (f"{_LAYER}.attn.norm.", "layers.{layer}.attn.kv_norm."),
        (_HEAD, "hc_head_"),
        ("model.", ""),
    ),
    drafts=("mtp.", "model.mtp."),
)
"""As Transformers writes them; the published files' begin otherwise."""

ARCHITECTURES = {"DeepseekV4ForCausalLM": Architecture(deepseek_v4, NAMES)}
