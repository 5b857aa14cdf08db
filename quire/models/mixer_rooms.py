"""What one mixer takes of a step's memory, in numbers a token or in bytes.

Sums over layers and all other parts are `models.footprint`.
"""

from __future__ import annotations

from quire.models.feed_forward import FeedForward, Moe
from quire.models.recurrent import Recurrent
from quire.models.spec import Attention, BlockPicks, Compressed, DecoderSpec, Indexer, Mixer, Mla

_FLOAT32_BYTES = 4


def mixer_room(mixer: Mixer, size: int) -> int:
    """Numbers a token of `size` that one mixer takes."""
    if isinstance(mixer, Recurrent):
        return mixer.room()
    if isinstance(mixer, BlockPicks):
        return mixer.room()
    if isinstance(mixer, Indexer):
        return 0  # given back before its attention takes more
    if isinstance(mixer, Compressed):
        given = 2 * mixer.series * (mixer.head_size + mixer.index_size) if mixer.rate else 0
        index = mixer.index_heads * (mixer.index_size + 1) + 2 * mixer.index_top_k
        heads = 3 * mixer.num_heads * mixer.head_size + mixer.head_size + mixer.q_rank
        return heads + given + index + mixer.out_groups * mixer.out_rank
    heads = (2 * mixer.num_heads + 2 * mixer.num_kv_heads) * mixer.head_size
    if isinstance(mixer, Attention) and mixer.values != "own":
        heads += mixer.num_kv_heads * mixer.head_size
    if isinstance(mixer, Attention) and mixer.pairs:
        heads += (2 * mixer.num_heads + mixer.num_kv_heads) * mixer.head_size
    if isinstance(mixer, Attention) and mixer.rank:
        heads += mixer.rank + mixer.num_kv_heads * (mixer.head_size + mixer.value_size)
    if isinstance(mixer, Attention) and mixer.gate:
        heads += mixer.num_heads * (1 if mixer.gate_heads else mixer.value_size)
    if isinstance(mixer, Attention) and mixer.told:
        both = mixer.num_heads + mixer.num_kv_heads
        heads += both * (mixer.head_size - 2 * mixer.told) + mixer.num_kv_heads
    if isinstance(mixer, Attention) and mixer.chosen:
        # Of four bytes, two numbers at most, are ids and weights.
        heads += mixer.num_heads // mixer.num_kv_heads + 4 * mixer.chosen
    if isinstance(mixer, Mla):
        # Beside absorbed queries and mixed latents: what they are made of and become.
        heads += mixer.q_rank + mixer.num_heads * (mixer.query_size + mixer.out_size)
        gates = {"none": 0, "heads": 1, "numbers": mixer.out_size}
        heads += mixer.num_heads * gates[mixer.gate]
        if (own := mixer.indexer) is not None:
            # Of four bytes, two numbers at most, are the layer's input and the weights of heads.
            room = (own.num_heads + 1) * own.head_size + 2 * (size + own.num_heads)
            heads = max(heads, mixer.head_size + mixer.q_rank + room)
    return heads


def mixer_inputs(mixer: Mixer) -> tuple[int, ...]:
    """The widths that a mixer's products take beside the layer's own."""
    if isinstance(mixer, Recurrent):
        return mixer.inputs()
    if isinstance(mixer, BlockPicks):
        return ()
    if isinstance(mixer, Indexer):
        return (mixer.q_rank,)
    if isinstance(mixer, Mla):
        values = mixer.num_heads * mixer.out_size
        return values, mixer.kv_rank, mixer.nope_size, mixer.q_rank
    if isinstance(mixer, Compressed):
        group = mixer.num_heads * mixer.head_size // mixer.out_groups
        return group, mixer.q_rank, mixer.out_groups * mixer.out_rank
    told = mixer.num_kv_heads * mixer.value_size if mixer.told else 0
    return mixer.num_heads * mixer.value_size, mixer.rank, told


def seen_bytes(mixer: Compressed, tokens: int, max_model_len: int) -> int:
    """Bytes of a sequence's vectors, entries and what those are made of, and of what one query sees of them.

    tokens  of the sequence in a step.
    """
    found = (mixer.window + tokens) * mixer.head_size
    if mixer.rate:
        size = max(mixer.head_size, mixer.index_size)
        entries = max_model_len // mixer.rate + 1
        given = tokens + 2 * mixer.rate
        seen = mixer.window + (mixer.index_top_k or entries)
        found += entries * size + 8 * given * mixer.series * size
        found += seen * (mixer.head_size + 4 * mixer.num_heads)
        found += entries * (2 * mixer.index_heads + 4)
    return found * _FLOAT32_BYTES + 24 * (max_model_len + tokens)


def picking_bytes(spec: DecoderSpec, max_model_len: int) -> int:
    """Bytes of one sequence's keys of an indexer, thrice, with its scores; or of what one query picked."""
    found = [0]
    for mixer in set(spec.mixers):
        if isinstance(mixer, Indexer):
            found.append(max_model_len * (3 * mixer.head_size + mixer.num_heads + 8))
        if isinstance(mixer, BlockPicks):
            keys, heads = 2 * mixer.head_size, 3 * mixer.num_heads
            found.append(max_model_len * (keys + heads))
        if isinstance(mixer, Attention) and mixer.indexer is not None:
            sizes = mixer.num_kv_heads * (mixer.head_size + mixer.value_size)
            found.append(3 * mixer.indexer.num_tokens * sizes)
        if isinstance(mixer, Mla):
            found.append(3 * mixer.num_picks * (mixer.head_size + mixer.value_size))
    return max(found) * _FLOAT32_BYTES


def widest(part: FeedForward) -> int:
    """The widest that a feed-forward part is inside."""
    return max(part.width, part.shared_width) if isinstance(part, Moe) else part.width
