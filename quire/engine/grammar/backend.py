"""What every grammar engine offers: a spec becomes something compiled, that a matcher per sequence.

The engines are `guidance` and `xgrammar`; which one is used is `compiler`'s choice.
"""

from __future__ import annotations

from typing import Protocol

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
