"""Attention over latents as data: one latent of a token for all heads, and which tokens a query picks.

Other mixers are `models.spec` and `models.recurrent`; what these compute is `layers.mla` and `layers.indexer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quire.models.positions import Rope, Temperature
from quire.protocol.cache import CacheKind


class PickingKeys:
    """What is cached for picking alone: one key of a token in each layer, for all heads, and no values."""

    head_size: int

    @property
    def num_kv_heads(self) -> int:
        """One cached key serves all heads."""
        return 1

    @property
    def value_size(self) -> int:
        """There are no values."""
        return 0

    @property
    def window(self) -> int | None:
        """All that is cached can be picked."""
        return None

    def cache_kind(self) -> CacheKind:
        return "index"

    def cache_bytes_per_token(self, dtype_bytes: int, scale_bytes: int = 0) -> int:
        """Bytes of one token's key in one layer, packed without padding."""
        return self.head_size * dtype_bytes + scale_bytes


@dataclass(frozen=True, kw_only=True)
class Indexer(PickingKeys):
    """Scores of cached tokens for a query, by keys of its own that all its heads share. Source: arXiv 2512.02556.

    q_rank       of the latent that its queries come from, which is the attention's.
    head_size    numbers of a head's query and of a key; the first ones have the attention's positions.
    interleaved  neighbours turn in pairs.
    turned_last  the last numbers have the positions, not the first.
    norm_eps     of the LayerNorm of keys.
    """

    num_heads: int
    head_size: int
    q_rank: int
    interleaved: bool = False
    turned_last: bool = False
    norm_eps: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class Picks:
    """The `count` tokens up to and with its own that a query sees: all while they are no more.

    indexer  what picks them; None: they are those of the last layer before that has one.
    """

    count: int
    indexer: Indexer | None = None


@dataclass(frozen=True, kw_only=True)
class Mla:
    """Attention over a latent of each token, which all heads share; causal. Source: arXiv 2405.04434.

    q_rank      of the latent that queries come from; 0: they come from the layer's input.
    kv_rank     of the latent that keys and values come from, which is what is cached.
    nope_size   numbers of a head's query and key without a position; rope.dim more have one.
    out_size    numbers of a head's value.
    turned      the part of a head with a position is turned by it; else it only has a key that all heads share.
    kv_factor   of the normed latent that keys and values come from.
    scale       factor of the scores; None is (nope_size + rope.dim) ** -0.5.
    bias        products that make latents, and the output, have biases.
    norm_eps    of the norms of both latents.
    picks       which tokens a query sees; None: all before it.
    temperature what queries are multiplied by; None is nothing.
    sinks       a learned score of each head takes weight and gives nothing.
    gate        what a head mixed is multiplied with the sigmoid of a product of the layer's input, of one number
                for each of its numbers or for each head.
    """

    num_heads: int
    q_rank: int
    kv_rank: int
    nope_size: int
    out_size: int
    rope: Rope
    turned: bool = True
    kv_factor: float = 1.0
    scale: float | None = None
    bias: bool = False
    norm_eps: float = 1e-6
    picks: Picks | None = None
    temperature: Temperature | None = None
    sinks: bool = False
    gate: Literal["none", "numbers", "heads"] = "none"

    @property
    def num_picks(self) -> int:
        """Most tokens that a query sees, itself included; 0 where it sees all."""
        return 0 if self.picks is None else self.picks.count

    @property
    def indexer(self) -> Indexer | None:
        """What picks tokens, where it is this layer's own."""
        return None if self.picks is None else self.picks.indexer

    @property
    def query_scale(self) -> float:
        return self.query_size**-0.5 if self.scale is None else self.scale

    @property
    def positions(self) -> Rope | None:
        """What turns queries and keys."""
        return self.rope if self.turned else None

    @property
    def query_size(self) -> int:
        """Numbers of one head's query as the checkpoint's products make it."""
        return self.nope_size + self.rope.dim

    @property
    def num_kv_heads(self) -> int:
        """One cached key and value serve all heads."""
        return 1

    @property
    def head_size(self) -> int:
        """Numbers of a cached key: the latent and the part with a position."""
        return self.kv_rank + self.rope.dim

    @property
    def value_size(self) -> int:
        """Numbers of a cached value: the latent."""
        return self.kv_rank

    @property
    def window(self) -> int | None:
        """Every token stays visible."""
        return None

    def cache_kind(self) -> CacheKind:
        return "mla"

    def cache_bytes_per_token(self, dtype_bytes: int, scale_bytes: int = 0) -> int:
        """Bytes of one token's key and value in one layer, packed without padding."""
        return (self.head_size + self.value_size) * dtype_bytes + scale_bytes
