"""Zamba 2: state-space mixers, before some of which stands a block of attention that they share.

Spellings shared with other hybrids are in `models.hf_mamba`; the block is `models.shared_block`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, dense, head_share
from quire.models.hf_mamba import mamba_rules, skip_training
from quire.models.hf_parts import demand, head_counts, rope
from quire.models.name_parts import LAYER, OURS, pair, with_head
from quire.models.names import Rule
from quire.models.recurrent import Mamba2
from quire.models.spec import AfterBlock, Attention, DecoderSpec, LayerSpec

_GATED_EPS = 1e-5  # of the norm that the gate is part of, whatever the file says of others
_KINDS = {"mamba": False, "linear_attention": False, "hybrid": True}


def zamba2(hf: HfConfig) -> DecoderSpec:
    """`Zamba2ForCausalLM`; defaults as in Zamba2Config. Source: arXiv 2411.15242."""
    skip_training(hf)
    hf.skip("num_logits_to_keep", "use_mem_eff_path", "kv_channels", "num_query_groups")
    hf.skip("use_conv_bias")  # it always has one
    demand(hf, "its positions are not described", use_long_context=False)
    demand(hf, "without it blocks are not shared either", tie_word_embeddings=True)
    eps, width = hf.positive("rms_norm_eps", 1e-5), hf.int_("hidden_size")
    states = _states(hf, width)
    heads, kv_heads = head_counts(hf, default_heads=32)
    size = head_share(hf, 2 * width, heads)
    sizes = {"attention_hidden_size": 2 * width, "attention_head_dim": size}
    for key, value in (sizes | {"mamba_headdim": states.head_size}).items():
        if hf.int_(key, value) != value:
            raise hf.refuse(key, f"with the other sizes of the file it must be {value}")
    turns = hf.bool_("use_mem_rope", False)
    turned = rope(hf, head_size=size)
    attention = Attention(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=size,
        rope=turned if turns else None,
        scale=(size / 2) ** -0.5,
    )
    rank, count = hf.int_("adapter_rank", 128), hf.int_("num_mem_blocks", 1)
    own = rank if hf.bool_("use_shared_attention_adapter", False) else 0
    if own and heads != kv_heads:
        raise hf.refuse("num_key_value_heads", "it must be as many as others with own products")
    feed = hf.optional_int("intermediate_size") or 4 * width
    part = dense(hf, default="gelu", width=feed, bias=hf.bool_("add_bias_linear", False))
    places = [index for index, shares in enumerate(_shares(hf)) if shares]
    if hf.integers("hybrid_layer_ids") not in ([], places):
        raise hf.refuse("hybrid_layer_ids", f"by the kinds of layers it must be {places}")
    layers = []
    for index in range(hf.int_("num_hidden_layers", 54)):
        layer = LayerSpec(mixer=states, feed_forward=None, placement="mixer_only", norm_eps=eps)
        if index in places:  # the norm is between the block and the mixer
            use = places.index(index)
            mixer = AfterBlock(
                attention=attention,
                feed_forward=part,
                mixer=states,
                home=places[use % count],
                use=use,
                heads_rank=own,
                rank=rank,
                norm_eps=eps,
            )
            layer = replace(layer, mixer=mixer, norm="none", norm_eps=1e-6)
        layers.append(layer)
    return decoder(hf, layers, max_len=4096, tie=True, norm="rms", norm_eps=eps)


def _states(hf: HfConfig, width: int) -> Mamba2:
    heads, groups = hf.int_("n_mamba_heads", 8), hf.int_("mamba_ngroups", 1)
    return Mamba2(
        num_heads=heads,
        head_size=head_share(
            hf, hf.int_("mamba_expand", 2) * width, heads, ("mamba_expand", "n_mamba_heads")
        ),
        state_size=hf.int_("mamba_d_state", 64),
        num_groups=groups,
        kernel=hf.int_("mamba_d_conv", 4),
        conv_bias=True,
        bias=hf.bool_("add_bias_linear", False),
        norm_groups=groups,
        norm_eps=_GATED_EPS,
        step_limit=(hf.positive("time_step_min", 0.001), float("inf")),
    )


def _shares(hf: HfConfig) -> list[bool]:
    """For each layer whether a block stands before it."""
    names = hf.strings("layers_block_type") or hf.strings("layer_types")
    if names is None:
        first = [False] + ([False] * 5 + [True]) * 7
        return first + [False] * 4 + [True] + [False] * 3 + [True] + [False] * 2
    if set(names) - set(_KINDS) or len(names) != hf.int_("num_hidden_layers", 54):
        raise hf.refuse("layers_block_type", "it must be mamba or hybrid for each layer")
    return [_KINDS[name] for name in names]


_BLOCK, _HOME = f"{LAYER}.shared_transformer", "model.layers.{home}.shared_transformer"
_LIST = "adapter_list.{expert}.{expert}.weight"
NAMES = with_head(
    Rule("model.embed_tokens.weight", "embedding.weight"),
    Rule("model.final_layernorm.weight", "final_norm.weight"),
    Rule(f"{LAYER}.input_layernorm.weight", f"{OURS}.norm_before_mixer.weight"),
    *mamba_rules(f"{LAYER}.mamba"),
    Rule(f"{LAYER}.mamba_decoder.input_layernorm.weight", f"{OURS}.norm_after_block.weight"),
    *mamba_rules(f"{LAYER}.mamba_decoder.mamba", "mixers.1"),
    Rule(f"{LAYER}.linear.weight", f"{OURS}.entry.weight"),
    *(
        rule
        for part, name in enumerate("qkv")
        for rule in (
            Rule(f"{_BLOCK}.self_attn.{name}_proj.weight", f"{OURS}.block.qkv.weight", (part,)),
            Rule(
                f"{_HOME}.self_attn.linear_{name}_adapter_list.{{use}}.0.weight",
                f"{OURS}.own_heads.down.weight",
                (part,),
            ),
            Rule(
                f"{_HOME}.self_attn.linear_{name}_adapter_list.{{use}}.1.weight",
                f"{OURS}.own_heads.{name}.weight",
            ),
        )
    ),
    Rule(f"{_BLOCK}.self_attn.o_proj.weight", f"{OURS}.block.out.weight"),
    Rule(f"{_BLOCK}.input_layernorm.weight", f"{OURS}.block.norm_before_mixer.weight"),
    Rule(f"{_BLOCK}.pre_ff_layernorm.weight", f"{OURS}.block.norm_before_feed_forward.weight"),
    *pair(f"{_BLOCK}.feed_forward.gate_up_proj", f"{OURS}.block.gate_up", parts=(0, 1)),
    *pair(f"{_BLOCK}.feed_forward.down_proj", f"{OURS}.block.down"),
    Rule(
        f"{_HOME}.feed_forward.gate_up_proj_adapter_list.{{use}}.0.weight",
        f"{OURS}.own_gates.down.weight",
    ),
    Rule(
        f"{_HOME}.feed_forward.gate_up_proj_adapter_list.{{use}}.1.weight",
        f"{OURS}.own_gates.up.weight",
        (0, 1),
    ),
    ignored=tuple(
        f"{_BLOCK}.{name}"
        for name in (
            *(f"self_attn.{part}_proj.weight" for part in "qkvo"),
            *(f"self_attn.linear_{part}_{_LIST}" for part in "qkv"),
            *(
                f"feed_forward.{part}_proj.{kind}"
                for part in ("gate_up", "down")
                for kind in ("weight", "bias")
            ),
            f"feed_forward.gate_up_proj_{_LIST}",
            "input_layernorm.weight",
            "pre_ff_layernorm.weight",
        )
    ),
)
"""Files may have a block's weights again for each layer that shares it."""

ARCHITECTURES = {"Zamba2ForCausalLM": Architecture(zamba2, NAMES)}
