"""How many bytes a decoder takes: weights, position tables, and the largest step's activations.

Pure arithmetic on the description. The cache, the processes and what is free are `engine.ledger`'s.

The figures are ceilings of what `models.decoder`, `worker.output` and the reference and torch
providers of operations take; a test compares them with what a step really took.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.config.schema import Settings
from quire.models.foreign.rooms import num_calls, program_bytes, table_bytes
from quire.models.lengths import growths
from quire.models.mixer_rooms import mixer_inputs, mixer_room, picking_bytes, seen_bytes, widest
from quire.models.parameters import parameters
from quire.models.recurrent import Recurrent
from quire.models.spec import (
    AfterBlock,
    Attending,
    Attention,
    Compressed,
    DecoderSpec,
    HyperStreams,
    LayerSpec,
    Mla,
    Moe,
    SideBySide,
)
from quire.quant.schemes.checkpoint import Scheme
from quire.quant.schemes.online import UNQUANTIZED

FLOAT32_BYTES = 4

PROMPT_SLICE = 64
"""Prompt positions whose logits live at once, as in `worker.output`."""
QUERY_ROWS, TILE_TOKENS, SEGMENT_TOKENS = 32, 32, 1024
GROUP_BYTES = 32 << 20
"""Constants of the attention plan, as in `ops.vendor.attention_plan` and `ops.attention`."""

_TILE_ROWS = 64  # rows of one product, as in `ops.linear`
_ALIGNMENT = 64  # bytes, as in `ops.arena`
_CHUNK_ROWS, _GROUP_ROWS, _BLOCK_COLUMNS = (
    480,
    32,
    32,
)  # of a native product, as in csrc/ops/product.h
_APART_BYTES = 384 << 10  # of packed rows that a thread has for itself there
_EXPERT_TOKENS, _EXPERT_ROWS, _MADE_BYTES = 512, 96, 32 << 20  # as in csrc/ops/moe.cpp
_FLOAT8_BYTES = 32 << 10  # of float8 weights as they are multiplied
_SEARCH_BYTES = 16  # of one entry of the vocabulary while a native filter looks for the best
_MAX_GRAPHS, _CALLS_A_LAYER, _CALL_BYTES = 128, 13, 160  # of recorded steps
_CALLS_OF_CROSS = 5  # more, of a layer that looks at an encoder
_CALLS_OF_STREAMS = 4  # times as many calls are of a layer with several residual streams
_TORCH_CALL_BYTES = 2048  # of a recorded call of torch with its arguments
_FIRST_WEIGHTS, _LATER_WEIGHTS = 32 << 20, 192 << 20  # bytes of weights in one piece of memory
_HUGE_PAGE = 2 << 20  # bytes, which native scratch is rounded up to
_INDEX_BYTES = 24  # where a gathered token lies: three int64
_STREAM_COPIES = 4  # of one stream, that the reference of their mixture holds beside all of them
_STATE_COPIES = 4  # of a state and of a step's numbers, that the reference of a scan holds
_ROW_TEMPORARIES = 6  # float64 of one row's vocabulary that a draw or a logprob holds at once


@dataclass(frozen=True, kw_only=True)
class StepSizes:
    """The largest step. T = num_tokens, of which num_rows sequences sample; dtype_bytes of weights."""

    num_tokens: int
    num_rows: int
    max_model_len: int
    dtype_bytes: int

    @property
    def num_logits(self) -> int:
        """Rows of logits that live at once: the sampling ones, or a slice of a prompt."""
        return max(min(self.num_rows, self.num_tokens), min(PROMPT_SLICE, self.num_tokens))

    @property
    def wide_copies(self) -> int:
        """1 where an operation's float32 input is a copy, 0 where it is the input itself."""
        return int(self.dtype_bytes != FLOAT32_BYTES)


def step_sizes(settings: Settings, *, dtype_bytes: int) -> StepSizes:
    """The largest step that settled settings, without a None, allow."""
    scheduler, max_model_len = settings.scheduler, settings.model.max_model_len
    budget, num_rows = scheduler.max_num_batched_tokens, scheduler.max_num_seqs
    assert budget is not None and num_rows is not None and max_model_len is not None
    return StepSizes(
        num_tokens=min(budget, num_rows * max_model_len),
        num_rows=num_rows,
        max_model_len=max_model_len,
        dtype_bytes=dtype_bytes,
    )


def weight_bytes(
    spec: DecoderSpec, dtype_bytes: int, scheme: Scheme = UNQUANTIZED
) -> dict[str, int]:
    """Bytes of the loaded weights by group; norms are float32, a tied head is the embedding's table.

    A tied head of fewer bits is a copy of that table.
    """
    found: dict[str, int] = {}
    for name, parameter in parameters(spec).items():
        num_bytes = parameter.numel * (FLOAT32_BYTES if parameter.is_float32 else dtype_bytes)
        format = scheme.format_of(parameter.group, name)
        if format.bits is not None:
            num_bytes = parameter.numel * FLOAT32_BYTES  # of a bias
            if len(parameter.shape) == 2:
                num_bytes = format.num_bytes(*parameter.shape, dtype_bytes)
        found[parameter.group] = found.get(parameter.group, 0) + num_bytes
    head = scheme.head.of("head.weight")
    if spec.tie_head and head.bits is not None:
        found["head"] = head.num_bytes(spec.vocab_size, spec.hidden_size, dtype_bytes)
    return found


def largest_layer_bytes(spec: DecoderSpec, dtype_bytes: int, scheme: Scheme = UNQUANTIZED) -> int:
    """Bytes of the largest layer: what loading may hold beside the weights that it keeps.

    Embedding and head are never held twice: what is read is what is kept. Where fewer bits are made of
    them, it is the largest parameter as it was read, and its codes of a byte each.
    """
    found: dict[str, int] = {}
    made = [
        parameter.numel * (dtype_bytes + 1)
        for name, parameter in parameters(spec).items()
        if scheme.format_of(parameter.group, name).bits is not None
    ]
    if made:
        if spec.tie_head and scheme.head.of("head.weight").bits is not None:
            made.append(spec.vocab_size * spec.hidden_size)
        return max(made)
    for name, parameter in parameters(spec).items():
        if name.startswith("layers."):
            layer = name.split(".")[1]
            found[layer] = found.get(layer, 0) + parameter.numel * dtype_bytes
    return max(found.values(), default=0)


def position_table_bytes(spec: DecoderSpec, max_model_len: int) -> int:
    """Bytes of the cosines and sines, one float32 table [max_model_len, dim] for each kind of RoPE."""
    if spec.program is not None:
        return table_bytes(spec.program, max_model_len)
    ropes = {mixer.positions for mixer in spec.attentions if mixer.positions is not None}
    back = {mixer.rope for mixer in spec.attentions if isinstance(mixer, Compressed)}
    numbers = sum(rope.dim for rope in (*ropes, *back)) + sum(size for _, size in growths(spec))
    return max_model_len * numbers * FLOAT32_BYTES


def arena_bytes(spec: DecoderSpec, sizes: StepSizes) -> int:
    """Bytes that the largest step takes from its arena: residual stream, then layers or logits."""
    tokens, rows, width = sizes.num_tokens, sizes.num_logits, spec.hidden_size
    each, wide = sizes.dtype_bytes, 2 if spec.head_act is None else 3
    if spec.program is not None:
        return program_bytes(spec.program, tokens, rows, each) + 16 * _ALIGNMENT
    layer = max(tokens * _layer_width(spec, one) * each for one in spec.all_layers)
    head = wide * rows * width * each + rows * spec.vocab_size * FLOAT32_BYTES
    ends = tokens * _ends_width(spec) * each + (8 * tokens if spec.layer_inputs else 0)
    return tokens * width * each + ends + max(layer, head) + 16 * _ALIGNMENT


def scratch_bytes(spec: DecoderSpec, sizes: StepSizes) -> int:
    """Bytes that the largest operation allocates beside the arena, for the length of its call."""
    tokens, copies = sizes.num_tokens, sizes.wide_copies
    norm = tokens * spec.hidden_size * FLOAT32_BYTES * (2 + copies)
    found = [norm, _sampling(spec, sizes), picking_bytes(spec, sizes.max_model_len)]
    if spec.streams is not None:
        copies = spec.streams.count * (1 + isinstance(spec.streams, HyperStreams)) + _STREAM_COPIES
        found.append(tokens * spec.hidden_size * FLOAT32_BYTES * copies)
    blocks = [one.mixer for one in spec.layers if isinstance(one.mixer, AfterBlock)]
    found += [2 * norm] * len(blocks)  # of the stream and the embedding side by side
    for mixer in {one for layer in spec.all_layers for one in layer.mixers}:
        if isinstance(mixer, Recurrent):
            found.append(
                _STATE_COPIES * (mixer.state_bytes + tokens * mixer.room() * FLOAT32_BYTES)
            )
        elif isinstance(mixer, Compressed):
            own = seen_bytes(mixer, sizes.num_tokens, sizes.max_model_len)
            found += [own, _rope(mixer, sizes)]
        elif isinstance(mixer, Attention | Mla):
            found += [_attention(mixer, sizes), _rope(mixer, sizes)]
    dense = {layer.feed_forward for layer in spec.all_layers}
    for part in dense | {it.feed_forward for it in blocks}:
        if isinstance(part, Moe):
            found.append(_experts(part, spec.hidden_size, tokens))
        elif part is not None:
            inputs = 2 if part.gated else 1
            found.append(tokens * part.width * FLOAT32_BYTES * (3 + inputs * copies))
    return max(found) + _product(spec, sizes)


def native_rooms(spec: DecoderSpec, sizes: StepSizes) -> tuple[int, int]:
    """Bytes of the native library's scratch: a product's packed rows for all threads, and each one's own."""
    rows = min(_CHUNK_ROWS, sizes.num_tokens) + _GROUP_ROWS
    heads = max((mixer.head_size for mixer in spec.attentions), default=0)
    own = max(
        (rows + _GROUP_ROWS) * _BLOCK_COLUMNS * FLOAT32_BYTES * 2 + _APART_BYTES,
        _GROUP_ROWS * 16 * heads * FLOAT32_BYTES,
        _SEARCH_BYTES * spec.vocab_size,
    )
    common = rows * max(_inputs(spec)) * FLOAT32_BYTES
    for part in {layer.feed_forward for layer in spec.all_layers}:
        if isinstance(part, Moe):
            shared, each = _expert_rooms(part, spec.hidden_size, sizes)
            common, own = max(common, shared), max(own, each)
    return _pages(common), _pages(own)


def native_scratch_bytes(spec: DecoderSpec, sizes: StepSizes, threads: int) -> int:
    """Bytes of that scratch, of the logits that are copied for logprobs, and of torn huge pages.

    Those stand at the end of each piece of memory for weights, as `ops.cpu.memory` takes them.
    """
    shared, own = native_rooms(spec, sizes)
    kept = min(sizes.num_rows, sizes.num_tokens) * spec.vocab_size * FLOAT32_BYTES
    weights = sum(weight_bytes(spec, sizes.dtype_bytes).values())
    pieces = 1 + min(3, weights // _FIRST_WEIGHTS) + weights // _LATER_WEIGHTS
    return (
        shared
        + threads * own
        + kept
        + pieces * _HUGE_PAGE
        + picking_bytes(spec, sizes.max_model_len)
    )


def recorded_bytes(spec: DecoderSpec, sizes: StepSizes) -> int:
    """Bytes of the recorded steps, at most two for each number of tokens, as in `worker.graphs`."""
    lists = min(_MAX_GRAPHS, 2 * sizes.num_tokens)
    if spec.program is not None:
        ours, torchs = num_calls(spec.program)
        return lists * (ours * _CALL_BYTES + torchs * _TORCH_CALL_BYTES)
    calls = len(spec.layers) * spec.loops * _CALLS_A_LAYER
    calls += sum(_CALLS_OF_CROSS for layer in spec.layers if layer.cross is not None)
    calls *= _CALLS_OF_STREAMS if spec.streams is not None else 1
    # Of latent attention each head has two products of its own.
    calls += sum(2 * mixer.num_heads for mixer in spec.mixers if isinstance(mixer, Mla))
    calls += sum(mixer.out_groups for mixer in spec.mixers if isinstance(mixer, Compressed))
    return lists * calls * _CALL_BYTES


def _pages(num_bytes: int) -> int:
    """Bytes in whole huge pages."""
    return -(-num_bytes // _HUGE_PAGE) * _HUGE_PAGE


def index_bytes_per_token(spec: DecoderSpec) -> int:
    """Bytes with which the attention plans say where one cached token lies, all cache groups together."""
    kinds = {(mixer.window, mixer.num_kv_heads, mixer.head_size) for mixer in spec.attentions}
    return _INDEX_BYTES * len(kinds)


def _ends_width(spec: DecoderSpec) -> int:
    """Numbers a token taken beside the residual stream for a whole pass: layers' inputs, and streams, kept ones too."""
    found = len(spec.kept) * spec.hidden_size
    found += spec.hidden_size * spec.has_shortcuts
    found += 2 * spec.num_picks  # of four bytes each, which is two numbers at most
    if spec.keeps_embedding:
        found += spec.hidden_size
    if spec.layer_inputs is not None:
        found += 2 * len(spec.layers) * spec.layer_inputs.size
    if isinstance(spec.streams, HyperStreams):
        found += spec.streams.count * spec.hidden_size
    elif spec.streams is not None:
        found += (spec.streams.count + 2) * spec.hidden_size
    return found


def _layer_width(spec: DecoderSpec, layer: LayerSpec) -> int:
    """Numbers a token that one layer takes: its input, q with k and v, the mixed heads, gate with up, gated."""
    rooms = [mixer_room(mixer, spec.hidden_size) for mixer in layer.mixers]
    heads = sum(rooms)
    if isinstance(
        spec.streams, HyperStreams
    ):  # parts give back what they took, two wide copies too
        count = spec.streams.count
        parts = heads, _part_width(spec, layer, 0), 4 * count * spec.hidden_size
        return spec.hidden_size + 2 * count * (count + 2) + max(parts)
    if isinstance(layer.mixer, AfterBlock):
        heads = layer.mixer.room(spec.hidden_size, *rooms)
    if isinstance(layer.mixer, SideBySide):
        heads += spec.hidden_size * len(layer.mixers)
    if layer.input_act is not None and spec.layer_inputs is not None:
        heads += spec.hidden_size + spec.layer_inputs.size
    if spec.streams is not None:
        count = spec.streams.count
        heads += (count + 3) * spec.hidden_size + spec.streams.rank + count * (count + 4)
    return _part_width(spec, layer, heads) + spec.hidden_size


def _part_width(spec: DecoderSpec, layer: LayerSpec, heads: int) -> int:
    """Numbers a token of a layer's feed-forward part, and of its mixers' `heads`, beside its input."""
    part = layer.feed_forward
    if part is None:
        return heads
    inputs = 1 if layer.placement.startswith("parallel") else 0
    if isinstance(part, Moe):
        # logits, ids and weights are at most four bytes, of two a number; what the experts made
        routed = 2 * (part.num_choices + 2 * part.top_k) + spec.hidden_size
        if part.router_float32:
            routed += 2 * spec.hidden_size
        if part.norm_eps is not None:
            routed += spec.hidden_size
        routed += part.latent
        routed += (3 if part.gated else 1) * part.shared_width
        return inputs * spec.hidden_size + heads + routed + 1
    return inputs * spec.hidden_size + heads + (3 if part.gated else 1) * part.width


def _rope(mixer: Attending, sizes: StepSizes) -> int:
    """Bytes of the angles, both halves, and the three products of the turn of q."""
    dim = 0 if mixer.rope is None else mixer.rope.dim
    per_head_norm = mixer.num_heads * mixer.head_size * FLOAT32_BYTES * (2 + sizes.wide_copies)
    turn = (mixer.num_heads * 5 * dim // 2 + dim) * FLOAT32_BYTES
    return sizes.num_tokens * max(turn, per_head_norm)


def _attention(mixer: Attention | Mla, sizes: StepSizes) -> int:
    """Bytes of queries and results of all pairs, one group's tiles and states, and their indices."""
    group = -(-mixer.num_heads // mixer.num_kv_heads)
    queries = max(1, QUERY_ROWS // group)
    rows = max(QUERY_ROWS, -(-group // 16) * 16)
    num_pairs = -(-sizes.num_tokens // queries) + min(sizes.num_rows, sizes.num_tokens)
    numbers = num_pairs * mixer.num_kv_heads * rows * (2 * mixer.head_size + 2)
    numbers += sizes.num_tokens * mixer.num_heads * mixer.head_size
    per_tile = mixer.num_kv_heads * TILE_TOKENS * 2 * mixer.head_size * FLOAT32_BYTES
    per_item = mixer.num_kv_heads * rows * 3 * (mixer.head_size + TILE_TOKENS) * FLOAT32_BYTES
    longest = sizes.max_model_len if mixer.window is None else mixer.window + TILE_TOKENS
    longest = min(longest, sizes.max_model_len)
    segments = -(-longest // SEGMENT_TOKENS)
    all_tiles = min(sizes.num_rows, sizes.num_tokens) * -(-longest // TILE_TOKENS)
    states = num_pairs * segments * per_item
    one_item = per_item + SEGMENT_TOKENS // TILE_TOKENS * per_tile
    tiles = min(all_tiles * per_tile, GROUP_BYTES + one_item)
    # Keys and values in float32 and, while the values are gathered, a copy as they are stored.
    gathering = tiles + tiles // 2 * sizes.dtype_bytes // FLOAT32_BYTES
    attending = min(tiles + states, GROUP_BYTES + one_item)
    index = tiles * TILE_TOKENS * 2 * _INDEX_BYTES // per_tile
    return numbers * FLOAT32_BYTES + max(gathering, attending) + index


def _sampling(spec: DecoderSpec, sizes: StepSizes) -> int:
    """Bytes of the logits kept for logprobs and of one row's temporaries."""
    kept = min(sizes.num_rows, sizes.num_tokens) * spec.vocab_size * FLOAT32_BYTES
    return kept + _ROW_TEMPORARIES * spec.vocab_size * 8


def _product(spec: DecoderSpec, sizes: StepSizes) -> int:
    """Bytes of the padded inputs of the widths that occur, and of one tile's product."""
    parts = [layer.feed_forward for layer in spec.all_layers if layer.feed_forward is not None]
    widths = {(3 if part.gated else 1) * widest(part) for part in parts}
    widths |= {mixer.room() for mixer in spec.mixers if isinstance(mixer, Recurrent)}
    blocks = [one.mixer for one in spec.layers if isinstance(one.mixer, AfterBlock)]
    widths |= {3 * block.feed_forward.width for block in blocks}
    outputs = {spec.vocab_size, _ends_width(spec), *widths}
    return _TILE_ROWS * sizes.dtype_bytes * (sum(_inputs(spec)) + max(outputs))


def _inputs(spec: DecoderSpec) -> set[int]:
    """The widths that products take."""
    inputs = {spec.hidden_size}
    for layer in spec.all_layers:
        if isinstance(layer.mixer, AfterBlock):
            inputs |= layer.mixer.inputs(spec.hidden_size)
        for mixer in layer.mixers:
            inputs |= {*mixer_inputs(mixer)}
        if layer.feed_forward is not None:
            inputs.add(widest(layer.feed_forward))
    inputs |= {getattr(layer.feed_forward, "latent", 0) for layer in spec.layers}
    inputs |= {spec.layer_inputs.size} if spec.layer_inputs else set()
    if isinstance(spec.streams, HyperStreams):
        inputs.add(spec.streams.count * spec.hidden_size)
    elif spec.streams is not None:
        inputs |= {spec.streams.rank, spec.streams.count}
    return inputs


def _experts(part: Moe, size: int, tokens: int) -> int:
    """Bytes of what the reference keeps of each token's experts, and of one tile inside."""
    return tokens * (part.top_k + 1) * size * FLOAT32_BYTES + 4 * _TILE_ROWS * part.width * 4


def _expert_rooms(part: Moe, size: int, sizes: StepSizes) -> tuple[int, int]:
    """Bytes of native scratch of experts: for all threads, and for each, as in csrc/ops/moe.cpp."""
    width, columns = _whole(part.width), _whole(size)
    rows = max(16, min(_EXPERT_TOKENS, _MADE_BYTES // (part.top_k * columns * FLOAT32_BYTES)))
    pairs = min(rows, sizes.num_tokens) * part.top_k
    common = pairs * (width * sizes.dtype_bytes + columns * FLOAT32_BYTES)
    packed = (_EXPERT_ROWS + _GROUP_ROWS) * FLOAT32_BYTES
    own = packed * (max(width, columns) * 2 + 4 * _BLOCK_COLUMNS) + 8 * (pairs + part.num_experts)
    return common, own + _FLOAT8_BYTES


def _whole(columns: int) -> int:
    return -(-columns // _BLOCK_COLUMNS) * _BLOCK_COLUMNS
