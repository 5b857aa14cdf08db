"""What one mixer takes of a step's memory, in numbers a token or in bytes.

Sums over layers and all other parts are `models.footprint`.
"""

from __future__ import annotations

from quire.models.recurrent import Recurrent
from quire.models.spec import Attention, DecoderSpec, Indexer, Mixer, Mla

_FLOAT32_BYTES = 4


def mixer_room(mixer: Mixer, size: int) -> int:
    """Numbers a token of `size` that one mixer takes."""
    if isinstance(mixer, Recurrent):
        return mixer.room()
    if isinstance(mixer, Indexer):
        return 0  # given back before its attention takes more
    heads = (2 * mixer.num_heads + 2 * mixer.num_kv_heads) * mixer.head_size
    if isinstance(mixer, Attention) and mixer.values != "own":
        heads += mixer.num_kv_heads * mixer.head_size
    if isinstance(mixer, Attention) and mixer.gate:
        heads += mixer.num_heads * (1 if mixer.gate_heads else mixer.value_size)
    if isinstance(mixer, Mla):
        # Beside absorbed queries and mixed latents: what they are made of and become.
        heads += mixer.q_rank + mixer.num_heads * (mixer.query_size + mixer.out_size)
        if (own := mixer.indexer) is not None:
            # Of four bytes, two numbers at most, are the layer's input and the weights of heads.
            room = (own.num_heads + 1) * own.head_size + 2 * (size + own.num_heads)
            heads = max(heads, mixer.head_size + mixer.q_rank + room)
    return heads


def mixer_inputs(mixer: Mixer) -> tuple[int, ...]:
    """The widths that a mixer's products take beside the layer's own."""
    if isinstance(mixer, Recurrent):
        return mixer.inputs()
    if isinstance(mixer, Indexer):
        return (mixer.q_rank,)
    if isinstance(mixer, Mla):
        values = mixer.num_heads * mixer.out_size
        return values, mixer.kv_rank, mixer.nope_size, mixer.q_rank
    return (mixer.num_heads * mixer.value_size,)


def picking_bytes(spec: DecoderSpec, max_model_len: int) -> int:
    """Bytes of one sequence's keys of an indexer, thrice, with its scores; or of what one query picked."""
    found = [0]
    for mixer in set(spec.mixers):
        if isinstance(mixer, Indexer):
            found.append(max_model_len * (3 * mixer.head_size + mixer.num_heads + 8))
        if isinstance(mixer, Mla):
            found.append(3 * mixer.num_picks * (mixer.head_size + mixer.value_size))
    return max(found) * _FLOAT32_BYTES
