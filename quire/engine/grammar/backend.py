"""What every grammar engine offers: a spec becomes something compiled, that a matcher per sequence.

The engines are `guidance` and `xgrammar`; which one is used is `compiler`'s choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quire.protocol.request import GrammarSpec


class GrammarError(ValueError):
    """A constraint that cannot be compiled or followed; the sentence is for its user."""


class Matcher(Protocol):
    """Where one sequence stands in its constraint. A pure function of the ids it was given."""

    def advance(self, token_ids: list[int]) -> None:
        """Takes in output. Raises GrammarError for an id that the constraint does not allow here."""
        ...

    def rollback(self, count: int) -> None:
        """Forgets the last `count` ids."""
        ...

    def fill(self, mask: NDArray[np.uint32]) -> None:
        """Writes the allowed ids into `mask` [ceil(V / 32)], bit i % 32 of word i // 32 for id i.

        End tokens are not among them, or only where `may_end`. Raises GrammarError where a limit is hit.
        """
        ...

    @staticmethod
    def fill_all(
        matchers: Sequence[Any], bits: NDArray[np.uint32], rows: Sequence[int], threads: int
    ) -> None:
        """`fill` for matchers of this kind, each into its row of `bits` [.., ceil(V / 32)], which is contiguous.

        May raise what `fill` raises for any of them; then none of the masks can be used.
        """
        ...

    def settle(self, mask: NDArray[np.uint32]) -> None:
        """Makes of what `fill_all` wrote what `fill` promises. Raises as `fill` does."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether what was taken in so far is complete."""
        ...


class Compiled(Protocol):
    """A constraint ready for use by any number of sequences. size_bytes is an estimate."""

    size_bytes: int

    def matcher(self) -> Matcher:
        """A matcher at the beginning."""
        ...


class Backend(Protocol):
    """A grammar engine bound to one vocabulary."""

    def compile(self, spec: GrammarSpec) -> Compiled:
        """Raises GrammarError for a constraint that is wrong, not supported, or too complex."""
        ...


def with_ids(num_words: int, ids: Iterable[int]) -> NDArray[np.uint32]:
    """A mask [num_words] of these ids alone; those beyond it are left out."""
    mask = np.zeros(num_words, dtype=np.uint32)
    for one in ids:
        if one // 32 < num_words:
            mask[one // 32] |= np.uint32(1 << one % 32)
    return mask


def without_ids(num_words: int, ids: Iterable[int]) -> NDArray[np.uint32]:
    """A mask [num_words] of all ids but these."""
    return ~with_ids(num_words, ids)
