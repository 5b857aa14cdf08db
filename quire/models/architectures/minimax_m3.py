"""MiniMax M3: heads of keys that pick blocks of tokens, experts and dense parts with a clamped gate.

Spellings shared with other families are in `models.hf_decoder`; MiniMax M2 is in `glm_moe`, earlier ones in `minimax`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder
from quire.models.hf_parts import demand, layer_kinds
from quire.models.hf_text import llava_names, text_alone
from quire.models.name_parts import LAYER, OURS, choice_rule
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    Rule,
    expert_rules,
    router_rules,
    shared_rules,
)
from quire.models.spec import BlockPicks, DecoderSpec, Dense, LayerSpec, Moe

_FULL, _SPARSE = "full_attention", "minimax_m3_sparse"


def minimax_m3(hf: HfConfig) -> DecoderSpec:
    """The text of `MiniMaxM3SparseForConditionalGeneration`; defaults as in MiniMaxM3VLTextConfig."""
    _check(hf)
    size = hf.int_("head_dim", 128)
    part = ("partial_rotary_factor", hf.int_("rotary_dim", 64) / size)
    theta = ("rope_theta", 5_000_000.0)
    whole = attention(
        hf, bias=None, heads=64, kv_heads=4, head_dim=size, theta=theta, part=part, normed=1e-6
    )
    old = hf.section("sparse_attention_config") or HfConfig({})
    picks = _picks(hf, old, eps=whole.norm_eps)
    if picks.num_heads != whole.num_kv_heads:
        raise hf.refuse("index_n_heads", f"{whole.num_kv_heads} heads of keys pick blocks")
    mixers = {_FULL: whole, _SPARSE: replace(whole, indexer=picks)}
    frequencies = old.integers("sparse_attention_freq") or [0] * hf.int_("num_hidden_layers")
    kinds = layer_kinds(hf, (_FULL, _SPARSE), lambda index: (_FULL, _SPARSE)[frequencies[index]])
    parts = _parts(hf)
    names = hf.strings("mlp_layer_types") or [
        ("dense", "sparse")[one] for one in hf.integers("moe_layer_freq") or [1] * len(kinds)
    ]
    if len(names) != len(kinds) or set(names) - set(parts):
        raise hf.refuse("mlp_layer_types", "it must say dense or sparse for each layer")
    layers = [
        LayerSpec(mixer=mixers[kind], feed_forward=parts[name], norm_eps=whole.norm_eps)
        for kind, name in zip(kinds, names, strict=True)
    ]
    return decoder(hf, layers, max_len=524_288)


def _picks(hf: HfConfig, old: HfConfig, *, eps: float) -> BlockPicks:
    """What picks blocks, as the keys of the config class or the older object say."""
    old.skip("sparse_disable_index_value", "use_sparse_attention")  # no file has such values
    old.choice("sparse_score_type", {"max": None}, "max")
    if old.int_("sparse_init_block", 0, minimum=0):
        raise old.refuse("sparse_init_block", "the first blocks are picked by their scores")
    return BlockPicks(
        num_heads=old.int_("sparse_num_index_heads", hf.int_("index_n_heads", 4)),
        head_size=old.int_("sparse_index_dim", hf.int_("index_head_dim", 128)),
        count=old.int_("sparse_topk_blocks", hf.int_("index_topk_blocks", 16)),
        size=old.int_("sparse_block_size", hf.int_("index_block_size", 128)),
        local=old.int_("sparse_local_block", hf.int_("index_local_blocks", 1), minimum=0),
        norm_eps=eps,
    )


def _parts(hf: HfConfig) -> dict[str, Dense | Moe]:
    limit = hf.positive("swiglu_limit", 7.0)
    return {
        "dense": Dense(
            width=hf.int_("dense_intermediate_size", 12_288),
            activation="swiglu_clamped",
            limit=limit,
        ),
        "sparse": Moe(
            num_experts=hf.int_("num_experts", hf.int_("num_local_experts", 128)),
            top_k=hf.int_("num_experts_per_tok", 4),
            width=hf.int_("intermediate_size", 3072),
            activation="swiglu_clamped",
            limit=limit,
            scoring="sigmoid",
            scale=hf.positive("routed_scaling_factor", 2.0),
            choice_bias=True,
            router_float32=True,
            shared_width=hf.int_("shared_intermediate_size", 3072),
        ),
    }


def _check(hf: HfConfig) -> None:
    hf.skip("hidden_act", "num_mtp_modules", "mtp_transformer_layers", "use_mtp")
    if hf.float_("swiglu_alpha", 1.702) != 1.702:
        raise hf.refuse("swiglu_alpha", "the gate of this architecture has 1.702")
    if hf.int_("n_shared_experts", 1) != 1:
        raise hf.refuse("n_shared_experts", "this architecture has one")
    hf.choice("scoring_func", {"sigmoid": None}, "sigmoid")
    hf.choice("qk_norm_type", {"per_head": None}, "per_head")
    always = ("use_gemma_norm", "use_qk_norm", "use_routing_bias")
    demand(hf, "this architecture has it", **dict.fromkeys(always, True))


_MOE, _PICKS = "block_sparse_moe", f"{OURS}.mixer.indexer"
_INDEXER = tuple(
    Rule(f"{LAYER}.self_attn.index_{source}.weight", f"{_PICKS}.{target}.weight", (part,))
    for source, target, part in (
        ("q_proj", "qk", 0),
        ("k_proj", "qk", 1),
        ("q_norm", "q_norm", 0),
        ("k_norm", "k_norm", 0),
    )
)
_NAMES = LLAMA_NAMES.with_rules(
    *QK_NORM_RULES,
    *_INDEXER,
    *expert_rules(_MOE, ("w1", "w3", "w2")),
    *router_rules(f"{_MOE}.gate"),
    *shared_rules(f"{_MOE}.shared_experts"),
    choice_rule(f"{_MOE}.e_score_correction_bias"),
)
_NAMES = replace(_NAMES, ignored=(*_NAMES.ignored, *(rule.source for rule in _INDEXER)))
_NAMES = _NAMES.folded("add_one", *(one.source for one in _NAMES.rules if "norm." in one.source))

ARCHITECTURES = {
    "MiniMaxM3SparseForConditionalGeneration": Architecture(
        text_alone(minimax_m3),
        llava_names(_NAMES, ("vision_tower.", "multi_modal_projector.", "patch_merge_mlp.")),
    )
}
