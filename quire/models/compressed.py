"""Attention over a window of tokens and entries that stand for many, as frozen data like `models.spec`.

What it computes is `layers.compressed_attention`; what of it is cached for how long is told here too.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.models.positions import Rope
from quire.protocol.cache import CacheKind


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Rows that a mixer keeps of a sequence, one for every `rate` tokens: two vectors each.

    window  tokens for which rows are needed, the newest included; None: all rows stay.
    """

    head_size: int
    value_size: int
    window: int | None = None
    rate: int = 1

    @property
    def num_kv_heads(self) -> int:
        """All heads see one row."""
        return 1

    def cache_kind(self) -> CacheKind:
        return "full" if self.window is None else "sliding_window"

    def rows(self, block_size: int) -> int:
        """Rows that a block of so many tokens has room for: of those whose last token is in it."""
        return -(-block_size // self.rate)

    def block_bytes(self, block_size: int, dtype_bytes: int, scale_bytes: int) -> int:
        """Bytes of the rows of a block of so many tokens in one layer, packed without padding."""
        row = (self.head_size + self.value_size) * dtype_bytes + scale_bytes
        return self.rows(block_size) * row


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """Attention of all heads over one normed vector a token, which is key and value, in a window; and over entries.

    An entry is a mixture of the vectors of `rate` tokens, weighed for each number by a softmax of its own; it is
    seen from the last of them on. With an index it is of twice as many, those before these too, and only the
    `index_top_k` entries are seen whose keys, made likewise, meet the query's own ones best. The part of a result
    with a position is turned back. Source: the DeepSeek V4 report, sections 2.3.1 and 2.3.2.

    q_rank       of the normed latent that queries come from; queries are normed without weights.
    rope         turns the last rope.dim numbers of a head.
    window       tokens looked back, counting the query itself.
    rate         0: no entries.
    index_heads, index_size  queries of the index, and their numbers; 0: no index.
    out_groups, out_rank     the heads stand in groups, each with a product to so many numbers before the output.
    norm_eps     of all norms.
    """

    num_heads: int
    head_size: int
    q_rank: int
    rope: Rope
    window: int
    rate: int
    index_heads: int
    index_size: int
    index_top_k: int
    out_groups: int
    out_rank: int
    norm_eps: float = 1e-6

    @property
    def query_scale(self) -> float:
        return float(self.head_size**-0.5)

    @property
    def positions(self) -> Rope | None:
        """What turns queries and keys."""
        return self.rope

    @property
    def num_kv_heads(self) -> int:
        """One cached vector serves all heads."""
        return 1

    @property
    def value_size(self) -> int:
        """Numbers of a cached value: the key."""
        return self.head_size

    @property
    def series(self) -> int:
        """Vectors that a token gives to entries: with an index one to its own and one to the next."""
        return 2 if self.index_heads else 1

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What is cached: the vectors of the window; the entries, and what those to come are made of."""
        found = [Kept(head_size=self.head_size, value_size=0, window=self.window)]
        if self.rate:
            sizes = self.head_size, self.index_size
            made = [2 * self.series * size for size in sizes]  # each with what weighs it
            found += [
                Kept(head_size=sizes[0], value_size=sizes[1], rate=self.rate),
                Kept(head_size=made[0], value_size=made[1], window=self.series * self.rate),
            ]
        return tuple(found)
