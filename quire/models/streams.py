"""What layers have beside one residual stream, as frozen data: part of a description, `models.spec`.

What is computed is in `layers.altup`, `layers.hyper` and `layers.layer_inputs`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerInputs:
    """`size` numbers for each layer and token: a row of a table of `vocab_size`, and a product of the embedding."""

    vocab_size: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Streams:
    """`count` residual streams, of which layers compute with the `active` one: `layers.altup`.

    rank    of the product beside each mixer, of the same input: normed, and added with that input.
    scaled  what a layer's own input is gated by is multiplied by a learned number for each channel.
    """

    count: int
    active: int
    rank: int
    scaled: bool


@dataclass(frozen=True, kw_only=True)
class HyperStreams:
    """`count` residual streams that every layer reads and writes twice: `layers.hyper`. Source: arXiv 2512.24880.

    rounds  of making the rows and columns of a mixture sum up to 1; eps is added to what it divides by, and to
            the shares of the streams in what a part reads. 0: streams are not mixed, and eps is added to the
            shares of what is written too.
    most    the most of what a part made that a stream gets.
    """

    count: int
    rounds: int = 0
    eps: float
    most: float = 2.0

    @property
    def num_shares(self) -> int:
        """How many shares a part has: to read the streams, to write them and to mix each of each."""
        return (2 + self.count if self.rounds else 2) * self.count
