"""Which blocks of tokens a query sees as data: keys of their own by which they are picked, for each head of k.

Single tokens are picked by `models.latent`; what this computes is `layers.block_attention`.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.models.latent import PickingKeys


@dataclass(frozen=True, kw_only=True)
class BlockPicks(PickingKeys):
    """The `count` blocks of `size` tokens that a query sees by each head: all while they are no more.

    num_heads  of queries, one for each head of k of the attention; one key serves all of them. Both are RMS normed,
               with eps `norm_eps`, and have the attention's positions.
    local      blocks up to and with the query's own that are picked in any case.
    """

    num_heads: int
    head_size: int
    count: int
    size: int
    local: int = 1
    norm_eps: float = 1e-6

    @property
    def num_tokens(self) -> int:
        """Most tokens that a query sees, itself included."""
        return self.count * self.size

    def room(self) -> int:
        """Numbers of two bytes a token that it takes beside its attention's: queries with the key, and picks."""
        return (self.num_heads + 1) * self.head_size + 2 * self.num_heads * self.count
