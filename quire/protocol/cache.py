"""What the engine and the worker must agree on about the KV cache: groups, sizes, slabs.

Block accounting is `engine.kvcache`; the bytes themselves belong to `worker.memory`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

CacheKind = Literal[
    "full", "sliding_window", "chunked", "mla", "index", "blocks", "cross", "recurrent"
]

NULL_BLOCK = -1
"""Stands in a block table for a block whose tokens no query can see any more."""


class CacheGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that share a cache shape and lifetime; each keeps one block table per sequence.

    kind             "index": keys by which tokens are picked, without values; "blocks": what is picked by blocks;
                     "recurrent": a block holds one state of each layer, the one after the last token
                     so far of the block's interval of tokens; the next interval starts from it.
    layers           numbers of the mixers: their layers' where each layer has one mixer.
    block_size       tokens per block, a power of two from 8 to 256; of a recurrent group any power of
                     two from the other groups' on.
    bytes_per_token  summed over `layers`, as the provider of attention lays it out; of a recurrent
                     group what a token costs where every interval keeps its state.
    window           tokens looked back, counting the query; only for sliding windows and chunks, and
                     2 for recurrent groups: the last token's state is all that the next one needs.
    state_bytes      of a block of a recurrent group.
    max_tokens       of a "cross" group, whose tokens are those that an encoder read: most that there are.
    """

    kind: CacheKind
    layers: tuple[int, ...]
    block_size: int
    bytes_per_token: int
    window: int | None = None
    state_bytes: int = 0
    max_tokens: int = 0

    @property
    def block_bytes(self) -> int:
        return (
            self.state_bytes if self.kind == "recurrent" else self.block_size * self.bytes_per_token
        )


class CacheLayout(msgspec.Struct, frozen=True, kw_only=True):
    """How one byte budget is cut: `num_slabs` slabs of `slab_bytes`, each used by one group at a time.

    In group g, block b lies in slab b // blocks_per_slab(g), at place b % blocks_per_slab(g);
    block ids of different groups are independent numbers.
    """

    groups: tuple[CacheGroup, ...]
    slab_bytes: int
    num_slabs: int

    def blocks_per_slab(self, group: int) -> int:
        return self.slab_bytes // self.groups[group].block_bytes

    def max_blocks(self, group: int) -> int:
        """Block ids of this group are below this number."""
        return self.num_slabs * self.blocks_per_slab(group)
