"""The parameters that a description implies: names, shapes and sizes, before any weight is read.

Where their numbers come from is `models.names`; reading them is `models.loading`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.models.compressed_parameters import compressed_parameters, connection
from quire.models.parameter import Parameter as Parameter
from quire.models.parameter import ParameterGroup as ParameterGroup
from quire.models.recurrent_parameters import RECURRENT_PARAMETERS
from quire.models.shared_block import block_parameters
from quire.models.spec import (
    AfterBlock,
    Attention,
    BlockPicks,
    Compressed,
    DecoderSpec,
    Dense,
    EncoderSpec,
    HyperStreams,
    Indexer,
    LayerSpec,
    Mixer,
    Mla,
    Moe,
    NormKind,
    SideBySide,
)

NORM_PLACES = {
    "pre": ("before_mixer", "before_feed_forward"),
    "pre_weighed": ("before_mixer", "before_feed_forward"),
    "post": ("after_mixer", "after_feed_forward"),
    "sandwich": ("before_mixer", "before_feed_forward", "after_mixer", "after_feed_forward"),
    "sandwich_blended": (
        "before_mixer",
        "before_feed_forward",
        "after_mixer",
        "after_feed_forward",
    ),
    "parallel": ("before_mixer", "before_feed_forward"),
    "parallel_shared": ("before_parts",),
    "pre_cross": ("before_mixer", "before_cross", "before_feed_forward"),
    "after_sums": ("after_mixer", "after_feed_forward"),
    "after_sums_twice": ("after_mixer", "again", "after_feed_forward"),
    "after_sums_cross": ("after_mixer", "after_cross", "after_feed_forward"),
    "pre_feed_forward": ("before_feed_forward",),
    "pre_closed": ("before_mixer", "before_feed_forward", "after_feed_forward"),
    "mixer_only": ("before_mixer",),
    "feed_forward_only": ("before_feed_forward",),
    "sandwich_open": ("before_mixer", "after_mixer", "after_feed_forward"),
    "altup": ("before_mixer", "before_feed_forward", "after_mixer", "after_feed_forward"),
    "normed_stream": ("before_mixer", "before_feed_forward"),
    "shortcut_open": ("before_mixer", "before_feed_forward"),
    "shortcut_apart": ("before_feed_forward",),
    "shortcut_close": ("before_mixer", "before_feed_forward"),
    "hyper": ("before_mixer", "before_feed_forward"),
}
"""The norms of a layer with each placement."""

OWN_NORMS = ("before_experts", "after_experts", "before_shared", "after_shared")
"""Norms around the parts of a feed-forward part that has some."""


def parameters(spec: DecoderSpec) -> dict[str, Parameter]:
    """Every parameter of the decoder by name, in loading order."""
    if spec.program is not None:
        return {
            name: Parameter((weight.shape,), weight.group)  # type: ignore[arg-type]
            for name, weight in spec.program.weights.items()
        }
    width = spec.hidden_size
    table: dict[str, Parameter] = {
        "embedding.weight": Parameter(((spec.vocab_size, width),), "embedding"),
    }
    if spec.embedding_norm is not None:
        _norm(table, "embedding_norm", spec.embedding_norm, width)
    if spec.token_types:
        table["token_types.weight"] = Parameter(((spec.token_types, width),), "embedding")
    if spec.learned_positions:
        table["positions.weight"] = Parameter(((spec.learned_positions, width),), "embedding")
    _ends(table, spec)
    if spec.encoder is not None:
        _encoder(table, spec.encoder, width)
    for index, layer in enumerate(spec.layers):
        prefix = f"layers.{index}"
        if isinstance(layer.mixer, AfterBlock):
            table |= block_parameters(
                layer.mixer, prefix, width, owns_block=layer.mixer.home == index
            )
        _layer(table, prefix, layer, width)
        _layer_end(table, prefix, layer, spec)
    _norm(table, "final_norm", spec.norm, width)
    if spec.head_act is not None:
        table["before_head.weight"] = Parameter(((width, width),), "other")
        if spec.head_act_bias:
            table["before_head.bias"] = Parameter(((width,),), "other")
        _norm(table, "before_head.norm", spec.norm, width)
    if not spec.tie_head:
        table["head.weight"] = Parameter(((spec.vocab_size, width),), "head")
    if spec.head_bias:
        table["head.bias"] = Parameter(((spec.vocab_size,),), "head")
    return table


def _layer(table: dict[str, Parameter], prefix: str, layer: LayerSpec, width: int) -> None:
    _norms(table, prefix, layer, width)
    for mixer_name, mixer in named_mixers(layer):
        _MIXERS[type(mixer)](table, f"{prefix}.{mixer_name}", mixer, width)
    if isinstance(layer.feed_forward, Moe):
        _moe(table, f"{prefix}.feed_forward", layer.feed_forward, width)
    elif layer.feed_forward is not None:
        _dense(table, f"{prefix}.feed_forward", layer.feed_forward, width)


def _encoder(table: dict[str, Parameter], spec: EncoderSpec, width: int) -> None:
    if spec.embedding_norm is not None:
        _norm(table, "encoder.embedding_norm", spec.embedding_norm, width)
    if spec.learned_positions:
        shape = (spec.learned_positions, width)
        table["encoder.positions.weight"] = Parameter((shape,), "embedding")
    for index, layer in enumerate(spec.layers):
        _layer(table, f"encoder.layers.{index}", layer, width)
    _norm(table, "encoder.final_norm", spec.norm, width)


def _ends(table: dict[str, Parameter], spec: DecoderSpec) -> None:
    """What is made of a token before the first layer beside its embedding, and behind the last one."""
    width = spec.hidden_size
    if spec.layer_inputs is not None:
        size, rows = spec.layer_inputs.size, spec.layer_inputs.vocab_size
        inputs = len(spec.layers) * size
        table["layer_inputs.table.weight"] = Parameter(((rows, inputs),), "embedding")
        table["layer_inputs.product.weight"] = Parameter(((inputs, width),), "other")
        table["layer_inputs.norm.weight"] = Parameter(((size,),), "norm")
    if isinstance(spec.streams, HyperStreams):
        connection(table, "streams.close", spec.streams, width, writes=False)
        return
    for end in ("open", "close") if spec.streams is not None else ():
        for number in range(spec.streams.count - 1):  # type: ignore[union-attr]
            table[f"streams.{end}.{number}.weight"] = Parameter(((width, width),), "other")


def _layer_end(
    table: dict[str, Parameter], prefix: str, layer: LayerSpec, spec: DecoderSpec
) -> None:
    """Streams, a layer's own input, and the factor of what leaves it."""
    width, streams = spec.hidden_size, spec.streams
    group: ParameterGroup = "feed_forward"
    if isinstance(streams, HyperStreams):
        for place in ("mixer", "feed_forward"):
            connection(table, f"{prefix}.around_{place}", streams, width, writes=True)
    elif streams is not None:
        count, router = streams.count, f"{prefix}.altup.router"
        table[f"{router}_norm.weight"] = Parameter(((width,),), "norm")
        table[f"{router}.weight"] = Parameter(((count, width),), "router")
        table[f"{prefix}.altup.predict.weight"] = Parameter(((count * count, count),), "router")
        table[f"{prefix}.altup.correct.weight"] = Parameter(((count, count),), "router")
        table[f"{prefix}.laurel.down.weight"] = Parameter(((streams.rank, width),), group)
        table[f"{prefix}.laurel.up.weight"] = Parameter(((width, streams.rank),), group)
        table[f"{prefix}.laurel.norm.weight"] = Parameter(((width,),), "norm")
        if streams.scaled:
            table[f"{prefix}.altup.scale"] = Parameter(((width,),), "state")
    if spec.layer_inputs is not None and layer.input_act is not None:
        size = spec.layer_inputs.size
        table[f"{prefix}.input.gate.weight"] = Parameter(((size, width),), group)
        table[f"{prefix}.input.up.weight"] = Parameter(((width, size),), group)
        table[f"{prefix}.input.norm.weight"] = Parameter(((width,),), "norm")
    if isinstance(layer.feed_forward, Moe) and layer.feed_forward.hashed:
        chosen = (spec.vocab_size, layer.feed_forward.top_k)
        table[f"{prefix}.feed_forward.chosen"] = Parameter((chosen,), "choice")
    if layer.placement == "pre_weighed":
        for part in ("mixer", "feed_forward"):
            table[f"{prefix}.kept_by_{part}"] = Parameter(((width,),), "state")
    if layer.scaled:
        table[f"{prefix}.factor"] = Parameter(((1,),), "state")


def named_mixers(layer: LayerSpec) -> list[tuple[str, Mixer]]:
    """The mixers of a layer with the names of their parameters: `mixer` and `cross`, or `mixers.0` and so on.

    What picks tokens for a mixer has `mixer.indexer`. The attention of a block that layers share is not among them.
    """
    if isinstance(layer.mixer, AfterBlock):
        return [("mixers.1", layer.mixer.mixer)]
    if isinstance(layer.mixer, SideBySide):
        return [(f"mixers.{place}", part) for place, part in enumerate(layer.mixer.parts)]
    second = "mixer.indexer" if layer.cross is None else "cross"
    return list(zip(("mixer", second), layer.mixers))


def weight_counts(spec: DecoderSpec) -> dict[str, int]:
    """Numbers held by each group of parameters; a tied head counts once, as the embedding."""
    counts: dict[str, int] = {}
    for parameter in parameters(spec).values():
        counts[parameter.group] = counts.get(parameter.group, 0) + parameter.numel
    return counts


def _norms(table: dict[str, Parameter], prefix: str, layer: LayerSpec, width: int) -> None:
    for place in NORM_PLACES[layer.placement]:
        _norm(table, f"{prefix}.norm_{place}", layer.norm, width)


def _norm(table: dict[str, Parameter], name: str, kind: NormKind, width: int) -> None:
    if kind != "none":
        table[f"{name}.weight"] = Parameter(((width,),), "norm")
    if kind == "layer":
        table[f"{name}.bias"] = Parameter(((width,),), "norm")


def _attention(table: dict[str, Parameter], prefix: str, spec: Attention, width: int) -> None:
    q_size = spec.num_heads * spec.made_size
    kv_size = spec.num_kv_heads * spec.made_size
    mixed = spec.num_heads * (spec.head_size if spec.pairs else spec.value_size)
    rows: tuple[int, ...] = (spec.rank or q_size, kv_size, spec.num_kv_heads * spec.value_size)
    rows = rows[:2] if spec.values == "normed_keys" else rows
    rows = rows[:1] if spec.shares is not None else rows
    products = {"q": rows[:1], "kv": rows[1:]} if spec.cross else {"qkv": rows}
    for name, parts in products.items():
        table[f"{prefix}.{name}.weight"] = Parameter(tuple((n, width) for n in parts), "attention")
        if spec.qkv_bias:
            table[f"{prefix}.{name}.bias"] = Parameter(tuple((n,) for n in parts), "attention")
    if spec.rank:
        table[f"{prefix}.latent_norm.weight"] = Parameter(((spec.rank,),), "norm")
        table[f"{prefix}.up.weight"] = Parameter(((q_size, spec.rank),), "attention")
    if spec.qk_norm != "none":
        norms = (("q_norm", spec.num_heads), ("k_norm", spec.num_kv_heads))
        for which, heads in norms[: len(rows)]:
            shapes = {
                "per_head": (spec.made_size,),
                "full": (heads * spec.head_size,),
                "layer": (spec.head_size,),
                "layer_full": (heads * spec.head_size,),
                "layer_per_head": (heads, spec.head_size),
                "own_per_head": (heads, spec.head_size),
            }
            table[f"{prefix}.{which}.weight"] = Parameter((shapes[spec.qk_norm],), "norm")
            if spec.qk_norm in ("layer", "layer_full"):
                table[f"{prefix}.{which}.bias"] = Parameter((shapes[spec.qk_norm],), "norm")
    if spec.sinks:
        table[f"{prefix}.sinks"] = Parameter(((spec.num_heads,),), "choice")
    if spec.distances is not None:
        shape = (spec.distances.buckets, spec.num_heads)
        table[f"{prefix}.distances"] = Parameter((shape,), "choice")
    if spec.gate:
        gates = spec.num_heads if spec.gate_heads else mixed
        table[f"{prefix}.gate.weight"] = Parameter(((gates, width),), "attention")
    if spec.gate and spec.gate_bias:
        table[f"{prefix}.gate.bias"] = Parameter(((spec.num_heads,),), "attention")
    if spec.chosen:
        sets = spec.num_heads // spec.num_kv_heads
        table[f"{prefix}.router.weight"] = Parameter(((sets, width),), "router")
    if spec.told:
        values = spec.num_kv_heads * spec.value_size
        table[f"{prefix}.steps.weight"] = Parameter(((spec.num_kv_heads, values),), "router")
        if spec.qkv_bias:
            table[f"{prefix}.steps.bias"] = Parameter(((spec.num_kv_heads,),), "router")
        table[f"{prefix}.rates"] = Parameter(((spec.num_kv_heads,),), "state")
    if spec.pairs:
        table[f"{prefix}.halves"] = Parameter(((spec.head_size,),) * 4, "state")
    if spec.mixed_norm:
        table[f"{prefix}.mixed_norm.weight"] = Parameter(((mixed,),), "norm")
    table[f"{prefix}.out.weight"] = Parameter(((width, mixed),), "attention")
    if spec.out_bias:
        table[f"{prefix}.out.bias"] = Parameter(((width,),), "attention")


def _mla(table: dict[str, Parameter], prefix: str, spec: Mla, width: int) -> None:
    group: ParameterGroup = "attention"
    queries = spec.num_heads * spec.query_size
    if spec.q_rank:
        table[f"{prefix}.q_down.weight"] = Parameter(((spec.q_rank, width),), group)
        if spec.bias:
            table[f"{prefix}.q_down.bias"] = Parameter(((spec.q_rank,),), group)
        table[f"{prefix}.q_norm.weight"] = Parameter(((spec.q_rank,),), "norm")
        table[f"{prefix}.q_up.weight"] = Parameter(((queries, spec.q_rank),), group)
    else:
        table[f"{prefix}.q.weight"] = Parameter(((queries, width),), group)
    table[f"{prefix}.kv_down.weight"] = Parameter(((spec.head_size, width),), group)
    if spec.bias:
        table[f"{prefix}.kv_down.bias"] = Parameter(((spec.head_size,),), group)
    table[f"{prefix}.kv_norm.weight"] = Parameter(((spec.kv_rank,),), "norm")
    both = spec.num_heads * (spec.nope_size + spec.out_size)
    table[f"{prefix}.kv_up.weight"] = Parameter(((both, spec.kv_rank),), "latent")
    values = spec.num_heads * spec.out_size
    if spec.sinks:
        table[f"{prefix}.sinks"] = Parameter(((spec.num_heads,),), "choice")
    if spec.gate != "none":
        gates = spec.num_heads if spec.gate == "heads" else values
        table[f"{prefix}.gate.weight"] = Parameter(((gates, width),), group)
    table[f"{prefix}.out.weight"] = Parameter(((width, values),), group)
    if spec.bias:
        table[f"{prefix}.out.bias"] = Parameter(((width,),), group)


def _indexer(table: dict[str, Parameter], prefix: str, spec: Indexer, width: int) -> None:
    group: ParameterGroup = "attention"
    queries = spec.num_heads * spec.head_size
    table[f"{prefix}.q.weight"] = Parameter(((queries, spec.q_rank),), group)
    table[f"{prefix}.key.weight"] = Parameter(((spec.head_size, width),), group)
    for kind in ("weight", "bias"):
        table[f"{prefix}.key_norm.{kind}"] = Parameter(((spec.head_size,),), "norm")
    table[f"{prefix}.weigh.weight"] = Parameter(((spec.num_heads, width),), "router_float32")


def _block_picks(table: dict[str, Parameter], prefix: str, spec: BlockPicks, width: int) -> None:
    queries = spec.num_heads * spec.head_size
    rows = ((queries, width), (spec.head_size, width))
    table[f"{prefix}.qk.weight"] = Parameter(rows, "attention")
    for which in ("q_norm", "k_norm"):
        table[f"{prefix}.{which}.weight"] = Parameter(((spec.head_size,),), "norm")


_MIXERS: dict[type, Callable[[dict[str, Parameter], str, Any, int], None]] = {
    Attention: _attention,
    Mla: _mla,
    Indexer: _indexer,
    BlockPicks: _block_picks,
    Compressed: compressed_parameters,
    **RECURRENT_PARAMETERS,
}
"""What writes down the parameters of each kind of mixer."""


def _dense(table: dict[str, Parameter], prefix: str, spec: Dense, width: int) -> None:
    group: ParameterGroup = "feed_forward"
    first, parts = ("gate_up", 2) if spec.gated else ("up", 1)
    table[f"{prefix}.{first}.weight"] = Parameter(((spec.width, width),) * parts, group)
    if spec.inner_eps:
        table[f"{prefix}.inner_norm.weight"] = Parameter(((spec.width,),), "norm")
    table[f"{prefix}.down.weight"] = Parameter(((width, spec.width),), group)
    if spec.activation == "xielu":
        for name, shape in (("rise", (1,)), ("fall", (1,)), ("slope", ()), ("least", ())):
            table[f"{prefix}.{name}"] = Parameter((shape,), "state")
    if spec.bias:
        table[f"{prefix}.{first}.bias"] = Parameter(((spec.width,),) * parts, group)
    if spec.bias or spec.down_bias:
        table[f"{prefix}.down.bias"] = Parameter(((width,),), group)


def _moe(table: dict[str, Parameter], prefix: str, spec: Moe, width: int) -> None:
    router: ParameterGroup = "router_float32" if spec.router_float32 else "router"
    table[f"{prefix}.router.weight"] = Parameter(((spec.num_choices, width),), router)
    if spec.router_bias:
        table[f"{prefix}.router.bias"] = Parameter(((spec.num_choices,),), router)
    if spec.choice_bias:
        table[f"{prefix}.choice.bias"] = Parameter(((spec.num_choices,),), "choice")
    if spec.norm_eps is not None:
        table[f"{prefix}.factors"] = Parameter(((spec.num_experts,),), "choice")
        for norm in ("router_norm", *(f"norm_{side}" for side in OWN_NORMS)):
            table[f"{prefix}.{norm}.weight"] = Parameter(((width,),), "norm")
    if spec.sum_bias:
        table[f"{prefix}.bias"] = Parameter(((width,),), "feed_forward")
    if spec.latent:
        table[f"{prefix}.latent_down.weight"] = Parameter(((spec.latent, width),), "feed_forward")
        table[f"{prefix}.latent_up.weight"] = Parameter(((width, spec.latent),), "feed_forward")
    expert = Dense(width=spec.width, bias=spec.bias, gated=spec.gated)
    for number in range(spec.num_experts):
        _dense(table, f"{prefix}.experts.{number}", expert, spec.latent or width)
    if spec.shared_width:
        shared = Dense(width=spec.shared_width, gated=spec.gated)
        _dense(table, f"{prefix}.shared", shared, width)
        if spec.shared_gate:
            table[f"{prefix}.shared_gate.weight"] = Parameter(((1, width),), "router")
